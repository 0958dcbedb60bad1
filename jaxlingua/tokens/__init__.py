"""Stage 2, tokenize/pack: text to rows of integers. Needs no jax."""
