"""Slots of templates: `{name}` marks where a text goes. All else, other braces too, is text as it is."""

import functools
import re
from collections.abc import Mapping

_SLOT = re.compile(r"\{([A-Za-z_]\w*)\}")


@functools.lru_cache(maxsize=4096)
def parse_slots(template: str) -> tuple[tuple[str, str], ...]:
    """Pairs of a literal text and the name of the slot behind it; that of the last pair is "".

    Example:
        >>> parse_slots("Say {text} in {language}")
        (('Say ', 'text'), (' in ', 'language'), ('', ''))
    """
    parts = [*_SLOT.split(template), ""]
    return tuple(zip(parts[::2], parts[1::2], strict=True))


@functools.lru_cache(maxsize=4096)
def slots_of(template: str) -> tuple[str, ...]:
    """Names of the slots in their order, each as often as it stands there."""
    return tuple(slot for _, slot in parse_slots(template) if slot)


def fill(template: str, slots: Mapping[str, str]) -> str:
    """`template` with its slots filled in one pass: what is filled in is not looked at again.

    Raises: KeyError for a slot that is not given; `load_wording` has refused templates with such slots.
    Example:
        >>> fill("{a}, {b}: {0}", {"a": "{b}", "b": "B"})
        '{b}, B: {0}'
    """
    *parts, (end, _) = parse_slots(template)
    return "".join([literal + slots[slot] for literal, slot in parts]) + end
