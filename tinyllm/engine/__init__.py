"""Continuous batching over the paged KV cache: requests, schedule, model steps, sampling. `LLM` is the front door."""
