"""Stage 4, train: objective, optimizer, state, step and held-out loss."""
