"""Sizes: what a LLaMA is made of, the published ones by name, and the number of their parameters."""

import difflib
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

from jaxlingua.errors import ConfigError
from jaxlingua.model.lora import Lora, check_lora
from jaxlingua.model.remat import check_remat
from jaxlingua.model.rope import RopeScaling, rope_frequencies

if TYPE_CHECKING:
    from jaxlingua.config import ModelConfig


_SIZES = (
    "vocab_size", "embed", "layers", "heads", "kv_heads", "head_dim", "mlp",
    "max_positions", "attention_block_tokens",
)  # fmt: skip


@dataclass(frozen=True)
class LlamaConfig:
    """All that determines the function: sizes, rotary positions, types, and how it is computed.

    `vocab_size` is the model's (padded_vocab_size); `max_positions` is the length the model is meant for.
    What other families have where LLaMA has nothing is off: biases (Qwen2), norms of every head's query and
    key (Qwen3), and the window of positions that a query sees, its own included (Mistral), in all layers or,
    where `sliding_layers` is given, in those that it marks (some Qwen2). With `lora` the weights are frozen
    and adapters stand beside them (model/lora.py).
    Hashable, so that it can be a static argument of a jitted function.
    """

    vocab_size: int
    embed: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    mlp: int
    rope_theta: float = 10_000.0
    rope_scaling: RopeScaling | None = None
    norm_eps: float = 1e-5
    tie_embeddings: bool = False
    qkv_bias: bool = False
    o_bias: bool = False
    mlp_bias: bool = False
    qk_norm: bool = False
    sliding_window: int | None = None
    sliding_layers: tuple[bool, ...] | None = None
    max_positions: int = 2048
    compute_dtype: Literal["float32", "bfloat16"] = "float32"
    remat: str = "none"
    barriers: bool | Literal["auto"] = "auto"
    attention: Literal["auto", "reference", "blockwise", "splash", "cudnn"] = "auto"
    attention_block_tokens: int = 512
    lora: Lora | None = None

    def __post_init__(self):
        """Refuse sizes that no LLaMA can have. Raises: ConfigError."""
        for name in _SIZES:
            if getattr(self, name) < 1:
                raise ConfigError(f"model.{name}={getattr(self, name)} is not positive; choose 1 or more")
        if self.heads % self.kv_heads:
            divisors = [str(n) for n in range(1, self.heads + 1) if self.heads % n == 0]
            raise ConfigError(
                f"model.heads={self.heads} is not a multiple of model.kv_heads={self.kv_heads}; "
                f"choose model.kv_heads among {', '.join(divisors)}"
            )
        if self.head_dim % 2:
            raise ConfigError(
                f"model.head_dim={self.head_dim} is odd, but positions turn pairs; choose an even number"
            )
        if self.sliding_window is not None and self.sliding_window < 1:
            raise ConfigError(
                f"model.sliding_window={self.sliding_window} is not positive; choose 1 or more, or None"
            )
        if self.sliding_layers is not None:
            if self.sliding_window is None:
                raise ConfigError("model.sliding_layers is given but model.sliding_window is not; give both")
            if len(self.sliding_layers) != self.layers:
                raise ConfigError(
                    f"model.sliding_layers has {len(self.sliding_layers)} entries for "
                    f"model.layers={self.layers}; give one for each layer"
                )
        check_remat(self.remat)
        if self.lora is not None:
            check_lora(self)
        rope_frequencies(self.rope_scaling, self.head_dim, self.rope_theta)  # refuses kinds it does not know

    @property
    def precision(self) -> Literal["highest"] | None:
        """For every product of weights and activations: float32 means float32.

        TPUs multiply float32 in one bfloat16 pass and GPUs in TF32 unless told otherwise, which is off by
        1e-2 in logits.
        """
        return "highest" if self.compute_dtype == "float32" else None


