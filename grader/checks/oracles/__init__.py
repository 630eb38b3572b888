"""Independent books that the checks are judged by: slow, plain, and no copy of any solution."""
