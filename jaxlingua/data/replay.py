"""Replay: records of earlier training, chosen once at random, so that what they taught is not lost.

An entry of a mixture may be such a choice from a source. A stage may replay the stages before it: their
entries come back in its mixture, under names such as `replay.STAGE.ENTRY`.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from jaxlingua.config import REPLAYED, MixtureEntry, ReplayConfig, StageConfig
from jaxlingua.data.records import Conversation, Instruction, Pair, Question, Record, Text
from jaxlingua.errors import DataError


def with_replay(stages: Sequence[StageConfig]) -> list[StageConfig]:
    """The stages with what they replay of earlier ones among the entries of their mixtures.

    What an earlier stage replayed itself does not come back by way of it. Weights are given by
    `replay_weights`, once it is known what the earlier stages show.
    """
    by_name = {stage.name: stage for stage in stages}
    found = []
    for place, stage in enumerate(stages):
        entries = {}
        for name in _replayed(stage, [before.name for before in stages[:place]]):
            for entry_name, entry in by_name[name].mixture.items():
                entries[f"{REPLAYED}.{name}.{entry_name}"] = _brought_back(stage, entry_name, entry)
        found.append(stage.model_copy(update={"mixture": stage.mixture | entries}) if entries else stage)
    return found


def replay_weights(
    stage: StageConfig, earlier: Sequence[str], shown: Mapping[str, Mapping[str, int]]
) -> StageConfig:
    """A stage of `with_replay` with weights: replay has its share of the documents, the stage's own entries
    what is left, in the proportions that they would have without.

    Args:
        earlier: names of the stages before it.
        shown: of each earlier stage, the documents that it shows of each of its own entries.
    """
    replay = stage.replayed
    if replay is None:
        return stage
    names = _replayed(stage, earlier)
    own = {name: entry for name, entry in stage.mixture.items() if not is_replay(name)}
    given = {name: entry.weight for name, entry in own.items() if entry.weight != "auto"}
    # All weights given: relative ones. Otherwise they are shares, and of less than before.
    all_given = len(given) == len(own)
    whole = sum(given.values()) / (1 - replay.share) if all_given else 1.0
    weights = given if all_given else {name: w * (1 - replay.share) for name, w in given.items()}
    for name in names:
        total = sum(shown[name].values())
        for entry, documents in shown[name].items():
            share = replay.share / len(names) * documents / total
            weights[f"{REPLAYED}.{name}.{entry}"] = whole * share
    mixture = {
        name: entry.model_copy(update={"weight": weights[name]}) if name in weights else entry
        for name, entry in stage.mixture.items()
    }
    return stage.model_copy(update={"mixture": mixture})


def is_replay(entry: str) -> bool:
    """Whether an entry of `with_replay` comes from an earlier stage."""
    return entry.startswith(f"{REPLAYED}.")


def _replayed(stage: StageConfig, earlier: Sequence[str]) -> list[str]:
    replay = stage.replayed
    if replay is None:
        return []
    return list(earlier) if replay.stages == "auto" else replay.stages


def _brought_back(stage: StageConfig, name: str, entry: MixtureEntry) -> MixtureEntry:
    replay, changes = stage.replayed, {"weight": "auto"}
    if entry.source == "auto":
        changes["source"] = name
    if replay.records != "auto" and entry.replay == "off":
        changes["replay"] = ReplayConfig(records=replay.records, seed=replay.seed)
    elif replay.records != "auto":  # the first ones of the choice that was learned
        records = min(replay.records, entry.replay.records)
        changes["replay"] = entry.replay.model_copy(update={"records": records})
    return entry.model_copy(update=changes)


def choose_replay(records: Sequence[Record], config: ReplayConfig, where: str) -> list[Record]:
    """`config.records` of `records`, at random and each once, in the order of the source.

    Every record has a place in a random order that depends on the seed and its index alone, and the first
    ones are taken: a smaller choice is part of a larger one, and a record that leaves the source changes the
    choice by one. by=stratum and by=language take the first ones of each value, as many of each as of any
    other; a value with fewer gives all, and the others give more. What does not divide is asked of the
    largest ones.

    Args:
        where: the mixture entry, for errors.
    Raises: DataError if there are fewer records, or none has a stratum, or sentences stand in several
        languages each.
    Cost: 3 s for a million records.
    """
    if config.records > len(records):
        raise DataError(
            f"{where}.replay.records: {config.records:,} given; source has {len(records):,} training records "
            f"here; give {len(records):,} or fewer, or leave replay out to take all"
        )
    groups: dict[str, list[Record]] = {}
    for record in records:
        groups.setdefault(_value(record, config.by, where), []).append(record)
    if config.by == "stratum" and set(groups) == {""}:
        raise DataError(
            f"{where}.replay.by: stratum given; no record of the source has one; set columns.stratum of the "
            f"source (instructions, text and chat can have it), or write by: all"
        )
    counts = equal_parts({value: len(group) for value, group in groups.items()}, config.records)
    chosen: set[int] = set()
    for value, group in groups.items():
        indices = sorted((record.index for record in group), key=lambda index: _place(config.seed, index))
        chosen.update(indices[: counts[value]])
    return [record for record in records if record.index in chosen]


def equal_parts(sizes: dict[str, int], total: int) -> dict[str, int]:
    """`total` in parts as equal as `sizes` allow: no part is larger than its size.

    Example:
        >>> equal_parts({"qa": 5, "summary": 100, "title": 200}, 50)
        {'qa': 5, 'summary': 22, 'title': 23}
    """
    parts: dict[str, int] = {}
    for value in sorted(sizes, key=lambda value: (sizes[value], value)):
        parts[value] = min(sizes[value], (total - sum(parts.values())) // (len(sizes) - len(parts)))
    return parts


def describe_replay(records: Iterable[Record]) -> list[dict[str, Any]]:
    """Records by stratum and language: what is told of a choice."""
    counts = Counter((_stratum(record), _language(record)) for record in records)
    return [
        {"stratum": stratum, "language": language, "records": count}
        for (stratum, language), count in sorted(counts.items())
    ]


def write_replay(path: Path, records: Iterable[Record]) -> None:
    """A line of JSON per record: index, language and stratum, then its text, or its prompt and answer."""
    with path.open("w", encoding="utf-8", newline="\n") as file:
        for record in records:
            line = {"index": record.index, "language": _language(record), "stratum": _stratum(record)}
            file.write(json.dumps(line | _content(record), ensure_ascii=False) + "\n")


def _place(seed: int, index: int) -> bytes:
    return hashlib.blake2b(f"{seed}:{index}".encode(), digest_size=16).digest()


def _value(record: Record, by: str, where: str) -> str:
    if by == "language" and isinstance(record, Pair):
        raise DataError(
            f"{where}.replay.by: language given; each record of the source has {len(record.texts)} "
            f"languages, not one; write by: all"
        )
    return {"all": "", "stratum": _stratum(record), "language": _language(record)}[by]


def _stratum(record: Record) -> str:
    return record.stratum if isinstance(record, Instruction | Conversation | Text) else ""


def _language(record: Record) -> str:
    return ", ".join(record.texts) if isinstance(record, Pair) else record.language


def _content(record: Record) -> dict[str, Any]:
    match record:
        case Instruction():
            context = {"input": record.input} if record.input else {}
            return {"prompt": record.instruction} | context | {"answer": record.output}
        case Question():
            return {"prompt": record.question, "context": record.context, "answer": record.answers[0]}
        case Conversation():
            return {"messages": [{"role": role, "content": text} for role, text in record.turns]}
        case Pair():
            return {"texts": record.texts}
        case Text():
            return {"text": record.text}
