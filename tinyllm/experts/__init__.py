"""Mixture of experts: choose experts, sort tokens by expert, multiply in groups, keep the load even, spread it out."""
