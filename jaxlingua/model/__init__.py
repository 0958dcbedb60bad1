"""The function that is trained: LLaMA, its attention, rotary positions, cache, sizes and remat policies."""
