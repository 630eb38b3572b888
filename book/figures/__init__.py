"""The book's figures, drawn at build time from the course's own objects and from committed measurements."""
