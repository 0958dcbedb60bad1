"""Answers that are numbers: the last number of a text, however its language writes it."""

import functools
import unicodedata
from collections.abc import Sequence
from decimal import Decimal, InvalidOperation

import regex

from jaxlingua.errors import DataError
from jaxlingua.eval.metrics.measured import Measured, check_counts, mean_of

_ARABIC_GROUP, _ARABIC_DECIMAL = "٬", "٫"
# Spaces, apostrophes, the Arabic mark and the wide comma stand between groups of three digits or else are no
# part of a number; point and comma, between groups in one language and before decimals in another.
_GROUP = rf"['’ \u00a0\u2009\u202f，{_ARABIC_GROUP}]"
_MARK = rf"[.,．{_ARABIC_DECIMAL}]"
_DIRECTION = r"[\u200e\u200f\u061c]*"
_NUMBER = regex.compile(
    # A minus where neither letter nor digit stands before it (covid-19, 10-5), on the number or its currency.
    rf"(?<minus>(?<![\p{{L}}\p{{N}}\p{{M}}])[-\u2212－]{_DIRECTION}\p{{Sc}}?{_DIRECTION})?"
    rf"(?<digits>[0-9]{{1,3}}(?<group>{_GROUP})[0-9]{{3}}(?:(?P=group)[0-9]{{3}})*(?![0-9])(?:{_MARK}[0-9]+)?"
    # .5 where the point ends no word, list or dots
    rf"|(?<![\p{{L}}\p{{N}}\p{{M}}.,．{_ARABIC_DECIMAL}])[.．{_ARABIC_DECIMAL}][0-9]+(?!{_MARK}?[0-9])"
    rf"|[0-9]+(?:{_MARK}[0-9]+)*)"
)
# 1,000,000 and 1.000.000, and 10,00,000 as in India
_GROUPED = regex.compile(r"[1-9]\d{0,2}(?:(?<mark>[.,])\d{2,3})(?:(?P=mark)\d{2,3})*(?<=\d{3})")


def number_metrics(predictions: Sequence[str], targets: Sequence[Sequence[str]]) -> list[Measured]:
    """Whether the last number of an answer is the target; a text without numbers is wrong.

    Targets are written as in the published files of MGSM, whatever the language: 5,600 or 5600, and a point
    before decimals.

    Raises: DataError where predictions and targets differ in number, or a target is no number.
    """
    check_counts(predictions, targets)
    wanted = [{_target(target, index) for target in them} for index, them in enumerate(targets)]
    scores = [float(bool(last_number(given) & them)) for given, them in zip(predictions, wanted, strict=True)]
    return [mean_of("exact_number", scores, "take:last|digits:native|1.000:either|targets:1,000.5")]


def last_number(text: str) -> frozenset[Decimal]:
    """What the last number of a text may mean; empty where it has none.

    Digits may be those of any script that Python knows. One point or comma before three digits has two
    meanings, of which a right one is enough: 1.000 is a thousand in German and one in English. Other marks
    have one.

    Example:
        >>> sorted(last_number("5-3 = 2, so he pays −$1,234.50.")), sorted(last_number("also 1.000 €"))
        ([Decimal('-1234.50')], [Decimal('1.000'), Decimal('1000')])
        >>> sorted(last_number("कुल १,००,००० रुपये"))
        [Decimal('100000')]
    """
    # The pattern meets 0 to 9 alone: regex takes more characters for digits than Python knows the worth of.
    numbers = list(_NUMBER.finditer("".join(map(_ascii_digit, text))))
    if not numbers:
        return frozenset()
    found = numbers[-1]
    readings = _readings(found["digits"], is_grouped=found["group"] is not None)
    return frozenset(-number for number in readings) if found["minus"] else readings


def _readings(written: str, *, is_grouped: bool) -> frozenset[Decimal]:
    plain = _ascii(written)
    marks = [char for char in plain if char in ".,"]
    if not marks:
        return frozenset([Decimal(plain)])
    whole, _, decimals = plain.rpartition(marks[-1])
    as_decimal = frozenset([Decimal(f"{whole.replace(',', '').replace('.', '')}.{decimals}")])
    if is_grouped or _ARABIC_DECIMAL in written or (marks[-1] not in marks[:-1] and len(set(marks)) == 2):
        return as_decimal
    can_be_groups = _GROUPED.fullmatch(plain) is not None
    if len(marks) == 1:
        return as_decimal | {Decimal(whole + decimals)} if can_be_groups else as_decimal
    # Several marks of one kind: groups, or else a date or a list, whose last part it is.
    return frozenset([Decimal(plain.replace(marks[-1], "") if can_be_groups else decimals)])


def _ascii(written: str) -> str:
    """A number with the digits 0 to 9, point and comma; marks that only separate groups are gone."""
    marks = {"．": ".", _ARABIC_DECIMAL: "."}
    return "".join(
        _ascii_digit(char) if char.isdecimal() else marks.get(char, char if char in ".,-" else "")
        for char in written
    )


def _ascii_digit(char: str) -> str:
    return str(unicodedata.decimal(char)) if char.isdecimal() else char


@functools.cache
def _target(text: str, index: int) -> Decimal:
    try:
        return Decimal(_ascii(text.strip().replace("\u2212", "-")).replace(",", ""))
    except InvalidOperation:
        raise DataError(
            f"eval: item {index} has the target '{text}'; exact_number needs a number such as 1,000 or 2.5; "
            "mend the file"
        ) from None
