"""The imaginary country: who and what is in it, and how it is told."""
