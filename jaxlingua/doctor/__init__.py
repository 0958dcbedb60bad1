"""What is here, what would fail, and what to do, in one line each; see `__main__`."""
