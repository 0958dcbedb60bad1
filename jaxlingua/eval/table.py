"""Merge the scores of runs, seeds and prompts into one table: python -m jaxlingua.eval table RUN …"""

import sys
from collections import deque
from collections.abc import Sequence
from pathlib import Path

from jaxlingua.command_line import load_config
from jaxlingua.errors import ConfigError, DataError, nearest
from jaxlingua.eval.report.files import read_data, read_evaluations, read_lines, read_provenance, replace
from jaxlingua.eval.report.forgetting import forgetting
from jaxlingua.eval.report.merge import Run, base_of, group_of, merge
from jaxlingua.eval.report.merged_text import FORMATS
from jaxlingua.eval.report.summary import summary_scores
from jaxlingua.tokens.tokenizer import is_learned

HELP = """\
python -m jaxlingua.eval table RUN [RUN …] [--format md|csv|tex|html|json] [--output FILE] [--metric NAME …]

Merges the scores of run folders into one table: a row per task, language and metric, a column per model
beside the base models and what no model scores. Runs of the same training data and tokenizer whose
configurations differ in run.seed alone are averaged (mean ± standard deviation, number of seeds), and so are
prompts where all models were asked in the same ones. Scores whose signatures differ stand in rows of their
own, with what sets them apart. Of runs of several stages, average score, backward transfer, forgetting and
the like stand in the last rows.

  --format  md, csv, tex, html or json; without it by the ending of --output, else md
  --output  file that is written; without it the table is printed
  --metric  shows only this metric; may be given several times"""


def main(arguments: Sequence[str]) -> None:
    """Read the runs, print or write the table.

    Raises: ConfigError for a wrong command line, DataError for folders without sound scores; one line each.
    """
    if not arguments or any(argument in ("-h", "--help") for argument in arguments):
        print(HELP)
        sys.exit(0 if arguments else 2)
    folders, options = _parse(arguments)
    output = options["--output"][-1] if options["--output"] else ""
    kind = _format_of(options["--format"][-1] if options["--format"] else "", output)
    runs = read_runs([Path(folder) for folder in folders])
    known = list(dict.fromkeys(score["metric"] for run in runs for score in run.scores))
    for metric in options["--metric"]:
        if metric not in known:
            raise ConfigError(f"--metric: '{metric}' given; {nearest(metric, known)}; name one of these")
    text = FORMATS[kind](merge(runs, options["--metric"]))
    if not output:
        sys.stdout.write(text)
        return
    path = Path(output).expanduser()
    if path.is_dir() or not path.parent.is_dir():
        raise ConfigError(f"--output: '{output}' given; a file in a folder that exists is allowed; give one")
    replace(path, text)


def read_runs(folders: Sequence[Path]) -> list[Run]:
    """The scores of run folders, with what tells which of them belong together.

    Raises: DataError for a folder that is no run, holds no scores or is given twice, a damaged file, or two
        runs of one configuration and one seed.
    """
    runs: list[Run] = []
    places: dict[Path, Path] = {}
    for folder in folders:
        if not (folder / "config.yaml").is_file():
            raise DataError(
                f"{folder}: given, which is not the folder of a run (it has no config.yaml); folders that "
                f"jaxlingua.train or jaxlingua.eval has written are allowed; give one"
            )
        place = folder.resolve()
        if place in places:
            raise DataError(
                f"{folder}: the same folder as {places[place]}; each run may be given once; leave one out"
            )
        places[place] = folder
        run = _read_run(folder)
        for other in runs:
            if (other.group, other.seed) == (run.group, run.seed):
                raise DataError(
                    f"{folder}: the same configuration and seed as {other.folder}; a seed counts once; leave "
                    f"one of them out"
                )
        runs.append(run)
    return runs


def _read_run(folder: Path) -> Run:
    try:
        config = load_config(str(folder / "config.yaml"))
    except ConfigError as error:
        raise ConfigError(f"{folder}: {error}") from None
    evaluations = read_evaluations(folder)
    scores = []
    for name, evaluation in evaluations.items():
        fingerprint = (evaluation.get("model") or {}).get("fingerprint", "")
        scores += [{**score, "fingerprint": fingerprint} for score in evaluation["scores"]]
        for key, counts in evaluation["tasks"].items():
            _check_predictions(folder / "evals" / name / f"{key}.jsonl", counts)
    data = read_data(folder)
    scores += summary_scores(forgetting(scores, data["stages"], config.eval.abilities))
    if not scores:
        raise DataError(
            f"{folder}: holds no scores; evaluated runs are allowed; run python -m jaxlingua.eval {folder} "
            f"first"
        )
    sources = {source["name"]: source["fingerprint"] for source in data["sources"]}
    tokenizer = ""
    if (folder / "provenance.json").is_file() and not is_learned(config.tokens, config.model.path):
        tokenizer = read_provenance(folder).get("tokenizer", "")
    return Run(
        name=folder.resolve().name,
        folder=str(folder),
        seed=config.run.seed,
        group=group_of(config, sources, tokenizer),
        base=base_of(config),
        scores=tuple(scores),
    )


def _check_predictions(path: Path, counts: dict) -> None:
    """A table rests on whole predictions: each line is sound, and there is one per item."""
    if not path.is_file():
        return
    lines = len(read_lines(path))
    if lines != counts.get("items", lines):
        raise DataError(
            f"{path}: {lines} predictions for {counts['items']} items; a prediction per item is needed; "
            f"remove scores.json beside it and evaluate again"
        )


def _parse(arguments: Sequence[str]) -> tuple[list[str], dict[str, list[str]]]:
    """Folders, and the values of each option."""
    options: dict[str, list[str]] = {"--format": [], "--output": [], "--metric": []}
    folders: list[str] = []
    left = deque(arguments)
    while left:
        argument = left.popleft()
        if not argument.startswith("-"):
            folders.append(argument)
            continue
        name, equals, value = argument.partition("=")
        if name not in options:
            raise ConfigError(
                f"jaxlingua.eval table: '{name}' given; {nearest(name, list(options))}; see --help"
            )
        if not equals:
            value = left.popleft() if left else ""
        if not value or value.startswith("--"):
            raise ConfigError(f"{name}: no value given; it takes one; write it like {name} VALUE")
        options[name].append(value)
    for name in ("--format", "--output"):
        if len(options[name]) > 1:
            raise ConfigError(f"{name}: given twice; once is allowed; leave one out")
    if not folders:
        raise ConfigError(
            "jaxlingua.eval table: no RUN given; the folder of an evaluated run is needed; give one"
        )
    return folders, options


def _format_of(given: str, output: str) -> str:
    if given and given not in FORMATS:
        raise ConfigError(f"--format: '{given}' given; {', '.join(FORMATS)} are allowed; choose one")
    ending = Path(output).suffix.removeprefix(".")
    if output and not given and ending not in FORMATS:
        raise ConfigError(
            f"--output: '{output}' given; endings {', '.join(FORMATS)} tell the format; change it or give "
            f"--format"
        )
    return given or ending or "md"
