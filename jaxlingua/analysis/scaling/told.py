"""What is printed: the scores, how each law fits, the law of each language, predictions."""

import math
from collections.abc import Iterator, Mapping, Sequence

from jaxlingua.analysis.scaling.choice import Candidate
from jaxlingua.analysis.scaling.doubts import MANY, lack_of_fit, missed_by, turns
from jaxlingua.analysis.scaling.intervals import LEVEL, interval, new_score_interval
from jaxlingua.analysis.scaling.laws import FORMULAS, PARAMETERS, Fitted, family
from jaxlingua.analysis.scaling.table import Scores

FAR = 2  # times the largest size measured, beyond which a prediction is marked
MOST_PAIRS = 1e12  # that are told as a number
ENOUGH_SIZES = 5  # of a language, from which on intervals hold what docs/scaling.md tells
UNTOLD = "cannot be told"
# What it means where a parameter lies at a limit of its.
LIMITS = {
    "b": "0.01 is nearly the log-linear law, with c far beyond any score; at 2 the smallest sizes gain all",
    "halfway": "far below the sizes it is nearly a power law, b = 1/width; at the largest no end is in sight",
    "width": "0.1 is nearly a step between two sizes; 10 is nearly the log-linear law",
}


def told_scores(scores: Scores) -> Iterator[str]:
    """What the laws are fitted to."""
    points = scores.points
    better = {True: "higher", False: "lower", None: "neither higher nor lower"}[scores.is_higher_better]
    seeds = f"{scores.seeds} seed{'s' * (scores.seeds != 1)}"
    languages = f"{len(points.languages)} language{'s' * (len(points.languages) != 1)}"
    sizes = f"{points.pairs.min():,.0f} to {points.pairs.max():,.0f} pairs"
    yield (
        f"{scores.metric} of {scores.task}: {len(points.score)} scores, {languages}, {sizes}, {seeds}; "
        f"{better} is better"
    )
    if scores.base:
        yield f"{len(scores.base)} more at 0 pairs, which no law is fitted to; see --plot"
    if not scores.is_similarity_measured:
        yield "no similarity given: g is 1 for every language"
    sizes_of = [len(set(points.pairs[points.language == place])) for place in range(len(points.languages))]
    if (fewest := min(sizes_of)) < ENOUGH_SIZES:
        yield (
            f"{points.languages[sizes_of.index(fewest)]} has {fewest} sizes alone: below {ENOUGH_SIZES}, the "
            f"law can hardly be told and the intervals are often too narrow; add sizes"
        )


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


def told_doubts(scores: Scores, found: Sequence[Candidate], chosen: Candidate) -> Iterator[str]:
    """Why the law that is taken may be none: a line for each reason, for laws.json too."""
    tested = lack_of_fit(chosen.fitted)
    if tested and tested.is_doubted:
        others = {one.law: lack_of_fit(one.fitted) for one in found if one.fitted and one is not chosen}
        follow = {law: other.p for law, other in others.items() if other and not other.is_doubted}
        what = f"{chosen.law} does not follow" if follow else "no law follows"
        but = [f"{law} does (p = {p:.2g}), see --law {law}" for law, p in follow.items()][:1]
        yield (
            f"{what} these scores: off by {short(tested.off_by)}, seeds differ by "
            f"{short(tested.seeds_differ_by)} (lack of fit, p = {tested.p:.2g})"
            f"{'; ' if but else ''}{''.join(but)}"
        )
    for turn in turns(scores.points):
        first, middle, last = (
            f"{short(mean)} at {pairs:,}" for mean, pairs in zip(turn.means, turn.pairs, strict=True)
        )
        ways = ("rise", "fall") if turn.means[1] > turn.means[0] else ("fall", "rise")
        yield (
            f"{turn.language}: its scores {ways[0]} and then {ways[1]}, by more than the noise: {first} "
            f"pairs, {middle}, {last}; every law goes one way"
        )
    if not tested and (times := missed_by(chosen.fitted, chosen.held_out_error)) > MANY:
        yield (
            f"{chosen.law} missed the held-out size by {short(chosen.held_out_error)}, "
            f"{times:.0f} times what it leaves of the smaller ones; with several seeds it could be tested"
        )


