"""Hugging Face in and out: config.json, safetensors, and the model card, without torch."""
