"""What the models are trained and measured on: one kind of task a module."""
