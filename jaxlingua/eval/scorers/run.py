"""Segments to a command in another environment, and its scores back.

The command is called with three more arguments: a file with a line {"source", "prediction", "target"} per
segment, the file for its result, and the model or `auto`. The result is one object: `scores`, one number per
line and in their order, `model`, `library` with its version, and `settings` if there is more to tell.

    RUN/evals/<stage>-<step>/scorers/<name>-<hash>.json    results of one task, kept
"""

import dataclasses
import hashlib
import itertools
import json
import math
import os
import re
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxlingua.config import Config, ScorerConfig
from jaxlingua.errors import ConfigError, DataError, JaxlinguaError, MachineError, nearest, one_line
from jaxlingua.eval.metrics.measured import Measured
from jaxlingua.eval.tasks.item import Task

_SCRIPT_PATHS = sorted(Path(__file__).parent.glob("scripts/run_*.py"))
# "run_", since a script comet.py would import itself in place of the library.
SCRIPTS = {path.stem.removeprefix("run_"): path for path in _SCRIPT_PATHS}
PLACEHOLDER = "{script}"
FOLDER = "scorers"
_TEXT_CHARACTERS = 1000  # of a model, library or settings

Say = Callable[[str], None]


class Segment(NamedTuple):
    """A text with what it was made from and what is right."""

    source: str
    prediction: str
    targets: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Result:
    """What a command told of the segments of one task."""

    scores: tuple[float, ...]  # a number per pair of prediction and target
    model: str
    library: str
    settings: str


def run_scorers(
    tasks: Sequence[Task],
    predictions: Sequence[Sequence[str]],
    *,
    config: Config,
    folder: str | Path,
    say: Say = lambda line: None,
) -> list[list[Measured]]:
    """Scores of translation tasks by all of `eval.scorers`; no scores for other tasks.

    In several processes the first one alone scores, and the others get nothing.

    Each scorer is started once for all tasks: loading its model may take longer than scoring one of them.

    Args:
        predictions: of each task, one for each of its items.
        folder: of the evaluation; results are kept there.
    """
    is_first = jax.process_index() == 0
    chosen = [index for index, task in enumerate(tasks) if is_first and task.kind == "translation"]
    groups = [
        [
            Segment(item.source_text, prediction, item.targets)
            for item, prediction in zip(tasks[index].items, predictions[index], strict=True)
        ]
        for index in chosen
    ]
    measured: list[list[Measured]] = [[] for _ in tasks]
    for name, scorer in config.eval.scorers.items() if chosen else ():
        for index, one in zip(chosen, run_scorer(name, scorer, groups, folder, say), strict=True):
            measured[index].append(one)
    return measured


def run_scorer(
    name: str,
    scorer: ScorerConfig,
    groups: Sequence[Sequence[Segment]],
    folder: str | Path,
    say: Say = lambda line: None,
) -> list[Measured]:
    """One metric for each group of segments; a segment with several targets gets its best.

    Scores of our own scripts are shares, and told times 100; those of other commands are told as they are.

    The command is not run for groups of which the folder has the result of the same arguments, model, script
    and segments; the program itself may have moved. Whoever updates its library removes these results.

    Raises: ConfigError for a command that is not found or does not use our script where it says so; DataError
        where a segment has no target, or for a result that cannot be used; MachineError where the command
        fails or takes too long.
    """
    where = f"eval.scorers.{name}"
    command, script = _command(name, scorer, where)
    for index, segment in ((i, segment) for group in groups for i, segment in enumerate(group)):
        if not segment.targets:
            raise DataError(f"{where}: item {index} has no target; each needs one or more; take it out")
    pairs = [[(s.source, s.prediction, target) for s in group for target in s.targets] for group in groups]
    paths = [Path(folder) / FOLDER / f"{name}-{_hash(scorer, script, group)}.json" for group in pairs]
    results = [_kept(path, len(group)) for path, group in zip(paths, pairs, strict=True)]
    missing = [index for index, result in enumerate(results) if result is None]
    told = f"{name}: results of {len(results) - len(missing)} of {len(results)} tasks are there"
    if missing:
        segments = sum(len(pairs[index]) for index in missing)
        say(f"{told}; {segments:,} segments to score, at most {scorer.timeout_seconds:g} s")
        found = _run(command, scorer, [pair for index in missing for pair in pairs[index]], where)
        scores = iter(found.scores)
        for index in missing:
            results[index] = dataclasses.replace(
                found, scores=tuple(itertools.islice(scores, len(pairs[index])))
            )
            _keep(paths[index], results[index])
    else:
        say(told)
    is_share = any(str(path) in part for part in command for path in SCRIPTS.values())
    return [_measured(name, *each, script, is_share) for each in zip(groups, results, strict=True)]


