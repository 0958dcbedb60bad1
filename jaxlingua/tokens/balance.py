"""How many documents of each entry, and of each language in it, make one epoch of a stage."""

from collections.abc import Hashable, Iterable, Mapping
from fractions import Fraction
from typing import Literal, TypeVar

from jaxlingua.config import StageConfig
from jaxlingua.data.replay import is_replay
from jaxlingua.errors import ConfigError
from jaxlingua.tokens.store import Group

Name = TypeVar("Name", bound=Hashable)


def documents_per_epoch(
    sizes: Mapping[str, int], weights: Mapping[str, float | Literal["auto"]], stage: str
) -> dict[str, int]:
    """How many documents of each entry make one epoch of a stage.

    A weight is a share of the documents. Entries without one share what is left by size, and an epoch is one
    pass over them. Where all have one, weights are relative, and an epoch is one pass over the entry of the
    greatest weight (the largest of these), which is none that a stage replays. Other entries go round at
    their own pace and repeat none of their documents before all have been seen.

    Raises: ConfigError if nothing is left for entries without weight.
    Example:
        >>> documents_per_epoch({"new": 900, "replay": 5000}, {"new": "auto", "replay": 0.1}, "coit")
        {'new': 900, 'replay': 100}
    """
    given = {entry: weight for entry, weight in weights.items() if weight != "auto"}
    by_size = {entry: size for entry, size in sizes.items() if entry not in given}
    if not by_size:
        own = [entry for entry in sizes if not is_replay(entry)]
        first = max(own, key=lambda entry: (given[entry], sizes[entry]))
        return {entry: max(1, round(sizes[first] * given[entry] / given[first])) for entry in sizes}
    left = 1 - sum(given.values())
    if left <= 0:
        raise ConfigError(
            f"stage '{stage}', mixture: the given weights add up to {1 - left:g}, which leaves nothing for "
            f"{_five(by_size)}; keep the sum below 1, or give every entry a weight"
        )
    total = sum(by_size.values()) / left
    return {entry: by_size.get(entry) or max(1, round(total * given[entry])) for entry in sizes}


def documents_per_pool(
    sizes: Mapping[Group, int], weights: Mapping[str, float | Literal["auto"]], stage: StageConfig
) -> dict[Group, int]:
    """How many documents of each (entry, language) make one epoch of a stage, as `stage.balance` says.

    An entry with a weight keeps the documents that `documents_per_epoch` gives it; its languages share them.
    Entries without one keep together as many as they have; their languages share these, and the documents of
    a language go to the entries by size. Counts are whole and add up to what is shared; the largest
    remainders are rounded up. Every pool that has documents gets one at least, even where an entry of small
    weight has fewer documents than languages.

    Args:
        sizes: documents of each pool.
        weights: by entry.
    Raises: ConfigError if weights leave nothing, or balance_max_repeats is below one pass.
    Example:
        >>> sizes = {("news", "tha_Thai"): 900, ("news", "lao_Laoo"): 100}
        >>> balance = {"balance": "temperature", "balance_temperature": 2.0}
        >>> stage = StageConfig(name="muit", mixture="news", epochs=1.0, **balance)
        >>> documents_per_pool(sizes, {"news": "auto"}, stage)
        {('news', 'tha_Thai'): 750, ('news', 'lao_Laoo'): 250}
    """
    if stage.balance == "unimax" and stage.balance_max_repeats < 1:
        raise ConfigError(
            f"stage '{stage.name}', balance_max_repeats: {stage.balance_max_repeats:g} given; an epoch has "
            f"as many documents as the languages together; 1 or more is allowed; raise it"
        )
    by_entry: dict[str, dict[Group, int]] = {}
    for pool, size in sizes.items():
        by_entry.setdefault(pool[0], {})[pool] = size
    entry_sizes = {entry: sum(pools.values()) for entry, pools in by_entry.items()}
    totals = documents_per_epoch(entry_sizes, {entry: weights[entry] for entry in by_entry}, stage.name)
    together: dict[Group, int] = {}
    counts: dict[Group, int] = {}
    for entry, pools in by_entry.items():
        if weights[entry] == "auto":
            together |= pools
        else:
            counts |= _by_language(pools, totals[entry], stage)
    if together:
        counts |= _by_language(together, sum(together.values()), stage)
    return {pool: counts[pool] for pool in sizes}


