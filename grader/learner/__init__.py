"""What a learner calls in a notebook: `check`, `hint` and `solution` (verbs.py), and `spot` (spotting.py)."""
