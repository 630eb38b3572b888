"""Mutation testing: an exercise's check catches every small change to a right answer, or it is known as harmless."""
