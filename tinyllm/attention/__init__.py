"""Attention over the paged cache: one interface, and the backends behind it."""
