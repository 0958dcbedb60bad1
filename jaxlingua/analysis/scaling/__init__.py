"""Scaling laws: a score as a function of the number of pairs, chosen among several, with intervals."""
