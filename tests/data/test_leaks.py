"""Leaks: what is evaluated on is found in training text, and what merely looks alike is not."""

import csv
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxlingua.config import CldrSource, ParallelSource, QASource
from jaxlingua.data.cldr import open_cldr
from jaxlingua.data.leaks import SENTENCE_BYTES, find_leaks, normalize, refuse_leaks
from jaxlingua.data.records import Conversation, Instruction, Pair, Question, Text
from jaxlingua.data.sources import open_source
from jaxlingua.errors import DataError

ENGLISH, GERMAN, CHINESE = (
    "Two young men play football.",
    "Zwei junge Männer spielen Fußball.",
    "两个年轻人在踢足球。",
)
EVALUATED = [Pair(4, {"eng_Latn": ENGLISH, "deu_Latn": GERMAN, "zho_Hans": CHINESE})]
CONTEXT, ASKED = "The river is 90 km long.", "How long is it?"
QUESTION = Question(7, "5706143575f01819005e7952", "eng_Latn", CONTEXT, ASKED, ("90 km",), 13)


def leaks(record, evaluated=EVALUATED):
    return bool(find_leaks({"train": [record]}, {"test": evaluated}))


# ── what is a leak ───────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "record",
    [
        Pair(0, {"eng_Latn": ENGLISH, "fra_Latn": "Autre chose."}),
        Pair(0, {"fra_Latn": "Autre chose.", "deu_Latn": GERMAN}),
        Pair(0, {"eng_Latn": "Something else.", "zho_Hans": CHINESE}),
        Text(0, "deu_Latn", GERMAN),
        Text(0, "deu_Latn", f"Erste Zeile.\n{GERMAN}\nDritte Zeile."),
        Instruction(0, "eng_Latn", "Translate.", GERMAN, "no"),
        Instruction(0, "eng_Latn", "Write a caption.", "", ENGLISH),
        Conversation(0, "eng_Latn", (("user", "Describe it."), ("assistant", ENGLISH))),
        Question(0, "q", "eng_Latn", ENGLISH, "Who?", ("Two",), 0),
    ],
)
def test_a_sentence_on_either_side_of_an_evaluated_pair_is_found_wherever_it_stands(record):
    assert leaks(record)


@pytest.mark.parametrize(
    "text",
    [
        "two young men play football",
        "TWO YOUNG MEN PLAY FOOTBALL!",
        " Two  young\u00a0men play\tfootball.",
        "“Two young men” play football…",
        "Ｔｗｏ young men play foot\u00adball.",
        "\ufeffTwo young men play football.",
    ],
)
def test_case_punctuation_spaces_width_and_invisible_characters_hide_nothing(text):
    assert leaks(Text(0, "eng_Latn", text))


@pytest.mark.parametrize(
    "record",
    [
        QUESTION,
        Question(0, "other", "eng_Latn", CONTEXT, ASKED, ("90",), 13),
        Instruction(0, "eng_Latn", ASKED, CONTEXT, "90 km"),
        Instruction(0, "eng_Latn", CONTEXT, ASKED, "90 km"),
        Conversation(0, "eng_Latn", (("user", f"{CONTEXT}\n{ASKED}"), ("assistant", "90 km"))),
        Text(0, "eng_Latn", f"{CONTEXT} {ASKED}"),
    ],
)
def test_context_and_question_together_are_a_leak(record):
    assert leaks(record, [QUESTION])


def test_the_same_question_in_another_language_is_found_by_its_id():
    translated = Question(
        7, QUESTION.id, "deu_Latn", "Der Fluss ist 90 km lang.", "Wie lang ist er?", ("90 km",), 14
    )
    assert leaks(translated, [QUESTION])


def test_short_pairs_leak_when_both_sides_are_equal_in_the_same_languages():
    evaluated = [Pair(0, {"eng_Latn": "2 km", "deu_Latn": "2 km", "ind_Latn": "2 kilo"})]
    assert leaks(Pair(9, {"eng_Latn": "2 km.", "deu_Latn": "2 KM"}), evaluated)
    assert leaks(Pair(9, {"ind_Latn": "2 kilo", "eng_Latn": "2 km"}), evaluated)
    assert not leaks(Pair(9, {"eng_Latn": "2 km", "fra_Latn": "2 km"}), evaluated)
    assert not leaks(Pair(9, {"eng_Latn": "2 km", "deu_Latn": "2 Meilen"}), evaluated)


