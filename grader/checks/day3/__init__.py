"""Day 3, mixture of experts."""
