"""Numbers as languages write them."""

import sys
from decimal import Decimal

import pytest

from jaxlingua.errors import DataError
from jaxlingua.eval.metrics.numbers import last_number, number_metrics

RIGHT = [  # an answer and its target
    ("18", "18"),
    ("The answer is 1,000.", "1000"),
    ("1000", "1,000"),
    ("So she needs 3 + 4 = 7 eggs, that is 7.", "7"),
    ("Er zahlt also 70.000 US-Dollar.", "70000"),
    ("1.234.567,8 Euro", "1234567.8"),
    ("$1,234,567.80", "1234567.8"),
    ("il reste 276\u202f000 euros", "276,000"),
    ("получаем 114 200 рублей", "114,200"),
    ("1'000'000 Franken", "1000000"),
    ("कुल १,००,००० रुपये", "100000"),
    ("মোট ৫,৬০০ টাকা", "5600"),
    ("المجموع ٢٬١٢٥ دولارًا", "2,125"),
    ("النتيجة ٣٫٥", "3.5"),
    ("ราคา ๑๒๓ บาท", "123"),
    ("答えは３，０００円です。", "3000"),
    ("所以答案是18，共2天。", "2"),
    ("The balance is -5", "-5"),
    ("minus: −$1,234.50", "-1234.5"),
    ("-\u200e٥", "-5"),
    ("of 10-5", "5"),
    ("10 - 5 = 5", "5"),
    ("as covid-19", "19"),
    ("on 12.05.2024", "2024"),
    ("0.50", "0.5"),
    ("3,5 Liter", "3.5"),
    ("x = 4.0", "4"),
    ("50%", "50"),
    ("1.000", "1"),  # and 1000 in German, of which either may be meant
    ("ses 1.000 pièces", "1000"),
    (".5", "0.5"),
    ("it is -.25 of $.50", "0.5"),
    ("the change is -.25.", "-0.25"),
    ("النتيجة ٫٥", "0.5"),
    ("so it is...5", "5"),
    ("see No.5", "5"),
    ("1 .5.6", "5.6"),
    ("7 \U00010d41", "7"),  # a digit of Unicode 16, younger than this Python
]
WRONG = [
    ("", "0"),
    ("eighteen", "18"),
    ("18 eggs in 2 boxes", "18"),
    ("5", "-5"),
    ("-5", "5"),
    ("5,600", "56"),
    ("1,00", "100"),
    ("2024 500", "2024500"),
    ("1234", "234"),
    ("5.6", "5,600"),  # targets are written in one way
]


@pytest.mark.parametrize(("answer", "target"), RIGHT)
def test_the_last_number_of_an_answer_is_its_target(answer, target):
    assert number_metrics([answer], [(target,)])[0].values == [100.0], last_number(answer)


@pytest.mark.parametrize(("answer", "target"), WRONG)
def test_another_number_or_none_is_wrong(answer, target):
    assert number_metrics([answer], [(target,)])[0].values == [0.0], last_number(answer)


def test_only_three_digits_behind_one_mark_have_two_readings():
    assert last_number("1.000") == {Decimal(1), Decimal(1000)}
    for unequivocal in ("1.00", "0.125", "1,000.5", "1,000,000", "1\u00a0000", "1000", "٢٫١٢٥", "٢٬١٢٥"):
        assert len(last_number(unequivocal)) == 1
    assert last_number("none") == set()


@pytest.mark.slow
def test_every_character_of_unicode_can_be_read():
    """regex knows digits that Python does not; \U00010d40 ended an evaluation with a traceback."""
    for start in range(0, sys.maxunicode, 64):
        last_number(" ".join(map(chr, range(start, start + 64))))
    assert last_number("\U00010d40") in (set(), {Decimal(0)})


def test_targets_of_mgsm_are_all_numbers_and_match_themselves(shared_data):
    for path in sorted((shared_data / "mgsm").glob("*.tsv")):
        targets = [line.split("\t")[1] for line in path.read_text("utf-8").splitlines()]
        assert number_metrics(targets, [(target,) for target in targets])[0].value == 100.0


def test_a_target_that_is_no_number_is_refused():
    with pytest.raises(DataError, match="item 1 has the target 'eight'; exact_number needs a number such as"):
        number_metrics(["8", "8"], [("8",), ("eight",)])


def test_the_signature_tells_the_rules():
    signature = number_metrics(["1"], [("1",)])[0].signature
    assert signature == "metric:exact_number|take:last|digits:native|1.000:either|targets:1,000.5"
