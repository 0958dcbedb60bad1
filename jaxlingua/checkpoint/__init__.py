"""Stage 5, checkpoints: what is kept of a run, and how it is read back on any mesh."""
