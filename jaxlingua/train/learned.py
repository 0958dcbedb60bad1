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

_SPAN = r"\[(?:(\d+)|(\d*):(\d*))\]"
_LAYERS = re.compile(rf"^layers{_SPAN}/")
_ROWS = re.compile(rf"{_SPAN}$")
_VOCABULARY = {"embed/embedding": 0, "head/kernel": 1}  # arrays with a row for each token, and its axis


@dataclass(frozen=True)
class Learned:
    """What is trained of a tree of parameters.

    Args:
        frozen: patterns over names such as `layers/mlp/gate`, in which * stands for anything; `layers[0:8]/*`
            means some of the layers, which lie in one array, and `embed/embedding[0:32000]` the rows of some
            tokens, as `head/kernel[0:32000]` does. Adapters are named like what they stand beside.
    """

    frozen: tuple[str, ...] = ()

    def parts(self, params: Mapping[str, Any]) -> tuple[dict, dict]:
        """What is trained, and what is frozen; both nested as `params`, or their shapes or shardings.

        Arrays of which some layers or rows are frozen are among those that are trained.
        """
        learned: dict[str, Any] = {}
        held: dict[str, Any] = {}
        for name, leaf in flatten_dict(params, sep="/").items():
            (held if self._is_held(name) else learned)[name] = leaf
        return unflatten_dict(learned, sep="/"), unflatten_dict(held, sep="/")

    def joined(self, learned: Mapping[str, Any], held: Mapping[str, Any]) -> dict:
        """The inverse of `parts`."""
        both = flatten_dict(learned, sep="/") | flatten_dict(held, sep="/")
        return unflatten_dict(both, sep="/")

    def where_trained(self, new: Any, old: Any) -> Any:
        """`new` in the layers and rows that are trained, `old` in the others; trees like those of `parts`."""
        before, chosen = flatten_dict(old, sep="/"), {}
        for name, leaf in flatten_dict(new, sep="/").items():
            trained = self._trained(name, leaf.shape)
            chosen[name] = leaf if trained is None else jnp.where(trained, leaf, before[name])
        return unflatten_dict(chosen, sep="/")

    def count(self, params: Mapping[str, Any]) -> int:
        """How many numbers are trained, those of padding rows included."""
        total = 0
        for name, leaf in flatten_dict(self.parts(params)[0], sep="/").items():
            trained = self._trained(name, leaf.shape)
            total += leaf.size if trained is None else leaf.size // trained.size * int(trained.sum())
        return total

    def check(self, params: Mapping[str, Any], stage: str, vocab_rows: int | None = None) -> None:
        """Raises: ConfigError for a pattern that means nothing, or where nothing is left to train.

        Args:
            params: or their shapes.
            vocab_rows: rows of the vocabulary without padding; None where they are not known yet, and then
                no number of a row is checked.
        """
        where = f"stage '{stage}', frozen"
        shapes = {
            _plain(name): _without_padding(name, leaf.shape, vocab_rows)
            for name, leaf in flatten_dict(params, sep="/").items()
        }
        for pattern in self.frozen:
            meant = [name for name in shapes if _means(pattern, name)]
            if not meant:
                raise ConfigError(f"{where}: '{pattern}' given, {_unknown(pattern, sorted(shapes))}")
            is_of_rows = _ROWS.search(pattern) is not None
            if not _is_of_some(pattern) or (is_of_rows and vocab_rows is None):
                continue
            count = shapes[meant[0]][_axis(meant[0])]
            what, span = "rows" if is_of_rows else "layers", _span(pattern, count)
            held = len(range(count)[span])
            if not held or span.stop > count or (is_of_rows and held == count):
                raise ConfigError(
                    f"{where}: '{pattern}' given; {what} 0 to {count - 1} are there; name some of these"
                )
        if vocab_rows is None and any(_ROWS.search(pattern) for pattern in self.frozen):
            return
        trained = [self._trained(name, shape) for name, shape in shapes.items() if not self._is_held(name)]
        if all(each is not None and not each.any() for each in trained):
            raise ConfigError(
                f"{where}: {', '.join(self.frozen)} given, which is all; leave something to train"
            )

    def _is_held(self, name: str) -> bool:
        """Whether all of an array is frozen by one pattern."""
        return any(not _is_of_some(pattern) and _means(pattern, name) for pattern in self.frozen)

    def _trained(self, name: str, shape: tuple[int, ...]) -> np.ndarray | None:
        """Which layers or rows of an array are trained, bool, of its rank; None where no pattern means some.

        Every other axis has the length 1.
        """
        given = [pattern for pattern in self.frozen if _is_of_some(pattern) and _means(pattern, name)]
        if not given:
            return None
        axis = _axis(name)
        trained = np.ones(shape[axis], bool)
        for pattern in given:
            trained[_span(pattern, len(trained))] = False
        return np.expand_dims(trained, [other for other in range(len(shape)) if other != axis])


ALL = Learned()


def _is_of_some(pattern: str) -> bool:
    """Whether a pattern is about some layers or rows of arrays, not about the whole of them."""
    return bool(_LAYERS.match(pattern) or _ROWS.search(pattern))


def _means(pattern: str, name: str) -> bool:
    """Whether a pattern is about a parameter, or about some of its layers or rows."""
    has_part = not _ROWS.search(pattern) or _plain(name) in _VOCABULARY
    return has_part and fnmatchcase(_plain(name), _ROWS.sub("", _LAYERS.sub("layers/", pattern)))


def _axis(name: str) -> int:
    """That of the layers or rows of an array, of which patterns may be about some."""
    return _VOCABULARY.get(_plain(name), 0)


def _span(pattern: str, count: int) -> slice:
    """The layers or rows that a pattern with brackets is about, of `count`."""
    one, first, end = (_LAYERS.match(pattern) or _ROWS.search(pattern)).groups()
    return slice(int(one), int(one) + 1) if one else slice(int(first or 0), int(end or count))


def _without_padding(name: str, shape: tuple[int, ...], vocab_rows: int | None) -> tuple[int, ...]:
    """The shape of an array without rows that stand for no token."""
    if _plain(name) not in _VOCABULARY or vocab_rows is None:
        return shape
    axis = _axis(name)
    return (*shape[:axis], vocab_rows, *shape[axis + 1 :])


def _unknown(pattern: str, names: list[str]) -> str:
    """What to say of a pattern that is about no parameter."""
    if not _ROWS.search(pattern) or pattern.startswith("layers["):
        return f"which is no parameter's name; {nearest(pattern, names)}"
    there = [name for name in names if name in _VOCABULARY]
    if not there:
        return "and with model.lora no row of the vocabulary is trained; leave this out, or model.lora"
    return f"which has no row for each token; {' and '.join(there)} can be given so; name one of these"


def _plain(name: str) -> str:
    return name.removeprefix(f"{COLLECTION}/")
