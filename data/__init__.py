"""What the shipped models are made of: an imaginary country, tasks over it, training and evaluation."""
