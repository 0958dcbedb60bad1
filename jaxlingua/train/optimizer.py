"""AdamW, Adafactor and Lion with a learning-rate schedule, clipping and decoupled weight decay."""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from jaxlingua.config import OptimizerConfig
from jaxlingua.errors import ConfigError

Schedule = Callable[[Any], Any]


def make_optimizer(
    config: OptimizerConfig, steps: int, first_step: int = 0
) -> tuple[optax.GradientTransformationExtraArgs, Schedule]:
    """The optimizer of a stage, and its learning rate by step of the run: `steps` from `first_step` on.

    The optimizer does not count steps for the schedule: `update` wants `learning_rate=schedule(step)`.
    So the rate at a step is the same whether earlier ones were skipped or the run was resumed.
    """
    parts = [] if config.clip_norm == "off" else [optax.clip_by_global_norm(config.clip_norm)]
    parts += [_DIRECTIONS[config.kind](config)]
    if config.weight_decay:
        parts += [optax.add_decayed_weights(config.weight_decay, mask=decayed)]
    schedule = make_schedule(config, steps)
    return optax.chain(*parts, _scale_by_given_learning_rate()), lambda step: schedule(step - first_step)


# Adafactor without momentum and without scaling by parameter size, so that peak_lr means for it what it
# means for the others; its second moment forgets as 1 - step^-0.8 and does not use beta2.
# Only a first moment may be bfloat16, whose neighbors are 1/256 to 1/128 of a value apart. With beta1 = 0.9 a
# gradient moves it by a tenth of its distance; with beta2 = 0.999 a second moment would need gradients twice
# its root to be moved at all, and would never fall: x - x / 1000 is rounded to x.
_DIRECTIONS: dict[str, Callable[[OptimizerConfig], optax.GradientTransformation]] = {
    "adamw": lambda config: optax.scale_by_adam(
        b1=config.beta1, b2=config.beta2, eps=config.eps, mu_dtype=config.first_moment_dtype
    ),
    "adafactor": lambda config: optax.chain(optax.scale_by_factored_rms(), optax.clip_by_block_rms(1.0)),
    "lion": lambda config: optax.scale_by_lion(
        b1=config.beta1, b2=config.beta2, mu_dtype=config.first_moment_dtype
    ),
}


def decayed(params: Any) -> Any:
    """True for what weight decay applies to: all but scales of norms, biases, and DoRA's magnitudes."""

    def decays(path: Any, _: Any) -> bool:
        return not jax.tree_util.keystr(path, simple=True).endswith(("scale", "bias", "magnitude"))

    return jax.tree_util.tree_map_with_path(decays, params)


def make_schedule(config: OptimizerConfig, steps: int) -> Schedule:
    """Learning rate by step: a linear rise from 0, then the shape of `config.schedule`.

    Step 0 of a rise has rate 0, as everywhere.

    Raises: ConfigError if the rise and the fall of wsd together are longer than the run.
    Same as: transformers.get_cosine_schedule_with_warmup and its sisters for linear, constant and wsd.
    """
    peak, final = config.peak_lr, config.peak_lr * config.final_lr_ratio
    rise = math.ceil(steps * config.warmup_ratio) if config.warmup_steps == "auto" else config.warmup_steps
    fall = math.ceil(steps * config.decay_ratio) if config.schedule == "wsd" else 0
    if rise + fall > steps:
        what = f"{rise} steps of warm-up" + (f" and {fall} of decay" if fall else "")
        raise ConfigError(
            f"train.optimizer: {what} do not fit into {steps} steps; lower warmup_steps or decay_ratio"
        )
    rest = max(steps - rise, 1)
    shapes: dict[str, Callable[[], Schedule]] = {
        "cosine": lambda: optax.cosine_decay_schedule(peak, rest, alpha=config.final_lr_ratio),
        "linear": lambda: optax.linear_schedule(peak, final, rest),
        "constant": lambda: optax.constant_schedule(peak),
        "wsd": lambda: optax.linear_schedule(peak, final, max(fall, 1), transition_begin=steps - rise - fall),
    }
    shape = shapes[config.schedule]()
    if not rise:
        return shape
    return optax.join_schedules([optax.linear_schedule(0.0, peak, rise), shape], [rise])


def _scale_by_given_learning_rate() -> optax.GradientTransformationExtraArgs:
    """Last link of the chain: downhill, by the learning rate handed to `update`."""

    def update(
        updates: Any, state: Any, params: Any = None, *, learning_rate: Any, **_: Any
    ) -> tuple[Any, Any]:
        return jax.tree.map(lambda u: -jnp.asarray(learning_rate, u.dtype) * u, updates), state

    return optax.GradientTransformationExtraArgs(lambda params: optax.EmptyState(), update)
