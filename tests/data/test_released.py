"""What the released code does to rows and replay."""

import numpy as np
import pytest

from jaxlingua.data.records import Instruction
from jaxlingua.data.released import as_released, released_split
from jaxlingua.errors import DataError


@pytest.mark.parametrize(("slots", "held_out"), [(32_144, 1000), (18_081, 1000), (500, 50), (9, 0), (0, 0)])
def test_every_row_is_either_learned_or_held_out(slots, held_out):
    train, kept = released_split(slots)
    assert (len(train), len(kept)) == (slots - held_out, held_out)
    assert sorted([*train, *kept]) == list(range(slots))
    assert (np.diff(train) > 0).all()
    assert (np.diff(kept) > 0).all()


def test_the_held_out_rows_are_spread_over_all_and_always_the_same():
    _, kept = released_split(32_144)
    assert kept[:5].tolist() == [3, 11, 20, 92, 111]
    assert np.histogram(kept, 10, (0, 32_144))[0].min() > 70


def test_an_instruction_is_replayed_whole_without_end():
    example = as_released(Instruction(3, "eng_Latn", "Add.", "1 and 2", "3"), source="xp3")
    assert example.text == "Add.\n1 and 2 3"
    assert example.answers == ((0, len(example.text)),)
    assert (example.source, example.index, example.language, example.ends) == ("xp3", 3, "eng_Latn", False)
    assert as_released(Instruction(0, "eng_Latn", "Say yes.", "", "yes"), source="xp3").text == "Say yes. yes"


def test_an_instruction_without_an_answer_is_refused():
    with pytest.raises(DataError) as caught:
        as_released(Instruction(3, "eng_Latn", "Add.", "", " "), source="xp3")
    assert str(caught.value) == (
        "xp3 (record 3): empty answer; an example needs a prompt and an answer; mend the record or leave it out"
    )
