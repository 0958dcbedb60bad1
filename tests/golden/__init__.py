"""Small models of every family and every kind of rotary positions, and what transformers computes with them."""

from pathlib import Path

ARRAYS = Path(__file__).with_name("golden.npz")
FINGERPRINTS = Path(__file__).with_name("golden.json")
