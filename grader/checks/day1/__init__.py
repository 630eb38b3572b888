"""Day 1, a paged KV cache."""
