"""Text that is there twice: counted within a source and between entries, against a comparison of all with all."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import combinations

from hypothesis import given
from hypothesis import strategies as st

from jaxlingua.config import TextSource
from jaxlingua.data.leaks import normalize
from jaxlingua.data.records import Conversation, Instruction, Pair, Question, Record, Text
from jaxlingua.tokens.repeats import SENTENCE_WORDS, describe_repeats, describe_shared
from jaxlingua.words import segment


@dataclass
class Given:
    """A source of given records."""

    all_records: list
    name: str = "given"
    config: TextSource = field(default_factory=lambda: TextSource(path="x", language="eng_Latn"))
    languages: list[str] = field(default_factory=lambda: ["eng_Latn"])
    fingerprint: str = ""
    skipped: dict[str, int] = field(default_factory=dict)

    def records(self, split: str) -> list[Record]:
        return self.all_records if split == "train" else []


TEXTS = [
    "The dog sees a red house today.",
    "the dog sees a RED house — today",
    "A cat.",
    "a cat",
    "",
    "猫坐在垫子上看着狗",
]


@given(st.lists(st.sampled_from(TEXTS), max_size=12))
def test_repeated_records_are_those_that_a_comparison_with_all_earlier_ones_finds(texts: list[str]):
    told = describe_repeats(Given([Text(i, "eng_Latn", text) for i, text in enumerate(texts)]))
    keys = [normalize(text) for text in texts]
    assert told["repeated"] == sum(key in keys[:i] for i, key in enumerate(keys))
    assert (
        told["repeated examples"] == [t for i, t in enumerate(texts) if keys[i] in keys[:i] if t][:3]
        or "" in texts
    )


def test_records_are_the_same_only_if_all_their_texts_are():
    records: list[Sequence[Record]] = [
        [Pair(0, {"eng_Latn": "a", "deu_Latn": "b"}), Pair(1, {"eng_Latn": "a", "deu_Latn": "c"})],
        [Instruction(0, "eng_Latn", "a", "b", "c"), Instruction(1, "eng_Latn", "a", "", "c")],
        [Question(0, "x", "eng_Latn", "a", "b", ("a",), 0), Question(1, "y", "eng_Latn", "a", "c", ("a",), 0)],
        [Conversation(0, "eng_Latn", (("user", "a"),)), Conversation(1, "eng_Latn", (("user", "b"),))],
    ]  # fmt: skip
    for first, other in records:
        assert describe_repeats(Given([first, other]))["repeated"] == 0
        assert describe_repeats(Given([first, other, first, other]))["repeated"] == 2


@given(st.dictionaries(st.sampled_from("abcd"), st.lists(st.sampled_from(TEXTS), max_size=8), min_size=1))
def test_shared_text_is_what_the_sets_of_two_entries_have_in_common(entries: dict[str, list[str]]):
    sets = {name: {normalize(text) for text in texts} for name, texts in entries.items()}
    expected = {}
    for first, other in combinations(entries, 2):
        common = [key for key in sets[first] & sets[other] if len(segment(key).words) >= SENTENCE_WORDS - 1]
        if common:
            expected[first, other] = (
                len(common),
                len(common) / len(sets[first]),
                len(common) / len(sets[other]),
            )
    told = describe_shared(entries)
    found = {
        (r["entry"], r["other entry"]): (r["texts"], r["share of entry"], r["share of other"]) for r in told
    }
    assert found == expected
    assert [row["texts"] for row in told] == sorted((row["texts"] for row in told), reverse=True)
    assert all(normalize(row["example"]) in sets[row["entry"]] & sets[row["other entry"]] for row in told)


def test_short_text_in_common_is_not_told():
    assert describe_shared({"a": ["2 km", "Thank you."], "b": ["2 km", "thank you"]}) == []
