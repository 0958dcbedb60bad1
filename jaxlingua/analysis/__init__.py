"""How much data for which language, and what happened inside the model."""
