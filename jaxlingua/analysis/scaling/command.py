"""python -m jaxlingua.analysis scaling: from a table of scores to laws, predictions and a picture."""

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from jaxlingua.analysis.scaling.choice import Candidate, candidates, choose
from jaxlingua.analysis.scaling.intervals import LEVEL, interval, new_score_interval, with_draws
from jaxlingua.analysis.scaling.laws import FORMULAS, LAWS, PARAMETERS, Fitted, Laws, family, write_laws
from jaxlingua.analysis.scaling.table import Scores, read_similarity, read_table, select
from jaxlingua.command_line import Flag, flags_from_command_line
from jaxlingua.errors import ConfigError, nearest

PURPOSE = f"""\
Fits laws to scores at several numbers of pairs, tells how each fits, and chooses one; then the score at other
numbers of pairs, and the pairs for a score, with intervals of {LEVEL:.0%}.
TABLE  a CSV file with the columns language, pairs, seed, task, metric, value; similarity may be one too.
       A line is a score; 0 pairs stand for the base model, which is shown and not fitted.
Laws, each with parameters shared by the languages, and as NAME_free with an amplitude for each language:
{chr(10).join(f"  {name:<11}{formula}" for name, formula in FORMULAS.items())}"""
FLAGS = (
    Flag("--metric", "The metric; needed where the table has several.", "NAME"),
    Flag("--task", "The task; needed where the table has several.", "NAME"),
    Flag("--similarity", "CSV with language and similarity, the g of the laws; without it the table's, or 1.", "FILE.csv"),
    Flag("--law", "Takes this law, whichever fits best.", "NAME"),
    Flag("--at", "Numbers of pairs to tell the score at.", "N,N"),
    Flag("--for", "Scores to tell the number of pairs for.", "SCORE,SCORE"),
    Flag("--output", "Writes the laws with their draws, for jaxlingua.analysis allocate.", "LAWS.json"),
    Flag("--plot", "Draws scores, laws and bands: .png or .svg.", "FILE.png"),
)  # fmt: skip
FAR = 2  # times the largest size measured, beyond which a prediction is marked
MOST_PAIRS = 1e12  # that are told as a number


def main(arguments: list[str]) -> None:
    """Read the table, fit, print, write.

    Raises: ConfigError or DataError, one line, for what cannot be fitted.
    """
    given, names = flags_from_command_line(
        "jaxlingua.analysis scaling", PURPOSE, FLAGS, (), arguments, usage="TABLE"
    )
    if len(names) > 1:
        raise ConfigError(
            f"jaxlingua.analysis scaling: '{names[1]}' given beside {names[0]}; one TABLE is allowed"
        )
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
    largest = max(one.largest_pairs for one in of.values())
    sizes = sizes or [largest, FAR * largest]
    for line in (
        *told_scores(scores),
        "",
        *told_choice(found, chosen, why),
        "",
        *told_laws(of, chosen),
        "",
        *told_sizes(of, sizes),
        *(["", *told_wanted(of, wanted)] if wanted else []),
    ):
        print(line)
    if output:
        write_laws(
            output,
            Laws(scores.metric, scores.task, scores.is_higher_better, of),
            [one.told() for one in found],
        )
        print(f"\nlaws: {output}")
    if plot:
        from jaxlingua.analysis.scaling.plots import draw

        draw(plot, scores, of, sizes)
        print(f"picture: {plot}")


# ── what is told ──────────────────────────────────────────────────────────────────────────────────────────


def told_scores(scores: Scores) -> Iterator[str]:
    """What the laws are fitted to."""
    points = scores.points
    better = "higher" if scores.is_higher_better else "lower"
    seeds = f"{scores.seeds} seed{'s' * (scores.seeds != 1)}"
    yield (
        f"{scores.metric} of {scores.task}: {len(points.score)} scores, {len(points.languages)} "
        f"language{'s' * (len(points.languages) != 1)}, {points.pairs.min():,.0f} to {points.pairs.max():,.0f} "
        f"pairs, {seeds}; {better} is better"
    )
    if scores.base:
        yield f"{len(scores.base)} more at 0 pairs, which no law is fitted to; see --plot"
    if not scores.is_similarity_measured:
        yield "no similarity given: g is 1 for every language"


def told_choice(found: Sequence[Candidate], chosen: Candidate, why: str) -> Iterator[str]:
    """Every law and how it fits, and which is taken."""
    rows = [("law", "unknowns", "R²", "residual sd", "error at held-out size", "AICc")]
    for one in found:
        if one.fitted is not None:
            fitted = one.fitted
            rows.append(
                (one.law, str(len(fitted.unknowns)), f"{fitted.r_squared:.4f}", short(fitted.residual_sd),
                 short(one.held_out_error), f"{fitted.aicc:.1f}" if math.isfinite(fitted.aicc) else "–")
            )  # fmt: skip
    yield from columns(rows)
    for one in found:
        if one.fitted is None:
            yield f"{one.law}: not fitted: {one.why_not}"
    yield f"taken: {chosen.law}, {FORMULAS[family(chosen.law)]}: {why}"


