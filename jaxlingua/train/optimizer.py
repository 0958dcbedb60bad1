"""AdamW, Adafactor and Lion with a learning-rate schedule, clipping and decoupled weight decay."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxlingua.config import OptimizerConfig
from jaxlingua.errors import ConfigError

Schedule = Callable[[Any], Any]  # a jax.tree_util.Partial, so that it can be an argument of a program


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
    return optax.chain(*parts, _scale_by_given_learning_rate()), make_schedule(config, steps, first_step)


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


def make_schedule(config: OptimizerConfig, steps: int, first_step: int = 0) -> Schedule:
    """Learning rate by step: a linear rise from 0, then the shape of `config.schedule`.

    Step 0 of a rise has rate 0, as everywhere. The rate and the lengths are data of the schedule, not part of
    it: a program that is compiled for one serves all of its shape.

    Args:
        first_step: of the run, at which the rise begins.
    Raises: ConfigError if the rise and the fall of wsd together are longer than the run.
    Same as: transformers.get_cosine_schedule_with_warmup and its sisters for linear, constant and wsd.
    """
    rise = math.ceil(steps * config.warmup_ratio) if config.warmup_steps == "auto" else config.warmup_steps
    fall = math.ceil(steps * config.decay_ratio) if config.schedule == "wsd" else 0
    if rise + fall > steps:
        what = f"{rise} steps of warm-up" + (f" and {fall} of decay" if fall else "")
        raise ConfigError(
            f"train.optimizer: {what} do not fit into {steps} steps; lower warmup_steps or decay_ratio"
        )
    if config.schedule != "wsd":  # which falls from the peak to the end
        fall = steps - rise
    course = Course(config.peak_lr, config.final_lr_ratio, first_step, rise, steps - fall, max(fall, 1))
    return jax.tree_util.Partial(_RATES[config.schedule], Course._make(map(np.float32, course)))


class Course(NamedTuple):
    """The numbers of a schedule; steps as float32, which is exact to 16 million of them."""

    peak: Any
    final_ratio: Any  # of the peak
    first_step: Any
    rise: Any  # steps
    fall_begin: Any  # steps after the first
    fall: Any  # steps, 1 or more


def _cosine(course: Course, step: Any) -> Any:
    fallen = 0.5 * (1 + jnp.cos(jnp.pi * _fallen(course, step)))
    return _risen(course, step) * ((1 - course.final_ratio) * fallen + course.final_ratio)


def _linear(course: Course, step: Any) -> Any:
    left = 1 - _fallen(course, step)
    return _risen(course, step) * ((1 - course.final_ratio) * left + course.final_ratio)


def _risen(course: Course, step: Any) -> Any:
    """The peak, or in the rise the part of it that is reached."""
    part = (step - course.first_step) / jnp.maximum(course.rise, 1)
    return course.peak * jnp.where(course.rise > 0, jnp.minimum(part, 1.0), 1.0)


def _fallen(course: Course, step: Any) -> Any:
    """How much of the fall is over, from 0 to 1."""
    return jnp.clip((step - course.first_step - course.fall_begin) / course.fall, 0.0, 1.0)


# By config.schedule. wsd falls like linear, only later.
_RATES = {"cosine": _cosine, "linear": _linear, "constant": _risen, "wsd": _linear}


def _scale_by_given_learning_rate() -> optax.GradientTransformationExtraArgs:
    """Last link of the chain: downhill, by the learning rate handed to `update`."""

    def update(
        updates: Any, state: Any, params: Any = None, *, learning_rate: Any, **_: Any
    ) -> tuple[Any, Any]:
        return jax.tree.map(lambda u: -jnp.asarray(learning_rate, u.dtype) * u, updates), state

    return optax.GradientTransformationExtraArgs(lambda params: optax.EmptyState(), update)
