"""Options of the TPU compiler by chip generation: which, why, and the libtpu that they were tried with."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import jax

from jaxlingua.errors import ConfigError

TRIED_WITH = "libtpu 0.0.42 and 0.0.51"  # the former is what JAX 0.10.2 itself asks for

Value = bool | int | str


@dataclass(frozen=True)
class Option:
    """One option, and why."""

    value: Value
    reason: str


# By JAX's name of the chip. A generation that is not here has none: v5p refuses those of v5e ("not supported
# on platforms other than TPU v5e").
_WHOLE_PRODUCTS = "xla_jf_spmd_threshold_for_windowed_einsum_mib"
OPTIONS: dict[str, dict[str, Option]] = {
    "TPU v4": {
        _WHOLE_PRODUCTS: Option(
            100_000, "As on v6e: a step of LLaMA-2 13B on 2x2x4 takes 2.27 s instead of 3.63 s."
        ),
    },
    "TPU v5 lite": {
        "xla_enable_async_all_reduce": Option(
            True, "Sums of gradients over devices may run beside products; the next option needs it."
        ),
        "xla_tpu_enable_async_collective_fusion_fuse_all_reduce": Option(
            True,
            "Each sum is part of the product that hides it; without all three 7B on 8x8 waits 0.41 s.",
        ),
        "xla_jf_crs_combiner_threshold_in_bytes": Option(
            0, "Sums stay apart; joined to three per layer they are too long to hide behind one product."
        ),
        _WHOLE_PRODUCTS: Option(
            100_000,
            "As on v6e: LLaMA-2 7B on 2x4 takes 1.01 s a step instead of 1.92 s. On 8x8 it changes nothing.",
        ),
    },
    "TPU v6 lite": {
        _WHOLE_PRODUCTS: Option(
            100_000,
            "Products stay whole. Cut into windows, one for each chip, to hide the gathers, those of LLaMA-3 "
            "8B on 4x4 take 0.95 s of matrix units instead of 0.37 s, and a step 1.22 s instead of 0.79 s.",
        ),
    },
}


def compiler_options(given: Mapping[str, Value] | Literal["auto"], device_kind: str) -> dict[str, Value]:
    """What the training step is compiled with.

    Args:
        given: `train.compiler_options`; "auto" takes those of the table.
        device_kind: of the devices it is compiled for, as JAX names them.
    Raises: ConfigError for an option of the table that belongs to another generation, where its compiler
        would refuse it or compute something wrong.
    """
    own = OPTIONS.get(device_kind, {})
    if given == "auto":
        return {name: option.value for name, option in own.items()}
    for other, options in OPTIONS.items():
        for name in given:
            if name in options and name not in own:
                raise ConfigError(
                    f"train.compiler_options: '{name}' given; it is for {other}, these devices are "
                    f"{device_kind}; leave it out, or set train.compiler_options=auto"
                )
    return dict(given)


def refuse_unknown_options(options: Mapping[str, Value]) -> None:
    """Let the compiler of the devices that are here look at the options, before anything is spent.

    Cost: the compilation of a program without work.
    Raises: ConfigError where it does not know one of them, or not with this value.
    """
    if not options:
        return
    try:
        jax.jit(lambda: 0, compiler_options=dict(options)).lower().compile()
    except jax.errors.JaxRuntimeError as error:
        refuse_options(str(error))
        raise


def refuse_options(message: str) -> None:
    """Raises: ConfigError where it is options that the compiler complains of."""
    if re.search("No such compile option|into flag|While setting option|not supported/recommended", message):
        raise ConfigError(
            f"train.compiler_options: the compiler refuses them ({message.splitlines()[0][:200]}); leave "
            f"that one out, or set train.compiler_options=auto"
        )
