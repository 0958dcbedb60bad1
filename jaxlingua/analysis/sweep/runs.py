"""The runs of a sweep, one after the other, each as `python -m jaxlingua.train` makes it.

FOLDER/configs/<cell>.yaml   the run's configuration in full
FOLDER/runs/<cell>/          the run
FOLDER/done/<cell>.json      its scores, once it has ended, and of which configuration they are
FOLDER/programs/             JAX's persistent cache, from which all runs but the first take their programs
FOLDER/table.csv             a line for each score, written after each run
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
from jaxlingua.analysis.sweep.table import rows_of, similarity_of, write_table
from jaxlingua.errors import ConfigError, Stopped

# JAX keeps programs that took a second or more to compile unless it is told otherwise.
_CACHE = {"JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.1"}


def run_all(cells: Sequence[Cell], folder: Path) -> None:
    """Train what is not done yet, and write the table after each run.

    Raises: ConfigError where FOLDER holds a run of another configuration; Stopped, with the exit code of the
        training, where one does not end well.
    Cost: a start of Python and JAX for each run, some seconds; its programs are compiled once for all.
    """
    for name in ("configs", "done", "runs"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    texts = {cell.name: _text(cell) for cell in cells}
    left = [cell for cell in cells if _scores(folder, cell, texts[cell.name]) is None]
    print(f"{len(cells):,} runs, {len(cells) - len(left):,} of them done already", flush=True)
    _write_table(folder, cells, texts)
    began = time.monotonic()
    for number, cell in enumerate(left):
        told = f"run {len(cells) - len(left) + number + 1} of {len(cells)}: {cell.name}"
        if number:
            seconds = (time.monotonic() - began) / number * (len(left) - number)
            told += f", about {timedelta(seconds=round(seconds))} left for all"
        print(told, flush=True)
        path = folder / "configs" / f"{cell.name}.yaml"
        _replace(path, texts[cell.name])
        code = _train(path, folder / "programs")
        if code:
            raise Stopped(
                f"{cell.name}: its training ended with exit code {code}; run it again to go on", code
            )
        done = {"config": _hash(texts[cell.name]), "scores": rows_of(Path(cell.config.run.folder), cell)}
        _replace(folder / "done" / f"{cell.name}.json", json.dumps(done, ensure_ascii=False, indent=1) + "\n")
        _write_table(folder, cells, texts)
    print(f"{folder / 'table.csv'}: the scores of {len(cells):,} runs", flush=True)


def _text(cell: Cell) -> str:
    return yaml.safe_dump(cell.config.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _scores(folder: Path, cell: Cell, text: str) -> list[dict[str, Any]] | None:
    """The scores of a run that is done; None where it is not.

    Raises: ConfigError where they are of another configuration.
    """
    path = folder / "done" / f"{cell.name}.json"
    if not path.is_file():
        return None
    done = json.loads(path.read_text("utf-8"))
    if done["config"] != _hash(text):
        raise ConfigError(
            f"--output: '{folder}' given, which holds {cell.name} of another configuration; the one that it "
            f"began with is allowed; give that, or choose another folder"
        )
    return done["scores"]


def _write_table(folder: Path, cells: Sequence[Cell], texts: Mapping[str, str]) -> None:
    """The scores of what is done. The similarity of a language is that of the most pairs of it."""
    done = {cell.name: _scores(folder, cell, texts[cell.name]) for cell in cells}
    similarity = {}
    for language in dict.fromkeys(cell.language for cell in cells):
        of = [cell for cell in cells if cell.language == language and done[cell.name] is not None]
        if of:
            most = max(of, key=lambda cell: (cell.pairs, -cells.index(cell)))
            similarity[language] = similarity_of(Path(most.config.run.folder), most)
    rows = [row for found in done.values() if found for row in found]
    write_table(folder / "table.csv", [{**row, "similarity": similarity[row["language"]]} for row in rows])


def _train(path: Path, programs: Path) -> int:
    """The exit code of a training that takes its programs from `programs`, as a shell tells it."""
    cache = {"JAX_COMPILATION_CACHE_DIR": str(programs.resolve()), **_CACHE}
    child = subprocess.Popen(
        [sys.executable, "-m", "jaxlingua.train", str(path)],
        env={**cache, **os.environ},
        start_new_session=True,
    )
    with _passed_on(child):
        code = child.wait()
    return 128 - code if code < 0 else code


@contextmanager
def _passed_on(child: subprocess.Popen) -> Iterator[None]:
    """SIGINT and SIGTERM go to the training, which saves what it has and ends; so does the sweep then."""
    before = {
        number: signal.signal(number, lambda came, frame: child.send_signal(came))
        for number in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _replace(path: Path, text: str) -> None:
    partial = path.with_name(f".{path.name}.partial")
    partial.write_text(text, "utf-8", newline="\n")
    os.replace(partial, path)
