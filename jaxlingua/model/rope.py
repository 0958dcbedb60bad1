"""Rotary positions: frequencies of every kind that LLaMA checkpoints use, and the rotation itself."""

import dataclasses
import difflib
import math
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float, Int

from jaxlingua.errors import ConfigError
from jaxlingua.model.platform import platform


@dataclass(frozen=True)
class RopeScaling:
    """How a checkpoint was stretched beyond the length it was first trained at.

    Field names and defaults are those of `rope_scaling` in config.json. `attention_factor` None means the
    paper's value, a function of `factor`.
    """

    rope_type: str
    factor: float = 1.0
    original_max_position_embeddings: int | None = None
    low_freq_factor: float | None = None
    high_freq_factor: float | None = None
    beta_fast: float = 32.0
    beta_slow: float = 1.0
    mscale: float | None = None
    mscale_all_dim: float | None = None
    attention_factor: float | None = None
    truncate: bool = True


def default_frequencies(scaling: RopeScaling, head_dim: int, theta: float) -> np.ndarray:
    """theta ** (-2i / head_dim), in float32 throughout, as checkpoints were trained."""
    exponent = np.arange(0, head_dim, 2, dtype=np.float32) / np.float32(head_dim)
    return np.float32(1) / np.power(np.float32(theta), exponent)


def linear_frequencies(scaling: RopeScaling, head_dim: int, theta: float) -> np.ndarray:
    """Position interpolation: every frequency divided by the factor. Paper: arXiv:2306.15595."""
    return default_frequencies(scaling, head_dim, theta) / np.float32(scaling.factor)


def llama3_frequencies(scaling: RopeScaling, head_dim: int, theta: float) -> np.ndarray:
    """LLaMA 3.1: slow rotations divided by the factor, fast ones kept, a ramp between.

    Paper: arXiv:2407.21783.
    """
    frequency = default_frequencies(scaling, head_dim, theta)
    turns = scaling.original_max_position_embeddings / (np.float32(2 * math.pi) / frequency)
    ramp = (turns - scaling.low_freq_factor) / (scaling.high_freq_factor - scaling.low_freq_factor)
    kept = np.clip(ramp, 0, 1).astype(np.float32)
    return (1 - kept) * frequency / np.float32(scaling.factor) + kept * frequency


