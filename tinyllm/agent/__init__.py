"""Models that use tools: what a call may look like, and how a model is held to it."""
