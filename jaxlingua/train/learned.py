"""Which parameters a stage trains: all but those that its patterns freeze."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from jaxlingua.errors import ConfigError, nearest
from jaxlingua.model.lora import COLLECTION

_LAYERS = re.compile(r"^layers\[(?:(\d+)|(\d*):(\d*))\]/")


@dataclass(frozen=True)
class Learned:
    """What is trained of a tree of parameters.

    Args:
        frozen: patterns over names such as `layers/mlp/gate`, in which * stands for anything; `layers[0:8]/*`
            means some of the layers, which lie in one array. Adapters are named like what they stand beside.
    """

    frozen: tuple[str, ...] = ()

    def parts(self, params: Mapping[str, Any]) -> tuple[dict, dict]:
        """What is trained, and what is frozen; both nested as `params`, or their shapes or shardings.

        Arrays of which some layers are frozen are among those that are trained.
        """
        learned: dict[str, Any] = {}
        held: dict[str, Any] = {}
        for name, leaf in flatten_dict(params, sep="/").items():
            is_held = any(not _LAYERS.match(pattern) and _means(pattern, name) for pattern in self.frozen)
            (held if is_held else learned)[name] = leaf
        return unflatten_dict(learned, sep="/"), unflatten_dict(held, sep="/")

    def joined(self, learned: Mapping[str, Any], held: Mapping[str, Any]) -> dict:
        """The inverse of `parts`."""
        both = flatten_dict(learned, sep="/") | flatten_dict(held, sep="/")
        return unflatten_dict(both, sep="/")

    def where_trained(self, new: Any, old: Any) -> Any:
        """`new` in the layers that are trained, `old` in the others; trees as the first of `parts`."""
        before, chosen = flatten_dict(old, sep="/"), {}
        for name, leaf in flatten_dict(new, sep="/").items():
            layers = self._trained_layers(name, leaf.shape)
            if layers is not None:
                leaf = jnp.where(layers.reshape(-1, *[1] * (leaf.ndim - 1)), leaf, before[name])
            chosen[name] = leaf
        return unflatten_dict(chosen, sep="/")

    def count(self, params: Mapping[str, Any]) -> int:
        """How many numbers are trained."""
        trained = 0
        for name, leaf in flatten_dict(self.parts(params)[0], sep="/").items():
            layers = self._trained_layers(name, leaf.shape)
            trained += leaf.size if layers is None else leaf.size // len(layers) * int(layers.sum())
        return trained

    def check(self, params: Mapping[str, Any], stage: str) -> None:
        """Raises: ConfigError for a pattern that means nothing, or where nothing is left to train.

        Args:
            params: or their shapes.
        """
        shapes = {_plain(name): leaf.shape for name, leaf in flatten_dict(params, sep="/").items()}
        names, where = sorted(shapes), f"stage '{stage}', frozen"
        for pattern in self.frozen:
            layers = [Learned((pattern,))._trained_layers(*each) for each in shapes.items()]
            layers = [each for each in layers if each is not None]
            count = len(layers[0]) if layers else 0
            if layers and (all(each.all() for each in layers) or _layers(pattern, count).stop > count):
                raise ConfigError(
                    f"{where}: '{pattern}' given; layers 0 to {count - 1} are there; name some of these"
                )
            if not any(_means(pattern, name) for name in names):
                raise ConfigError(
                    f"{where}: '{pattern}' given, which is no parameter's name; {nearest(pattern, names)}"
                )
        trained = flatten_dict(self.parts(params)[0], sep="/")
        layers = [self._trained_layers(name, leaf.shape) for name, leaf in trained.items()]
        if all(each is not None and not each.any() for each in layers):
            raise ConfigError(
                f"{where}: {', '.join(self.frozen)} given, which is all; leave something to train"
            )

    def _trained_layers(self, name: str, shape: tuple[int, ...]) -> np.ndarray | None:
        """Which layers of an array are trained, bool [layers]; None where no pattern means some of them."""
        given = [pattern for pattern in self.frozen if _LAYERS.match(pattern) and _means(pattern, name)]
        if not given:
            return None
        trained = np.ones(shape[0], bool)
        for pattern in given:
            trained[_layers(pattern, len(trained))] = False
        return trained


ALL = Learned()


def _layers(pattern: str, count: int) -> slice:
    """Those that a pattern with brackets is about, of `count`."""
    one, first, end = _LAYERS.match(pattern).groups()
    return slice(int(one), int(one) + 1) if one else slice(int(first or 0), int(end or count))


def _means(pattern: str, name: str) -> bool:
    """Whether a pattern is about a parameter, or about some of its layers."""
    return fnmatchcase(_plain(name), _LAYERS.sub("layers/", pattern))


def _plain(name: str) -> str:
    return name.removeprefix(f"{COLLECTION}/")