def _command(name: str, scorer: ScorerConfig, where: str) -> tuple[list[str], str]:
    """The command with our script in place, and a hash of the files that it runs."""
    if not re.fullmatch(r"[A-Za-z0-9_+-]+", name):
        raise ConfigError(f"{where}: name '{name}' given; letters, digits, _, + and - are allowed; rename it")
    if not scorer.command or not scorer.command[0]:
        raise ConfigError(f"{where}.command: empty; give a program and its arguments")
    if any(PLACEHOLDER in part for part in scorer.command) and name not in SCRIPTS:
        raise ConfigError(
            f"{where}.command: {PLACEHOLDER} given, and no script for '{name}' is shipped; "
            f"{nearest(name, list(SCRIPTS))}; or give the path of your own script"
        )
    command = [part.replace(PLACEHOLDER, str(SCRIPTS.get(name))) for part in scorer.command]
    program = shutil.which(command[0])
    if program is None:
        raise ConfigError(
            f"{where}.command: program '{command[0]}' is not found or cannot be run; give the path of the "
            "program, such as the python of the environment that has the scorer"
        )
    if command != scorer.command:
        scripts = [str(SCRIPTS[name])]
    else:
        scripts = [part for part in command[1:] if os.path.isfile(part)] or [program]
    digest = hashlib.sha256(b"".join(Path(script).read_bytes() for script in scripts)).hexdigest()
    return command, digest[:8]


def _hash(scorer: ScorerConfig, script: str, pairs: Sequence[tuple[str, str, str]]) -> str:
    content = (scorer.command[1:], scorer.model, script, pairs)
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:16]


def _run(
    command: Sequence[str], scorer: ScorerConfig, pairs: Sequence[tuple[str, str, str]], where: str
) -> Result:
    """Files both ways, so that neither a full pipe nor what a library prints is in the way."""
    with tempfile.TemporaryDirectory(prefix="jaxlingua-scorer-") as home:
        items, result, out, err = (Path(home, name) for name in ("items.jsonl", "result.json", "out", "err"))
        names = ("source", "prediction", "target")
        lines = [json.dumps(dict(zip(names, pair, strict=True))) + "\n" for pair in pairs]
        items.write_text("".join(lines), encoding="utf-8")
        with out.open("wb") as to_out, err.open("wb") as to_err:
            arguments = [*command, str(items), str(result), scorer.model]
            try:
                code = _end_of(arguments, to_out, to_err, scorer.timeout_seconds)
            except subprocess.TimeoutExpired:
                raise MachineError(
                    f"{where}: not done after {scorer.timeout_seconds:g} s with {len(pairs):,} segments; "
                    f"it was stopped; raise {where}.timeout_seconds or score fewer items"
                ) from None
            except OSError as error:
                raise ConfigError(
                    f"{where}.command: '{command[0]}' cannot be run ({error.strerror}); give a program"
                ) from None
        if code:
            ended = f"ended by signal {-code}" if code < 0 else f"exit code {code}"
            raise MachineError(
                f"{where}: {ended}: {_last_line(err) or _last_line(out) or 'it said nothing'}; see to its "
                "environment and run the same command again"
            )
        return _read(result, len(pairs), scorer.model, where)