def told_laws(scores: Scores, of: Mapping[str, Fitted], chosen: Candidate) -> Iterator[str]:
    """The parameters of each language, with intervals, and what is odd about them."""
    names = PARAMETERS[family(chosen.law)]
    has_bound, has_side = family(chosen.law) == "sigmoid", scores.is_higher_better is not None
    rows = [("language", "g", *names, *["bound"] * has_bound, "residual")]
    fitted = chosen.fitted
    for place, (code, one) in enumerate(of.items()):
        of_draws = [(one.parameters[column], one.draws[:, column]) for column in range(len(names))]
        if has_bound:
            of_draws.append((one.bound, one.draws[:, 0] + one.draws[:, 1]))
        own = fitted.residuals[fitted.points.language == place]
        cells = [_with(value, *interval(draws)) for value, draws in of_draws]
        rows.append((code, short(one.similarity), *cells, short(math.sqrt(float((own**2).mean())))))
    yield from columns(rows)
    for code, one in of.items():
        smallest, largest = one.smallest_pairs, one.largest_pairs
        gain, low, high = _gain(one)
        from_to = f"from {smallest:,} to {largest:,} pairs the score changes by {_with(gain, low, high)}"
        if low <= 0 <= high:
            effect = "help" if has_side else "change it"
            yield f"{code}: whether more pairs {effect} cannot be told: {from_to}"
        elif has_side and (gain > 0) != scores.is_higher_better:
            yield f"{code}: more pairs make it worse: {from_to}"
    for name, value in fitted.form.at_limit(fitted.unknowns).items():
        yield f"{name} is at its limit, {short(value)}: {LIMITS[name]}"


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


def told_wanted(
    of: Mapping[str, Fitted], wanted: Sequence[float], is_higher_better: bool | None
) -> Iterator[str]:
    """The number of pairs for each score."""
    yield f"pairs for a score, with {LEVEL:.0%}"
    rows = [("language", *(f"{score:g}" for score in wanted))]
    for code, one in of.items():
        rows.append((code, *(_told_pairs(one, score, is_higher_better) for score in wanted)))
    yield from columns(rows)
    cells = {cell for row in rows[1:] for cell in row[1:]}
    if family(next(iter(of.values())).law) != "log_linear" and any("never" in cell for cell in cells):
        yield "never: the score is beyond what the law comes to with infinitely many pairs"
    if any("*" in cell for cell in cells):
        yield f"* more than {FAR} times the largest size measured"
    if UNTOLD in cells:
        yield f"{UNTOLD}: more pairs do not surely change the score, or they make it worse"


def _told_pairs(one: Fitted, score: float, is_higher_better: bool | None) -> str:
    gain, least, most = _gain(one)
    is_worse = is_higher_better is not None and (gain > 0) != is_higher_better
    if least <= 0 <= most or is_worse:
        return UNTOLD
    pairs = one.pairs_for(score)
    low, high = interval(one.draws_pairs_for(score))
    if math.isinf(pairs):
        return "never" if math.isinf(low) else f"never [{_count(low)}, never]"
    if pairs < one.smallest_pairs:
        return f"below {one.smallest_pairs:,}"
    return f"{_count(pairs)} [{_count(low)}, {_count(high)}]" + " *" * (pairs > FAR * one.largest_pairs)


def _gain(one: Fitted) -> tuple[float, float, float]:
    """How the score changes from the smallest size to the largest, and the interval of that."""
    smallest, largest = one.smallest_pairs, one.largest_pairs
    low, high = interval(one.draws_at(largest) - one.draws_at(smallest))
    return float(one.at(largest) - one.at(smallest)), float(low), float(high)


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
