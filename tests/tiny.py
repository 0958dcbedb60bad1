"""The tiny world that tests share: a model, and what it reads."""

from dataclasses import replace

from jaxlingua.model.presets import PRESETS, LlamaConfig


# ── model ────────────────────────────────────────────────────────────────────
def tiny_llama_config(**changes: object) -> LlamaConfig:
    """Two layers of width 64, four query heads on two key heads, in float32; `changes` replace fields."""
    return replace(PRESETS["tiny-test"], **changes)
