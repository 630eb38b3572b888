"""Day 2, attention over pages and continuous batching."""