def temperature_shares(sizes: Mapping[Name, int], total: int, temperature: float) -> dict[Name, Fraction]:
    """`total` in parts proportional to size ** (1 / temperature): 1 is by size, large is nearly equal.

    Paper: arXiv:1911.02116, where alpha is 1 / temperature.
    """
    largest = max(sizes.values())
    shares = {name: Fraction((size / largest) ** (1 / temperature)) for name, size in sizes.items()}
    return {name: total * share / sum(shares.values()) for name, share in shares.items()}


def unimax_shares(sizes: Mapping[Name, int], total: int, max_repeats: float) -> dict[Name, Fraction]:
    """`total` in equal parts, none above `max_repeats` times its size; what these lack goes to the others.

    From the smallest on, each takes an equal part of what is left, or its cap. A total above all caps, as a
    weight may ask for, is shared by size: all are repeated alike, above the cap.

    Paper: arXiv:2304.09151, algorithm 1.
    """
    cap = Fraction(max_repeats)
    if total >= cap * sum(sizes.values()):
        return {name: Fraction(total * size, sum(sizes.values())) for name, size in sizes.items()}
    left = Fraction(total)
    shares: dict[Name, Fraction] = {}
    for name in sorted(sizes, key=sizes.__getitem__):
        shares[name] = min(left / (len(sizes) - len(shares)), cap * sizes[name])
        left -= shares[name]
    return shares


def whole_numbers(shares: Mapping[Name, Fraction], least: Mapping[Name, int]) -> dict[Name, int]:
    """`shares` rounded down, then the largest remainders up, so that the sum stays what it was.

    Whoever has less than `least` takes the rest from those that have most to spare. If even `least` adds up
    to more than the shares, it is what each gets.
    """
    total = round(sum(shares.values()))
    if sum(least.values()) >= total:
        return dict(least)
    counts = {name: int(share) for name, share in shares.items()}
    by_remainder = sorted(counts, key=lambda name: (counts[name] - shares[name], name))
    for name in by_remainder[: total - sum(counts.values())]:
        counts[name] += 1
    for name in sorted(counts):
        while counts[name] < least[name]:
            counts[max(counts, key=lambda other: (counts[other] - least[other], other))] -= 1
            counts[name] += 1
    return counts


def _by_language(sizes: Mapping[Group, int], total: int, stage: StageConfig) -> dict[Group, int]:
    """`total` documents: first to languages as `stage.balance` says, then by size to their pools."""
    by_language: dict[str, dict[Group, int]] = {}
    for pool, size in sizes.items():
        if size:
            by_language.setdefault(pool[1], {})[pool] = size
    language_sizes = {language: sum(pools.values()) for language, pools in by_language.items()}
    if stage.balance == "unimax":
        shares = unimax_shares(language_sizes, total, stage.balance_max_repeats)
    else:
        temperature = stage.balance_temperature if stage.balance == "temperature" else 1.0
        shares = temperature_shares(language_sizes, total, temperature)
    least = {language: len(pools) for language, pools in by_language.items()}
    counts = dict.fromkeys(sizes, 0)
    for language, count in whole_numbers(shares, least).items():
        pools = by_language[language]
        parts = {pool: Fraction(count * size, language_sizes[language]) for pool, size in pools.items()}
        counts |= whole_numbers(parts, dict.fromkeys(pools, 1))
    return counts


def _five(names: Iterable[str]) -> str:
    names = list(names)
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
