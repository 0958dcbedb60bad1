"""Records are values: they cannot be changed, and compare by what they hold."""

import dataclasses

import pytest

from jaxlingua.data.records import Conversation, Instruction, Pair, Question, Text

RECORDS = [
    Instruction(0, "eng_Latn", "Say hello.", "", "Hello."),
    Pair(0, {"eng_Latn": "Hello.", "deu_Latn": "Hallo."}),
    Question(0, "q0", "eng_Latn", "Ann is at home.", "Where is Ann?", ("at home",), 7),
    Conversation(0, "eng_Latn", (("user", "Hello."), ("assistant", "Hi."))),
    Text(0, "eng_Latn", "Hello."),
]


@pytest.mark.parametrize("record", RECORDS, ids=lambda record: type(record).__name__)
def test_a_record_cannot_be_changed_and_equals_its_copy(record):
    with pytest.raises(dataclasses.FrozenInstanceError):
        record.index = 1
    assert dataclasses.replace(record) == record
    assert dataclasses.replace(record, index=1) != record


@pytest.mark.parametrize("record", RECORDS, ids=lambda record: type(record).__name__)
def test_a_record_has_no_dictionary_of_its_own_since_millions_are_held(record):
    assert not hasattr(record, "__dict__")
