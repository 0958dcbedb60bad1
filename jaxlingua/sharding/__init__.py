"""Stage 3, shard: rows and weights to devices."""
