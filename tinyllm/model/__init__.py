"""The Qwen3 decoder, its checkpoint files and its tokenizer. Knows nothing of caches, requests or schedules."""