def _end_of(arguments: list[str], out: Any, err: Any, seconds: float) -> int:
    """The exit code; the command and all that it started are gone when this one is stopped or late."""
    process = subprocess.Popen(
        arguments, stdin=subprocess.DEVNULL, stdout=out, stderr=err, start_new_session=True
    )
    try:
        return process.wait(timeout=seconds)
    finally:
        if process.returncode is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _last_line(path: Path) -> str:
    lines = [line.strip() for line in path.read_text("utf-8", "replace").splitlines() if line.strip()]
    return lines[-1][:300] if lines else ""


def _read(path: Path, segments: int, model: str, where: str) -> Result:
    """The result that a command wrote. Raises: DataError, one line for each way in which it can be wrong."""

    def wrong(what: str) -> DataError:
        return DataError(
            f"{where}: {what}; one JSON object with scores, model, library is needed; mend its script"
        )

    try:
        told = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise wrong("it wrote no result") from None
    except OSError as error:
        raise wrong(f"its result cannot be read ({error.strerror})") from None
    except (ValueError, RecursionError) as error:
        raise wrong(f"its result is not JSON ({one_line(error)[:100]})") from None
    if not isinstance(told, dict) or not isinstance(told.get("scores"), list):
        raise wrong("its result has no list 'scores'")
    for field in ("model", "library"):
        if not isinstance(told.get(field), str) or not told[field]:
            raise wrong(f"its result does not tell '{field}'")
    settings = str(told.get("settings", "none"))
    for field, text in (("model", told["model"]), ("library", told["library"]), ("settings", settings)):
        if len(text) > _TEXT_CHARACTERS or not _is_text(text):
            raise wrong(
                f"its result tells a '{field}' of {len(text):,} characters, or with some that no text has"
            )
    scores = told["scores"]
    if len(scores) != segments:
        raise wrong(f"{len(scores)} scores for {segments} segments")
    for index, score in enumerate(scores):
        if isinstance(score, bool) or not isinstance(score, int | float) or not _is_finite(score):
            raise wrong(f"score {index} is {json.dumps(score)[:40]}, not a finite number")
    if model not in ("auto", told["model"]):
        raise wrong(f"it scored with model '{told['model'][:100]}', '{model}' was asked for")
    return Result(tuple(float(score) for score in scores), told["model"], told["library"], settings)


def _is_finite(number: int | float) -> bool:
    try:
        return math.isfinite(number)
    except OverflowError:  # JSON can hold integers beyond any float
        return False


def _is_text(text: str) -> bool:
    """Whether UTF-8 can write it (JSON can hold half of a surrogate pair), and files can be named so."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return "\0" not in text


def _kept(path: Path, segments: int) -> Result | None:
    """A result of an earlier evaluation; none where it is absent or damaged."""
    try:
        return _read(path, segments, "auto", path.name)
    except (JaxlinguaError, OSError):
        return None


def _keep(path: Path, result: Result) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    content = dataclasses.asdict(result)
    partial = path.with_name(f".{path.name}.partial")
    partial.write_text(json.dumps(content, ensure_ascii=False) + "\n", encoding="utf-8")
    os.replace(partial, path)


def _measured(name: str, group: Sequence[Segment], result: Result, script: str, is_share: bool) -> Measured:
    scores = iter(result.scores)
    best = [max(next(scores) for _ in segment.targets) for segment in group]
    references = "best" if any(len(segment.targets) > 1 for segment in group) else "one"
    rules = {
        "model": _model_name(result.model),
        "library": result.library,
        "settings": result.settings,
        "script": script,
        "scale": "times 100" if is_share else "as told",
        "references": references,
    }
    told = "|".join(f"{key}:{' '.join(value.replace('|', '/').split())}" for key, value in rules.items())
    times = 100.0 if is_share else 1.0
    statistics = np.array([[times * score, 1.0] for score in best])
    return Measured(name, statistics, lambda sums: float(sums[0] / sums[1]), f"metric:{name}|{told}")


def _model_name(model: str) -> str:
    """A path without the part that differs between machines; COMET's all end in checkpoints/model.ckpt."""
    path = Path(model)
    try:
        return path.name if path.is_dir() else "/".join(path.parts[-3:]) if path.is_file() else model
    except OSError:  # too long for a path
        return model
