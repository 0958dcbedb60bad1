"""Predictions and targets to scores with signatures and intervals."""
