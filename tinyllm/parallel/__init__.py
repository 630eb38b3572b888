"""Several processes for one model: how they find each other, what they exchange, and what happens when one is gone."""