# ── what is not ──────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "record",
    [
        Question(0, "7", "eng_Latn", CONTEXT, "Is it long?", ("long",), 19),
        Question(0, "7", "eng_Latn", "Another river is 90 km long.", ASKED, ("90 km",), 17),
        Text(0, "eng_Latn", CONTEXT),
        Instruction(0, "eng_Latn", ASKED, "", "90 km"),
    ],
)
def test_a_context_without_the_question_or_a_question_without_the_context_is_no_leak(record):
    assert not leaks(record, [QUESTION])


def test_ids_that_are_not_hashes_may_meet_by_chance():
    mine = Question(0, "17", "swh_Latn", "Mto ni mrefu.", "Nini ni mrefu?", ("Mto",), 0)
    yours = Question(3, "17", "eng_Latn", CONTEXT, ASKED, ("90 km",), 13)
    assert not leaks(mine, [yours])


def test_a_short_text_alone_is_no_leak():
    assert not leaks(
        Text(0, "eng_Latn", "Thank you."), [Pair(0, {"eng_Latn": "Thank you.", "deu_Latn": "Danke."})]
    )


def test_the_shortest_sentence_is_counted_in_bytes_so_that_chinese_is_not_too_short():
    assert len(CHINESE) < SENTENCE_BYTES <= len(normalize(CHINESE).encode())
    assert leaks(Text(0, "zho_Hans", CHINESE))


def test_numbers_and_vowel_signs_make_another_sentence():
    evaluated = [
        Text(0, "eng_Latn", "The road is 1.5 kilometers long."),
        Text(1, "hin_Deva", "लड़की पढ़ती है और लिखती है"),
    ]
    assert not leaks(Text(0, "eng_Latn", "The road is 15 kilometers long."), evaluated)
    assert not leaks(Text(0, "hin_Deva", "लड़का पढ़ता है और लिखता है"), evaluated)


def test_an_instruction_shared_by_many_records_is_no_leak_by_itself():
    wording = "Schreibe das ohne Abkürzung auf:"
    assert not leaks(
        Instruction(0, "deu_Latn", wording, "5 km", "x"), [Instruction(1, "deu_Latn", wording, "47 mm", "y")]
    )
    assert leaks(
        Instruction(0, "deu_Latn", wording, "47 mm", "x"), [Instruction(1, "deu_Latn", wording, "47 mm", "y")]
    )


@given(st.text(max_size=60))
def test_normalization_twice_is_normalization_once(text):
    assert normalize(normalize(text)) == normalize(text)


# ── what is done about it ────────────────────────────────────────────────────────────────────────────────────────


def training():
    return {
        "news": [
            Pair(n, {"eng_Latn": f"An innocent sentence, number {n}.", "deu_Latn": "…"}) for n in range(3)
        ]
        + [Pair(118, {"eng_Latn": ENGLISH, "deu_Latn": GERMAN})],
        "web": [Text(5, "zho_Hans", CHINESE)],
    }


def test_refuse_names_the_count_and_the_first_case_and_the_way_out():
    with pytest.raises(DataError) as error:
        refuse_leaks(training(), {"flores": EVALUATED}, "refuse")
    assert str(error.value) == (
        "data.sources.news (record 118): 'Two young men play football.' is also in record 4 of 'flores', the first of "
        "2 leaks in 5 training records; what is evaluated must not be trained on; set data.leaks=drop to leave these "
        "records out, or allow to keep them"
    )


def test_a_long_text_is_cut_in_the_message_in_scripts_without_spaces_too():
    with pytest.raises(DataError, match=r"'长{59}…' is also in record 0 of 'flores'"):
        refuse_leaks(
            {"web": [Text(0, "zho_Hans", "长" * 80)]}, {"flores": [Text(0, "zho_Hans", "长" * 80)]}, "refuse"
        )


def test_drop_gives_the_records_to_leave_out_and_counts_them_by_source():
    found = refuse_leaks(training(), {"flores": EVALUATED}, "drop")
    assert (found.dropped("news"), found.dropped("web"), found.dropped("other")) == ({118}, {5}, set())
    assert (
        found.describe() == "leaks: 2 of 5 training records equal evaluation text, left out (news 1, web 1)"
    )


