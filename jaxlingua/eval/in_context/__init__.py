"""Exemplars and alignments in front of an item, for models that are not trained for its language."""