def _llama1(layers: int, embed: int, heads: int, mlp: int, norm_eps: float = 1e-6) -> LlamaConfig:
    return LlamaConfig(32_000, embed, layers, heads, heads, embed // heads, mlp, norm_eps=norm_eps)


def _llama2(layers: int, embed: int, heads: int, kv_heads: int, mlp: int) -> LlamaConfig:
    return LlamaConfig(32_000, embed, layers, heads, kv_heads, embed // heads, mlp, max_positions=4096)


def _llama3(layers: int, embed: int, heads: int, mlp: int) -> LlamaConfig:
    return LlamaConfig(
        128_256, embed, layers, heads, 8, embed // heads, mlp, rope_theta=500_000.0, max_positions=8192
    )


def _stretched(base: LlamaConfig, factor: float) -> LlamaConfig:
    """LLaMA 3.1 and 3.2: from 8,192 to 131,072 positions."""
    scaling = RopeScaling(
        "llama3", factor, original_max_position_embeddings=8192, low_freq_factor=1.0, high_freq_factor=4.0
    )
    return replace(base, rope_scaling=scaling, max_positions=131_072)


def _tiny(vocab_size: int, layers: int, embed: int, heads: int, kv_heads: int, mlp: int) -> LlamaConfig:
    return LlamaConfig(vocab_size, embed, layers, heads, kv_heads, embed // heads, mlp, tie_embeddings=True)


# Numbers of parameters in billions are those of `parameter_count`.
PRESETS: dict[str, LlamaConfig] = {
    "llama1-7b": _llama1(32, 4096, 32, 11_008),  # 6.738
    "llama1-13b": _llama1(40, 5120, 40, 13_824),  # 13.016
    "llama1-33b": _llama1(60, 6656, 52, 17_920),  # 32.529
    "llama1-65b": _llama1(80, 8192, 64, 22_016, norm_eps=1e-5),  # 65.286
    "llama2-7b": _llama2(32, 4096, 32, 32, 11_008),  # 6.738
    "llama2-13b": _llama2(40, 5120, 40, 40, 13_824),  # 13.016
    "llama2-70b": _llama2(80, 8192, 64, 8, 28_672),  # 68.977
    "llama3-8b": _llama3(32, 4096, 32, 14_336),  # 8.030
    "llama3-70b": _llama3(80, 8192, 64, 28_672),  # 70.554
    "llama3.1-8b": _stretched(_llama3(32, 4096, 32, 14_336), 8.0),
    "llama3.1-70b": _stretched(_llama3(80, 8192, 64, 28_672), 8.0),
    "llama3.1-405b": _stretched(_llama3(126, 16_384, 128, 53_248), 8.0),  # 405.853
    "llama3.2-1b": replace(_stretched(_llama3(16, 2048, 32, 8192), 32.0), tie_embeddings=True),  # 1.236
    "llama3.2-3b": replace(_stretched(_llama3(28, 3072, 24, 8192), 32.0), tie_embeddings=True),  # 3.213
    "tiny-0.6m": _tiny(768, 3, 128, 4, 4, 320),  # 664,448 parameters, for the demo
    "tiny-3m": _tiny(4096, 4, 192, 6, 6, 640),  # 2,852,544 parameters
    "tiny-test": _tiny(512, 2, 64, 4, 2, 128),  # 106,816 parameters, for tests
}


_OVERRIDES = (
    "embed", "layers", "heads", "kv_heads", "head_dim", "mlp",
    "rope_theta", "norm_eps", "tie_embeddings", "max_positions",
)  # fmt: skip


def llama_config(
    model: "ModelConfig",
    vocab_size: int,
    remat: str = "none",
    public: LlamaConfig | None = None,
    barriers: bool | Literal["auto"] = "auto",
    lora: Lora | None = None,
) -> LlamaConfig:
    """What `model` of a configuration means: its preset, with every field that is not "auto" in place.

    Where heads or embed are given and head_dim is not, head_dim is embed / heads; and a preset in which every
    head has its own keys keeps that property.
    `remat` and `barriers` come from `train`; generation and evaluation need none.

    Args:
        public: the sizes of the public checkpoint that the model begins from, which are taken as they are.
        lora: what `model.lora` means.
    Raises: ConfigError for an unknown preset or remat policy, and for sizes that do not go together.
    """
    return replace(
        _from_preset(model) if public is None else public,
        vocab_size=vocab_size,
        remat=remat,
        barriers=barriers,
        compute_dtype=model.compute_dtype,
        attention=model.attention,
        attention_block_tokens=model.attention_block_tokens,
        lora=lora,
    )


def _from_preset(model: "ModelConfig") -> LlamaConfig:
    if model.preset not in PRESETS:
        nearest = difflib.get_close_matches(model.preset, PRESETS, n=1, cutoff=0.5)
        hint = f"did you mean '{nearest[0]}'?" if nearest else f"known: {', '.join(PRESETS)}"
        raise ConfigError(f"model.preset: unknown preset '{model.preset}'; {hint}")
    preset = PRESETS[model.preset]
    given = {name: getattr(model, name) for name in _OVERRIDES}
    changed = {name: value for name, value in given.items() if value != "auto"}
    if "heads" in changed and "kv_heads" not in changed and preset.heads == preset.kv_heads:
        changed["kv_heads"] = changed["heads"]
    if {"embed", "heads"} & changed.keys() and "head_dim" not in changed:
        embed, heads = changed.get("embed", preset.embed), changed.get("heads", preset.heads)
        if embed % heads:
            raise ConfigError(
                f"model.embed={embed} is not a multiple of model.heads={heads}; "
                f"change one or set model.head_dim"
            )
        changed["head_dim"] = embed // heads
    return replace(preset, **changed)


# Names under which presets are published; those of the same sizes that were tuned further are among them.
_PUBLISHED = {
    "huggyllama/llama-7b": "llama1-7b",
    "huggyllama/llama-13b": "llama1-13b",
    "huggyllama/llama-30b": "llama1-33b",
    "huggyllama/llama-65b": "llama1-65b",
    "meta-llama/Llama-2-7b-hf": "llama2-7b",
    "meta-llama/Llama-2-7b-chat-hf": "llama2-7b",
    "meta-llama/Llama-2-13b-hf": "llama2-13b",
    "meta-llama/Llama-2-13b-chat-hf": "llama2-13b",
    "meta-llama/Llama-2-70b-hf": "llama2-70b",
    "meta-llama/Llama-2-70b-chat-hf": "llama2-70b",
    "meta-llama/Meta-Llama-3-8B": "llama3-8b",
    "meta-llama/Meta-Llama-3-8B-Instruct": "llama3-8b",
    "meta-llama/Meta-Llama-3-70B": "llama3-70b",
    "meta-llama/Meta-Llama-3-70B-Instruct": "llama3-70b",
    "meta-llama/Llama-3.1-8B": "llama3.1-8b",
    "meta-llama/Llama-3.1-8B-Instruct": "llama3.1-8b",
    "meta-llama/Llama-3.1-70B": "llama3.1-70b",
    "meta-llama/Llama-3.1-70B-Instruct": "llama3.1-70b",
    "meta-llama/Llama-3.1-405B": "llama3.1-405b",
    "meta-llama/Llama-3.2-1B": "llama3.2-1b",
    "meta-llama/Llama-3.2-1B-Instruct": "llama3.2-1b",
    "meta-llama/Llama-3.2-3B": "llama3.2-3b",
    "meta-llama/Llama-3.2-3B-Instruct": "llama3.2-3b",
}


def published_sizes(path: str) -> LlamaConfig | None:
    """Sizes of a checkpoint by its name on the hub alone, where a preset has them; None for other names.

    For plans, which need no weights and so no permission to read them.
    """
    return PRESETS[_PUBLISHED[path]] if path in _PUBLISHED else None


def parameter_count(config: LlamaConfig) -> int:
    """Number of parameters; a tied head is counted once.

    Example:
        >>> parameter_count(PRESETS["llama2-7b"])
        6738415616
    """
    queries, keys = config.heads * config.head_dim, config.kv_heads * config.head_dim
    layer = config.embed * (2 * queries + 2 * keys + 3 * config.mlp + 2)
    layer += config.qkv_bias * (queries + 2 * keys) + config.o_bias * config.embed
    layer += config.mlp_bias * (2 * config.mlp + config.embed) + config.qk_norm * 2 * config.head_dim
    vocabularies = 1 if config.tie_embeddings else 2
    return config.layers * layer + vocabularies * config.vocab_size * config.embed + config.embed