def yarn_frequencies(scaling: RopeScaling, head_dim: int, theta: float) -> np.ndarray:
    """YaRN: slow rotations divided by the factor, fast ones kept, a ramp over dimensions between.

    Paper: arXiv:2309.00071.
    """

    def dimension_with(turns: float) -> float:
        """The dimension that makes so many turns within the original length."""
        return (
            head_dim
            * math.log(scaling.original_max_position_embeddings / (turns * 2 * math.pi))
            / (2 * math.log(theta))
        )

    low, high = dimension_with(scaling.beta_fast), dimension_with(scaling.beta_slow)
    if scaling.truncate:
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, head_dim - 1)
    width = high - low or 0.001
    kept = 1 - np.clip((np.arange(head_dim // 2, dtype=np.float32) - low) / width, 0, 1).astype(np.float32)
    frequency = default_frequencies(scaling, head_dim, theta)
    return frequency / np.float32(scaling.factor) * (1 - kept) + frequency * kept


# "dynamic" has the default frequencies up to the original length; `check_length` refuses longer rows, where
# a token's rotation would depend on how much text follows it.
ROPE: dict[str, Callable[[RopeScaling, int, float], np.ndarray]] = {
    "default": default_frequencies,
    "linear": linear_frequencies,
    "dynamic": default_frequencies,
    "llama3": llama3_frequencies,
    "yarn": yarn_frequencies,
}
_FIELDS = tuple(field.name for field in dataclasses.fields(RopeScaling))
_REQUIRED = {
    "linear": ("factor",),
    "dynamic": ("factor",),
    "llama3": ("factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings"),
    "yarn": ("factor", "original_max_position_embeddings"),
}
_OPTIONAL = {"yarn": ("beta_fast", "beta_slow", "mscale", "mscale_all_dim", "attention_factor", "truncate")}
_MAY_BE_ZERO = ("mscale", "mscale_all_dim", "attention_factor")


def rope_scaling(
    fields: Mapping[str, object] | None, where: str = "config.json: rope_scaling"
) -> RopeScaling | None:
    """The scaling that `fields` describe, in the words of config.json; None for plain rotary positions.

    Raises: ConfigError for a kind or a field that is not understood, for one that the kind does not use, and
        for one that is missing.
    """
    # null is the same as absent, but for `truncate`, where transformers takes it for false
    given = {key: value for key, value in (fields or {}).items() if value is not None or key == "truncate"}
    old_name = given.pop("type", None)  # some files carry it beside the new one
    kind = given.setdefault("rope_type", "default" if old_name is None else old_name)
    if kind not in ROPE:
        raise ConfigError(
            f"{where}.rope_type='{kind}' is not supported ({', '.join(ROPE)}); nothing was loaded"
        )
    if old_name is not None and old_name != kind:
        raise ConfigError(f"{where}: rope_type='{kind}' but type='{old_name}'; nothing was loaded")
    used = ("rope_type", *_REQUIRED.get(kind, ()), *_OPTIONAL.get(kind, ()))
    for key, value in given.items():
        if key not in _FIELDS:
            nearest = difflib.get_close_matches(key, _FIELDS, n=1)
            hint = f"did you mean '{nearest[0]}'?" if nearest else f"known: {', '.join(_FIELDS)}"
            raise ConfigError(f"{where}: field '{key}' is not understood; {hint}; nothing was loaded")
        if key not in used:
            raise ConfigError(f"{where}: rope_type='{kind}' does not use '{key}'; nothing was loaded")
        if key != "rope_type":
            _check_field(key, value, where)
    missing = [key for key in _REQUIRED.get(kind, ()) if key not in given]
    if missing:
        raise ConfigError(
            f"{where}: rope_type='{kind}' needs '{missing[0]}'; add it as the model's authors gave it"
        )
    whole = ("rope_type", "original_max_position_embeddings", "truncate")
    given = {key: value if key in whole else float(value) for key, value in given.items()}
    if kind == "llama3" and given["low_freq_factor"] >= given["high_freq_factor"]:
        raise ConfigError(
            f"{where}: low_freq_factor={given['low_freq_factor']} is not below "
            f"high_freq_factor={given['high_freq_factor']}; nothing was loaded"
        )
    return None if kind == "default" else RopeScaling(**given)


def _check_field(key: str, value: object, where: str) -> None:
    """Refuse what is not a number or a flag, and numbers that no frequency can be made from."""
    kinds = {"truncate": (bool,), "original_max_position_embeddings": (int,)}.get(key, (int, float))
    if type(value) not in kinds:  # true is no number, though Python takes it for 1
        raise ConfigError(f"{where}.{key}='{value}' is not a number or flag; nothing was loaded")
    lowest = 0.0 if key in _MAY_BE_ZERO else math.ulp(0.0)
    if key != "truncate" and not lowest <= value <= sys.float_info.max:
        raise ConfigError(f"{where}.{key}={value} is not a positive number; nothing was loaded")


def rope_fields(scaling: RopeScaling) -> dict[str, object]:
    """`scaling` in the words of config.json: what its kind needs, and what is not as the paper has it."""
    optional = [
        key
        for key in _OPTIONAL.get(scaling.rope_type, ())
        if getattr(scaling, key) != RopeScaling.__dataclass_fields__[key].default
    ]
    names = ("rope_type", *_REQUIRED[scaling.rope_type], *optional)
    return {name: getattr(scaling, name) for name in names}


def rope_frequencies(scaling: RopeScaling | None, head_dim: int, theta: float) -> np.ndarray:
    """Rotation per position of each pair of dimensions, in radians: float32 [head_dim / 2].

    Same as: transformers.modeling_rope_utils.ROPE_INIT_FUNCTIONS.
    Example:
        >>> rope_frequencies(None, head_dim=4, theta=10000.0).tolist()
        [1.0, 0.009999999776482582]
    """
    scaling = scaling or RopeScaling("default")
    if scaling.rope_type not in ROPE:
        raise ConfigError(
            f"rope_scaling.rope_type='{scaling.rope_type}' is not supported ({', '.join(ROPE)})"
        )
    return ROPE[scaling.rope_type](scaling, head_dim, theta).astype(np.float32)


def attention_factor(scaling: RopeScaling | None) -> float:
    """What cosine and sine are multiplied by: 1 except in YaRN, where scores grow with the factor."""
    if scaling is None or scaling.rope_type != "yarn":
        return 1.0
    if scaling.attention_factor is not None:
        return scaling.attention_factor

    def mscale(weight: float) -> float:
        return 0.1 * weight * math.log(scaling.factor) + 1.0 if scaling.factor > 1 else 1.0

    if scaling.mscale and scaling.mscale_all_dim:
        return mscale(scaling.mscale) / mscale(scaling.mscale_all_dim)
    return mscale(1.0)


def check_length(scaling: RopeScaling | None, max_positions: int, length: int) -> None:
    """Refuse rows longer than dynamic scaling leaves alone. Raises: ConfigError."""
    if scaling is not None and scaling.rope_type == "dynamic" and length > max_positions:
        raise ConfigError(
            f"model: a row of {length} tokens, but beyond {max_positions} positions rope_type='dynamic' "
            "makes a token's logits depend on what follows; "
            f"set tokens.row_length_tokens to at most {max_positions}"
        )


def rotations(
    positions: Int[Array, "batch length"], scaling: RopeScaling | None, head_dim: int, theta: float
) -> tuple[Float[Array, "batch length half"], Float[Array, "batch length half"]]:
    """Cosine and sine of every position's angles, in float32.

    bfloat16 has 8 bits of mantissa, so positions 256 and 257 would be the same number.
    """
    angles = positions[..., None].astype(jnp.float32) * rope_frequencies(scaling, head_dim, theta)
    factor = attention_factor(scaling)
    return jnp.cos(angles) * factor, jnp.sin(angles) * factor


def rotate(
    x: Float[Array, "batch length heads head_dim"],
    cos: Float[Array, "batch length half"],
    sin: Float[Array, "batch length half"],
) -> Float[Array, "batch length heads head_dim"]:
    """Turn the pairs (i, i + head_dim / 2) of every head by its position's angles.

    Paper: arXiv:2104.09864, in the layout of Hugging Face checkpoints (halves, not neighbors).

    On TPUs halves change places by a product with a matrix of 0, 1 and -1, which is exact in any type: lanes
    that are cut and joined cost ten times as much there as this product.
    """
    return _by_product(x, cos, sin) if platform() == "tpu" else _by_halves(x, cos, sin)


def _by_halves(x: Array, cos: Array, sin: Array) -> Array:
    first, second = jnp.split(x.astype(jnp.float32), 2, axis=-1)
    cos, sin = cos[:, :, None], sin[:, :, None]  # b t 1 h/2
    return jnp.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1).astype(x.dtype)


@jax.custom_vjp
def _by_product(x: Array, cos: Array, sin: Array) -> Array:
    precision = "highest" if x.dtype == jnp.float32 else None
    other = jnp.einsum(
        "bthi,ij->bthj", x, jnp.asarray(_quarter_turn(x.shape[-1]), x.dtype), precision=precision,
        preferred_element_type=jnp.float32,
    )  # fmt: skip
    cos, sin = (jnp.concatenate([part, part], -1)[:, :, None] for part in (cos, sin))  # b t 1 h
    return (x.astype(jnp.float32) * cos + other * sin).astype(x.dtype)


# The gradient is turned back: exact, too, where the transposed product would round it first.
_by_product.defvjp(
    lambda x, cos, sin: (_by_product(x, cos, sin), (cos, sin)),
    lambda angles, d_out: (_by_product(d_out, angles[0], -angles[1]), None, None),
)


def _quarter_turn(head_dim: int) -> Float[np.ndarray, "head_dim head_dim"]:
    """The matrix that takes (first, second) to (-second, first)."""
    half = np.eye(head_dim // 2, dtype=np.float32)
    zero = np.zeros_like(half)
    return np.block([[zero, half], [-half, zero]])
