"""Measurements behind the numbers of the course. Each writes results/<name>.json, which pages and tests quote."""
