"""The course's site: chapters, figures, and what turns them into pages. Not part of the installed package."""
