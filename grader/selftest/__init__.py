"""Trying to break out of the sandbox in every way that it should stop."""
