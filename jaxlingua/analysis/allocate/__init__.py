"""Data allocation: how many pairs of which language are best under a budget, and how sure that is."""
