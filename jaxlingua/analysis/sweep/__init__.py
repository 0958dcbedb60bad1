"""Runs over languages, sizes and seeds, all from one base, and their scores in one table."""