def test_allow_keeps_them_and_says_so():
    found = refuse_leaks(training(), {"flores": EVALUATED}, "allow")
    assert found.dropped("news") == set()
    assert found.describe().startswith("leaks: 2 of 5 training records equal evaluation text, kept")


def test_without_leaks_every_mode_is_content():
    for mode in ("refuse", "drop", "allow"):
        found = refuse_leaks(training(), {"flores": []}, mode)
        assert found.describe() == "leaks: none of 5 training records equals evaluation text"


# ── real and made text ───────────────────────────────────────────────────────────────────────────────────────────


def test_what_cldr_holds_out_is_not_in_what_it_trains_on_whatever_the_kind():
    languages = ["eng_Latn", "deu_Latn", "spa_Latn", "ind_Latn", "rus_Cyrl"]
    sources = {
        kind: open_cldr(kind, CldrSource(languages=languages, yields=kind, records=2000))
        for kind in ("translation", "qa", "instruction")
    }
    training = {kind: source.records("train") for kind, source in sources.items()}
    evaluated = {kind: sources[kind].records("held_out") for kind in ("translation", "qa")}
    assert find_leaks(training, evaluated) == []


def test_captions_for_training_are_not_the_official_test_captions(shared_data):
    columns = {"eng_Latn": "en", "deu_Latn": "de", "fra_Latn": "fr"}
    train, test = (
        open_source(
            name,
            ParallelSource(path=f"multi30k/{name}.jsonl", languages=list(columns), columns=columns),
            str(shared_data),
        ).records("all")
        for name in ("train", "test_2016_flickr")
    )
    assert find_leaks({"train": train}, {"test": test}) == []
    assert len(find_leaks({"train": [*train, *test]}, {"test": test})) == len(test)


def test_a_question_set_in_one_language_leaks_into_the_same_set_in_another(shared_data):
    english, chinese = (
        open_source(
            code, QASource(path=f"xquad/xquad.{code}.json", language=language), str(shared_data)
        ).records("all")
        for code, language in (("en", "eng_Latn"), ("zh", "zho_Hans"))
    )
    assert len(find_leaks({"en": english}, {"zh": chinese})) == len(english)


def test_the_known_leak_between_translation_and_sentiment_is_found(shared_data):
    """831 Minangkabau sentiment sentences are in the translation training set (its README); the short ones pass."""
    folder = shared_data / "nusawrites"
    with open(folder / "nusa_kalimat-mt-min-train.csv", newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    with open(folder / "nusa_kalimat-senti-min-test.csv", newline="", encoding="utf-8") as file:
        sentiment = [row["text"] for row in csv.DictReader(file)]
    translation = [
        Pair(n, {"ind_Latn": row["ind_text"], "min_Latn": row["tgt_text"]}) for n, row in enumerate(rows)
    ]
    evaluated = [Text(n, "min_Latn", text) for n, text in enumerate(sentiment)]
    found = {leak.evaluation_index for leak in find_leaks({"mt": translation}, {"sentiment": evaluated})}
    verbatim = {row["tgt_text"] for row in rows}
    equal = {n for n, text in enumerate(sentiment) if text in verbatim}
    short = {n for n in equal if len(normalize(sentiment[n]).encode()) < SENTENCE_BYTES}
    assert len(equal) == 831
    assert equal - short <= found
    assert len(short) < 30


def test_translation_sets_that_share_their_english_are_caught(shared_data):
    """Rows of one parallel set in two files: the training target language is not the evaluated one."""

    def rows(language):
        with open(shared_data / "tico19" / f"{language}.jsonl", encoding="utf-8") as file:
            return [json.loads(line) for line in file]

    training = [Pair(n, {"eng_Latn": row["src"], "swh_Latn": row["tgt"]}) for n, row in enumerate(rows("sw"))]
    evaluated = [
        Pair(n, {"eng_Latn": row["src"], "hin_Deva": row["tgt"]}) for n, row in enumerate(rows("hi"))
    ]
    assert len(find_leaks({"sw": training}, {"hi": evaluated})) > 0.9 * len(training)
