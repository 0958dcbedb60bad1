"""The runs of a sweep, one after the other, each as `python -m jaxlingua.train` makes it.

FOLDER/configs/<cell>.yaml   the run's configuration in full
FOLDER/runs/<cell>/          the run
FOLDER/done/<cell>.json      its scores and similarity, once it has ended, and of which configuration they are
FOLDER/programs/             JAX's persistent cache, from which all runs but the first take their programs
FOLDER/table.csv             a line for each score of all that is done, written after each run
"""

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import yaml

from jaxlingua.analysis.sweep.cells import Cell
from jaxlingua.analysis.sweep.table import rows_of, similarity_of, sources_of, write_table
from jaxlingua.config import Config
from jaxlingua.errors import ConfigError, Stopped

# JAX keeps programs that took a second or more to compile unless it is told otherwise.
_CACHE = {"JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.1"}


def run_all(cells: Sequence[Cell], folder: Path) -> None:
    """Train what is not done yet, and write the table after each run.

    Raises: ConfigError where FOLDER holds a run of another configuration; Stopped, with the exit code of the
        training, where one does not end well, or of the signal that came meanwhile.
    Cost: a start of Python and JAX for each run, some seconds; its programs are compiled once for all.
    """
    for name in ("configs", "done", "runs"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    texts = {cell.name: _text(cell) for cell in cells}
    hashes = {cell.name: _hashes(cell.config) for cell in cells}
    done = _done(folder, hashes)
    left = [cell for cell in cells if cell.name not in done]
    print(f"{len(cells):,} runs, {len(cells) - len(left):,} of them done already", flush=True)
    _write_table(folder, done)
    began = time.monotonic()
    for number, cell in enumerate(left):
        told = f"run {len(cells) - len(left) + number + 1} of {len(cells)}: {cell.name}"
        if number:
            seconds = (time.monotonic() - began) / number * (len(left) - number)
            told += f", about {timedelta(seconds=round(seconds))} left for all"
        print(told, flush=True)
        path = folder / "configs" / f"{cell.name}.yaml"
        _replace(path, texts[cell.name])
        code, came = _train(path, folder / "programs")
        if code:
            raise Stopped(
                f"{cell.name}: its training ended with exit code {code}; run it again to go on", code
            )
        run = Path(cell.config.run.folder)
        found = {
            "sources": sources_of(cell),
            "similarity": similarity_of(run, cell),
            "scores": rows_of(run, cell),
        }
        done[cell.name] = {**_named(cell), **hashes[cell.name], **found}
        text = json.dumps(done[cell.name], ensure_ascii=False, indent=1) + "\n"
        _replace(folder / "done" / f"{cell.name}.json", text)
        _write_table(folder, done)
        if came:  # while the training had no more to save
            raise Stopped(f"{cell.name}: done; stopped by signal {came}; run it again to go on", 128 + came)
    print(f"{folder / 'table.csv'}: the scores of {len(done):,} runs", flush=True)
    if len(sources := _sources(done)) > 1:
        print(
            f"similarity is empty: pairs of different sources ({', '.join(sorted(sources))}) differ by the "
            f"kind of their text too; measure it on text of one kind, and give scaling --similarity",
            flush=True,
        )


def _text(cell: Cell) -> str:
    return yaml.safe_dump(cell.config.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


def _named(cell: Cell) -> dict[str, Any]:
    return {"language": cell.language, "pairs": cell.pairs, "seed": cell.seed}


def _hashes(config: Config) -> dict[str, str]:
    """Of what a run's scores depend on, and of that part of it which all runs of the sweep have.

    Whether it evaluates the base too is no part of either: it goes by which run is the first.
    """
    content = config.model_dump(mode="json")
    del content["eval"]["base_model"]
    own = _hash(content)
    del content["run"]["seed"], content["run"]["folder"], content["stages"][-1]["mixture"]
    del content["eval"]["tasks"], content["eval"]["abilities"]
    return {"config": own, "shared": _hash(content)}


def _hash(content: Any) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _done(folder: Path, hashes: Mapping[str, Mapping[str, str]]) -> dict[str, dict[str, Any]]:
    """What is known of each run that is done, by its name; those of other languages, sizes and seeds too.

    Raises: ConfigError where one is of another configuration.
    """
    shared = next(iter(hashes.values()))["shared"]
    done = {
        path.stem: json.loads(path.read_text("utf-8")) for path in sorted((folder / "done").glob("*.json"))
    }
    for name, one in done.items():
        wanted = hashes.get(name, {"shared": shared})
        if any(one.get(kind) != value for kind, value in wanted.items()):
            raise ConfigError(
                f"--output: '{folder}' given, which holds {name} of another configuration; the one that it "
                f"began with is allowed; give that, or choose another folder"
            )
    return done


def _write_table(folder: Path, done: Mapping[str, Mapping[str, Any]]) -> None:
    """The scores of what is done, those of the base once for each language.

    The similarity of a language is that of the most pairs of it; it stands there for all languages or none,
    and for none where their pairs are of different sources.
    """
    ordered = sorted(done.values(), key=lambda one: (one["seed"], one["pairs"], one["language"]))
    similarity = {one["language"]: one["similarity"] for one in sorted(ordered, key=lambda one: one["pairs"])}
    if not all(similarity.values()) or len(_sources(done)) > 1:
        similarity = dict.fromkeys(similarity, "")
    has_base: dict[str, str] = {}
    rows = []
    for one in ordered:
        for row in one["scores"]:
            if row["pairs"] or has_base.setdefault(one["language"], row["run"]) == row["run"]:
                rows.append({**row, "similarity": similarity[one["language"]]})
    write_table(folder / "table.csv", rows)


def _sources(done: Mapping[str, Mapping[str, Any]]) -> set[str]:
    """The sources of each language's pairs; nothing is known of runs that are older."""
    return {" and ".join(one["sources"]) for one in done.values() if one.get("sources")}


def _train(path: Path, programs: Path) -> tuple[int, int]:
    """Train, with programs from `programs`.

    Returns: the exit code as a shell tells it, and the signal that was passed on, 0 where none came.
    """
    cache = {"JAX_COMPILATION_CACHE_DIR": str(programs.resolve()), **_CACHE}
    child = subprocess.Popen(
        [sys.executable, "-m", "jaxlingua.train", str(path)],
        env={**cache, **os.environ},
        start_new_session=True,
    )
    with _passed_on(child) as came:
        code = child.wait()
    return 128 - code if code < 0 else code, came[0] if came else 0


@contextmanager
def _passed_on(child: subprocess.Popen) -> Iterator[list[int]]:
    """SIGINT and SIGTERM go to the training, which saves what it has and ends; so does the sweep then.

    Yields: those that came.
    """
    came: list[int] = []

    def pass_on(number: int, frame: object) -> None:
        came.append(number)
        child.send_signal(number)

    before = {number: signal.signal(number, pass_on) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield came
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _replace(path: Path, text: str) -> None:
    partial = path.with_name(f".{path.name}.partial")
    partial.write_text(text, "utf-8", newline="\n")
    os.replace(partial, path)
