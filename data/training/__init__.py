"""How the models learn: samples to batches, the optimizers, the loop, and how one model is made from another."""
