"""What the shipped models can do, measured on names and phrases that training never drew."""
