"""Stage 6: text out of a model."""