def told_laws(of: Mapping[str, Fitted], chosen: Candidate) -> Iterator[str]:
    """The parameters of each language, with intervals, and what is odd about them."""
    names = PARAMETERS[family(chosen.law)]
    has_bound = family(chosen.law) == "sigmoid"
    rows = [("language", "g", *names, *["bound"] * has_bound, "residual sd")]
    fitted = chosen.fitted
    for place, (code, one) in enumerate(of.items()):
        columns_of = [(one.parameters[column], one.draws[:, column]) for column in range(len(names))]
        if has_bound:
            columns_of.append((one.bound, one.draws[:, 0] + one.draws[:, 1]))
        own = fitted.residuals[fitted.points.language == place]
        rows.append((code, short(one.similarity), *(_with(value, *interval(draws)) for value, draws in columns_of),
                     short(math.sqrt(float((own**2).mean())))))  # fmt: skip
    yield from columns(rows)
    for code, one in of.items():
        if one.slope(one.smallest_pairs) * one.slope(one.largest_pairs) <= 0:
            continue
        low, high = interval(one.draws_at(one.largest_pairs) - one.draws_at(one.smallest_pairs))
        if low <= 0 <= high:
            yield f"{code}: whether more pairs help cannot be told: the gain from the smallest size to the largest is {_with(float(one.at(one.largest_pairs) - one.at(one.smallest_pairs)), low, high)}"


def told_sizes(of: Mapping[str, Fitted], sizes: Sequence[int]) -> Iterator[str]:
    """The score at each size, with the interval of a new one."""
    yield f"score at n pairs, and the interval in which a new one lies with {LEVEL:.0%}"
    rows = [("language", *(f"{size:,}" for size in sizes))]
    is_any_far = False
    for code, one in of.items():
        cells = []
        for size in sizes:
            if size == 0 and family(one.law) != "sigmoid":
                cells.append("no value")
                continue
            is_far = size > FAR * one.largest_pairs
            is_any_far |= is_far
            cells.append(_with(float(one.at(size)), *new_score_interval(one, size)) + " *" * is_far)
        rows.append((code, *cells))
    yield from columns(rows)
    if is_any_far:
        yield f"* more than {FAR} times the largest size measured: a guess as far as the law holds so far out"


def told_wanted(of: Mapping[str, Fitted], wanted: Sequence[float]) -> Iterator[str]:
    """The number of pairs for each score."""
    yield f"pairs for a score, with {LEVEL:.0%}"
    rows = [("language", *(f"{score:g}" for score in wanted))]
    for code, one in of.items():
        rows.append((code, *(_told_pairs(one, score) for score in wanted)))
    yield from columns(rows)
    if family(next(iter(of.values())).law) != "log_linear" and any(
        "never" in cell for row in rows for cell in row
    ):
        yield "never: beyond the law's bound, the score at infinitely many pairs"
    if any("*" in cell for row in rows for cell in row):
        yield f"* more than {FAR} times the largest size measured"


def _told_pairs(one: Fitted, score: float) -> str:
    pairs = one.pairs_for(score)
    low, high = interval(one.draws_pairs_for(score))
    if math.isinf(pairs):
        return "never" if math.isinf(low) else f"never [{_count(low)}, never]"
    if pairs < one.smallest_pairs:
        return f"below {one.smallest_pairs:,}"
    return f"{_count(pairs)} [{_count(low)}, {_count(high)}]" + " *" * (pairs > FAR * one.largest_pairs)


def _count(pairs: float) -> str:
    """A number of pairs, to three digits, upwards."""
    if math.isinf(pairs):
        return "never"
    if pairs > MOST_PAIRS:
        return f"over {MOST_PAIRS:.0e}"
    unit = 10 ** max(0, math.floor(math.log10(max(pairs, 1))) - 2)
    return f"{math.ceil(pairs / unit) * unit:,}"


def _with(value: float, low: float, high: float) -> str:
    return f"{short(value)} [{short(low)}, {short(high)}]"


def short(number: float) -> str:
    """Three significant digits of a score or parameter; what is not known is a dash.

    Example:
        >>> [short(number) for number in (31.25, -0.04321, 123456.0, 0.0, math.nan)]
        ['31.2', '−0.0432', '123,000', '0', '–']
    """
    if math.isnan(number):
        return "–"
    if number == 0:
        return "0"
    if math.isinf(number) or not 1e-4 <= abs(number) < 1e9:
        return f"{number:.2e}".replace("-", "−")
    digits = 2 - math.floor(math.log10(abs(number)))
    return f"{round(number, digits):,.{max(digits, 0)}f}".replace("-", "−")


def columns(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """Names at the left, all else at the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for first, *others in rows:
        cells = [cell.rjust(width) for cell, width in zip(others, widths[1:], strict=True)]
        yield "  ".join([first.ljust(widths[0]), *cells]).rstrip()


# ── what is given ─────────────────────────────────────────────────────────────────────────────────────────


def _listed(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


def _pairs(text: str) -> int:
    if not text.isdecimal():
        raise ConfigError(f"--at: '{text}' given; whole numbers from 0 on are allowed, such as 10000,50000")
    return int(text)


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
