"""A training configuration whose mixture holds as many pairs of each language as a split says."""

import json
import os
from collections.abc import Mapping
from pathlib import Path

import yaml

from jaxlingua.command_line import extending, load_config
from jaxlingua.config import Config, MixtureEntry, StageConfig, source_languages
from jaxlingua.errors import ConfigError


def write_configuration(name: str, path: Path, pairs: Mapping[str, int], header: str) -> list[str]:
    """Write `path`, which extends the configuration `name` with limits; what was changed, in lines.

    The entry of a language is the one that translates from or into it. Its `limit` becomes the language's
    pairs, of which every direction of the entry has the same; with 0 pairs the entry is left out. All other
    entries, of instructions and of other languages, stay as they are.

    Args:
        name: a file, a recipe or the folder of a run.
        header: comment lines for the beginning of the file.
    Raises: ConfigError, before anything is written, where a language has no entry or several, an entry has
        several of the languages, or something else than the number of pairs says how often it is seen.
    """
    config = load_config(name)
    found = {code: _entry_of(name, config, code, pairs) for code in pairs}
    places = {code: place for code, place in found.items() if place is not None}
    changed, overrides = [], []
    for number, stage in enumerate(config.stages):
        here = {entry: code for code, (of, entry) in places.items() if of == number}
        if not here:
            continue
        mixture = {}
        for entry_name, entry in stage.mixture.items():
            given = entry.model_dump(mode="json", exclude_unset=True)
            if entry_name in here:
                code = here[entry_name]
                _refuse_other_amounts(name, stage, entry_name)
                where = f"stage '{stage.name}', mixture.{entry_name}"
                if not pairs[code]:
                    changed.append(f"{where}: left out, {code} has no pairs")
                    continue
                before = "all" if entry.limit == "auto" else f"{entry.limit:,}"
                changed.append(f"{where}: {pairs[code]:,} pairs of {code} (before: {before})")
                given["limit"] = pairs[code]
            mixture[entry_name] = given
        overrides.append(f"stages[{number}].mixture={json.dumps(mixture)}")
    content = extending(name, overrides, path.parent)
    text = yaml.safe_dump(content, sort_keys=False, allow_unicode=True, width=110)
    temporary = path.with_name(f".{path.stem}.partial.yaml")
    temporary.write_text("".join(f"# {line}\n" for line in header.splitlines()) + text, "utf-8")
    try:
        load_config(str(temporary))
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    return changed


def _entry_of(name: str, config: Config, code: str, pairs: Mapping[str, int]) -> tuple[int, str] | None:
    """Stage and name of the entry that has the pairs of a language; None where it needs none."""
    found = []
    for number, stage in enumerate(config.stages):
        for entry_name, entry in stage.mixture.items():
            languages = _translated(config, entry_name, entry)
            if code not in languages or entry.replay != "off":
                continue
            if len(both := sorted(pairs.keys() & languages)) > 1:
                raise ConfigError(
                    f"{name}: stage '{stage.name}', mixture.{entry_name}: has {' and '.join(both[:5])}, and "
                    f"one limit; one language of the split per entry is allowed; part it by direction"
                )
            found.append((number, entry_name))
    if not found and not pairs[code]:
        return None
    if len(found) != 1:
        stages = config.stages
        there = ", ".join(f"mixture.{entry} of stage '{stages[number].name}'" for number, entry in found[:5])
        raise ConfigError(
            f"{name}: {there or 'no entry of any stage'} translates from or into {code}; one entry per "
            f"language is allowed; {'leave all but one out' if found else 'add one to the mixture'}"
        )
    return found[0]


def _translated(config: Config, entry_name: str, entry: MixtureEntry) -> set[str]:
    """The languages that an entry translates from or into; none for entries of another task."""
    source = config.data.sources[entry_name if entry.source == "auto" else entry.source]
    is_parallel = source.kind == "parallel" or getattr(source, "yields", "") == "translation"
    if not is_parallel or entry.task not in ("auto", "translation"):
        return set()
    asked = {language for direction in entry.directions() for language in direction}
    return asked or set(source_languages(source))


def _refuse_other_amounts(name: str, stage: StageConfig, entry_name: str) -> None:
    """Raises: ConfigError where the stage shows an entry as often as something else says."""
    where = f"{name}: stage '{stage.name}'"
    if stage.mixture[entry_name].weight != "auto":
        raise ConfigError(
            f"{where}, mixture.{entry_name}.weight: given, and it, not the number of pairs, says how often "
            f"the entry is seen; an entry without weight goes by size; leave weight out"
        )
    if stage.balance != "off":
        raise ConfigError(
            f"{where}, balance: '{stage.balance}' given, and it, not the number of pairs, says how often a "
            f"language is seen; write balance: off"
        )
