"""Text that is not what its language says: found in every kind of record, and told in one line."""

from collections.abc import Callable, Sequence

import pytest

from jaxlingua.command_line import load_config
from jaxlingua.data.records import Conversation, Instruction, Pair, Question, Record, Text
from jaxlingua.data.sources import open_source
from jaxlingua.tokens import faults
from jaxlingua.tokens.faults import GARBLED, describe_faults
from jaxlingua.tokens.summary import FAULTS, summarize
from tests.tokens.test_repeats import Given

LINES = {
    "eng_Latn": [
        "The baker opens his shop at six, and by seven all the bread is gone.",
        "We walked along the river until it was too dark to see the other side.",
        "My grandmother keeps her letters in a wooden box under the stairs.",
        "If it rains tomorrow, the children will have to play in the kitchen.",
    ],
    "deu_Latn": [
        "Der Bäcker öffnet um sechs, und um sieben ist schon kein Brot mehr übrig.",
        "Wir gingen den Fluss entlang, bis es für die andere Seite zu dunkel wurde.",
        "Meine Großmutter hebt ihre schönen Briefe in einer Kiste unter der Treppe auf.",
        "Wenn es morgen regnet, müssen die Kinder in der Küche spielen.",
    ],
    "zho_Hans": [
        "面包师六点开门，到七点面包就全卖完了。",
        "我们沿着河边走，一直走到天黑得看不见对岸。",
        "我的奶奶把她的信放在楼梯下面的木箱里。",
        "如果明天下雨，孩子们就得在厨房里玩。",
    ],
}
ENGLISH, GERMAN, CHINESE = LINES.values()


def of_pairs(first: Sequence[str], other: Sequence[str], language: str) -> Given:
    """Lines in a column of English, and others in one of `language`."""
    pairs = [Pair(i, {"eng_Latn": a, language: b}) for i, (a, b) in enumerate(zip(first, other, strict=True))]
    return Given(pairs, languages=["eng_Latn", language])


def misread(lines: Sequence[str], encoding: str) -> list[str]:
    return [line.encode().decode(encoding, "replace") for line in lines]


def told(source: Given) -> dict[tuple[str, str], float]:
    return {(row["language"], row["fault"]): row["share of texts"] for row in describe_faults(source)}


@pytest.mark.parametrize("language", ["deu_Latn", "zho_Hans"])
def test_clean_text_has_no_fault(language: str):
    assert describe_faults(of_pairs(ENGLISH, LINES[language], language)) == []


def test_the_demo_has_no_fault():
    config = load_config("configs/demo.yaml", [])
    for name, source in config.data.sources.items():
        assert describe_faults(open_source(name, source, config.data.folder)) == []


def test_columns_that_are_swapped_are_told_in_both_languages():
    assert told(of_pairs(GERMAN, ENGLISH, "deu_Latn")) == {
        ("eng_Latn", "German"): 1.0,
        ("deu_Latn", "English"): 1.0,
    }
    assert told(of_pairs(CHINESE, ENGLISH, "zho_Hans")) == {
        ("eng_Latn", "in Han letters"): 1.0,
        ("zho_Hans", "in Latin letters"): 1.0,
    }


def test_a_side_that_is_the_first_again_is_told_in_every_language():
    """The identifier does not know Sundanese; that this is the English text needs no identifier."""
    assert told(of_pairs(ENGLISH, ENGLISH, "sun_Latn")) == {("sun_Latn", "the same as English"): 1.0}
    names = ["Paris", "Berlin", "Jakarta"]
    assert told(of_pairs(names, names, "sun_Latn")) == {}


@pytest.mark.parametrize("encoding", ["latin-1", "cp1252", "ascii"])
@pytest.mark.parametrize("language", ["deu_Latn", "zho_Hans"])
def test_text_that_was_read_in_another_encoding_is_garbled(language: str, encoding: str):
    source = of_pairs(ENGLISH, misread(LINES[language], encoding), language)
    assert told(source) == {(language, GARBLED): 1.0}


def test_accents_and_quotes_of_many_languages_are_not_garbled():
    fine = [
        "Er sagte: „Das macht Spaß“, und ging.", "«Voilà», dit-il à l’évêque…", "NÃO, não – é “assim” 5 £.",
        "Ðá vår ærlig, þórs ÍSLAND", "ĐÃ ĐẾN, Â u Ô tô", "Él: ¿Qué? ¡Ándale!", "Øl på fløde—«blåbær»",
    ]  # fmt: skip
    found = {
        row["fault"] for row in describe_faults(Given([Text(i, "x_Latn", t) for i, t in enumerate(fine)]))
    }
    assert GARBLED not in found


def test_text_in_another_script_is_told_where_the_identifier_knows_nothing():
    assert told(of_pairs(ENGLISH, CHINESE, "jav_Latn")) == {("jav_Latn", "in Han letters"): 1.0}
    assert told(of_pairs(ENGLISH, CHINESE, "bug_Latn")) == {("bug_Latn", "in Han letters"): 1.0}
    assert told(of_pairs(ENGLISH, GERMAN, "bug_Latn")) == {}


@pytest.mark.parametrize(
    "record",
    [
        lambda i, text: Instruction(i, "deu_Latn", "Sag etwas.", "", text),
        lambda i, text: Conversation(i, "deu_Latn", (("user", GERMAN[0]), ("assistant", text))),
        lambda i, text: Question(i, str(i), "deu_Latn", text, "Was?", (text[:3],), 0),
        lambda i, text: Text(i, "deu_Latn", text),
    ],
    ids=["instruction", "conversation", "question", "text"],
)
def test_every_kind_of_record_is_looked_at(record: Callable[[int, str], Record]):
    assert told(Given([record(i, text) for i, text in enumerate(GERMAN)])) == {}
    mixed = [record(i, text) for i, text in enumerate([*GERMAN[:3], ENGLISH[3]])]
    assert told(Given(mixed)) == {("deu_Latn", "English"): 0.25}
    (row,) = describe_faults(Given(mixed))
    assert (row["texts"], row["looked at"], row["example"]) == (1, 4, ENGLISH[3])


def test_of_many_records_some_of_each_language_are_looked_at(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(faults, "LOOKED_AT", 10)
    records = [Text(i, "deu_Latn", ENGLISH[i % 4]) for i in range(95)]
    records += [Text(i, "eng_Latn", GERMAN[i % 4]) for i in range(95, 98)]
    looked_at = {row["language"]: row["looked at"] for row in describe_faults(Given(records))}
    assert looked_at == {"deu_Latn": 10, "eng_Latn": 3}


def test_many_faults_are_a_warning_and_a_few_are_not():
    def warned(language: str, fault: str, share: float) -> list[str]:
        row = {"language": language, "fault": fault, "share of texts": share}
        source = {"name": "verses", "languages": [], "skipped": {}, "train": 1, "held_out": 0, "repeated": 0}
        facts = {"sources": [source | {"faults": [row]}], "leaks": {"count": 0}, "shared": []}
        facts |= {"fertility": [], "tokenizer": {"pieces": 1}, "stages": []}
        return summarize(facts).warnings

    line = "not what its language says: 100.0 % of verses in Sundanese are the same as English"
    assert warned("sun_Latn", "the same as English", 1.0) == [line]
    assert warned("sun_Latn", "English", FAULTS - 0.01) == []
    assert warned("eng_Latn", GARBLED, 0.05) == [
        f"not what its language says: 5.0 % of verses in English are {GARBLED}"
    ]
    assert warned("eng_Latn", GARBLED, 0.02) == []
