"""How alike a model represents the same sentence in two languages, per layer."""
