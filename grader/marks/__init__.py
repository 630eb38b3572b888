"""What a mark is made of."""
