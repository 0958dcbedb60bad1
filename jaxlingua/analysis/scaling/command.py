"""python -m jaxlingua.analysis scaling: from a table of scores to laws, predictions and a picture."""

import math
import sys
from pathlib import Path

from jaxlingua.analysis.scaling.choice import candidates, choose
from jaxlingua.analysis.scaling.doubts import lack_of_fit
from jaxlingua.analysis.scaling.intervals import LEVEL, with_draws
from jaxlingua.analysis.scaling.laws import FORMULAS, LAWS, Laws, write_laws
from jaxlingua.analysis.scaling.table import MOST_PAIRS, read_similarity, read_table, select
from jaxlingua.analysis.scaling.told import (
    FAR,
    told_choice,
    told_doubts,
    told_laws,
    told_scores,
    told_sizes,
    told_wanted,
)
from jaxlingua.command_line import Flag, flags_from_command_line
from jaxlingua.data.readers import cut
from jaxlingua.errors import ConfigError, nearest

HELP = f"""\
python -m jaxlingua.analysis scaling TABLE [--metric NAME] [--task NAME] [--similarity FILE.csv] [--law NAME]
       [--at N,N,…] [--for SCORE,SCORE,…] [--output LAWS.json] [--plot FILE.png]

Fits laws to scores at several numbers of pairs, tells how each fits, and takes one; then the score at other
numbers of pairs, and the pairs for a score, with intervals of {LEVEL:.0%}.

TABLE is a CSV file with the columns language, pairs, seed, task, metric and value; similarity may be one too.
A line is a score; 0 pairs stand for the base model, which is shown and not fitted. The laws:

{chr(10).join(f"  {name:<10}  {formula}" for name, formula in FORMULAS.items())}

with n pairs, the similarity g, and c, u or start of each language; the rest is shared, but for the amplitude
(a, v, height) of power_free, log_linear_free and sigmoid_free.

  --metric      the metric; needed where the table has several
  --task        the task; needed where the table has several; those that differ in the language alone are one
  --similarity  CSV file with the columns language and similarity, in place of the table's; 1 without either
  --law         takes this law, whichever fits best
  --at          numbers of pairs to tell the score at; without it the largest size and twice that
  --for         scores to tell the number of pairs for
  --output      writes the laws with their draws, for python -m jaxlingua.analysis allocate
  --plot        draws scores, laws and bands: .png or .svg"""
FLAGS = (
    Flag("--metric", "The metric.", "NAME"),
    Flag("--task", "The task.", "NAME"),
    Flag("--similarity", "Similarity of each language.", "FILE.csv"),
    Flag("--law", "The law to take.", "NAME"),
    Flag("--at", "Numbers of pairs.", "10000,50000"),
    Flag("--for", "Scores.", "25,30"),
    Flag("--output", "Where the laws go.", "LAWS.json"),
    Flag("--plot", "Where the picture goes.", "FILE.png"),
)


def main(arguments: list[str]) -> None:
    """Read the table, fit, print, write.

    Raises: ConfigError or DataError, one line, for what cannot be fitted.
    """
    if not arguments or any(argument in ("-h", "--help") for argument in arguments):
        print(HELP)
        sys.exit(0 if arguments else 2)
    program = "jaxlingua.analysis scaling"
    given, names = flags_from_command_line(program, HELP, FLAGS, (), arguments, usage="TABLE")
    if len(names) > 1:
        raise ConfigError(f"{program}: '{names[1]}' given beside {names[0]}; one TABLE is allowed")
    sizes = [_pairs(text) for text in _listed(given.get("--at", ""))]
    wanted = [_score(text) for text in _listed(given.get("--for", ""))]
    output, plot = (_file(name, given.get(name, "")) for name in ("--output", "--plot"))
    if plot and plot.suffix.lower() not in (".png", ".svg"):
        raise ConfigError(f"--plot: '{plot}' given; .png and .svg are allowed; change the ending")
    law = given.get("--law", "")
    if law and law not in LAWS:
        raise ConfigError(f"--law: '{law}' given; {nearest(law, list(LAWS), 'known:')}; name one of these")
    similarity = read_similarity(given["--similarity"]) if "--similarity" in given else None
    rows = read_table(names[0])
    scores = select(rows, names[0], given.get("--metric", ""), given.get("--task", ""), similarity)
    found = candidates(scores.points)
    chosen, why = choose(found)
    if law:
        chosen, why = next(one for one in found if one.law == law), "it was asked for"
        if chosen.fitted is None:
            raise ConfigError(f"--law: {law} cannot be fitted: {chosen.why_not}; name another")
    of = with_draws(chosen.fitted)
    doubts = tuple(told_doubts(scores, found, chosen))
    largest = max(one.largest_pairs for one in of.values())
    sizes = sizes or [largest, FAR * largest]
    for line in (
        *told_scores(scores),
        "",
        *told_choice(found, chosen, why),
        *(f"! {doubt}" for doubt in doubts),
        "",
        *told_laws(scores, of, chosen),
        "",
        *told_sizes(of, sizes),
        *(["", *told_wanted(of, wanted, scores.is_higher_better)] if wanted else []),
    ):
        print(line)
    if output:
        write_laws(
            output,
            Laws(scores.metric, scores.task, scores.is_higher_better, of, doubts),
            [one.told() for one in found],
            tested.told() if (tested := lack_of_fit(chosen.fitted)) else None,
        )
        print(f"\nlaws: {output}")
    if plot:
        from jaxlingua.analysis.scaling.plots import draw

        draw(plot, scores, of, sizes)
        print(f"picture: {plot}")


# ── what is given ─────────────────────────────────────────────────────────────────────────────────────────


def _listed(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


def _pairs(text: str) -> int:
    digits = text.lstrip("0") or "0"
    if not text.isdecimal() or len(digits) > len(str(MOST_PAIRS)) or int(digits) > MOST_PAIRS:
        raise ConfigError(
            f"--at: '{cut(text)}' given; whole numbers from 0 to 10^15 are allowed, such as 10000,50000"
        )
    return int(digits)


def _score(text: str) -> float:
    try:
        score = float(text)
    except ValueError:
        score = math.nan
    if not math.isfinite(score):
        raise ConfigError(f"--for: '{text}' given; scores are allowed, such as 25,30.5")
    return score


def _file(name: str, given: str) -> Path | None:
    if not given:
        return None
    path = Path(given).expanduser()
    if path.is_dir() or not path.parent.is_dir():
        raise ConfigError(f"{name}: '{given}' given; a file in a folder that exists is allowed; give one")
    return path
