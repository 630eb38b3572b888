"""Day 2, attention over pages and continuous batching: its exercises in course order."""
