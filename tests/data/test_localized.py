"""Localized frames: words of the answer's language, names of languages in it, and nothing in its place."""

import re

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from jaxlingua import identify
from jaxlingua.config import DataConfig
from jaxlingua.data.chat_template import as_message
from jaxlingua.data.records import Conversation, Instruction, Pair, Question, Text
from jaxlingua.data.slots import fill, parse_slots, slots_of
from jaxlingua.data.templates import render
from jaxlingua.data.wordings import OURS, load_wording, wording_of
from jaxlingua.errors import ConfigError
from jaxlingua.eval.tasks.library import read_prompts, read_task_file

ENTRIES = yaml.safe_load((OURS / "localized.yaml").read_text("utf-8"))
LANGUAGES = list(ENTRIES)
LOCALIZED = {template: wording_of(template, "localized") for template in ("alpaca", "short", "raw")}
# A wording of fewer letters is too short to identify; a language is likely from here on.
ENOUGH_LETTERS, LIKELY = 20, 0.1
HOSTILE = "{input} {0} {target_language} {question} {{}} {"


def one(record, template="alpaca", *, training=False, direction=None):
    return render(record, LOCALIZED[template], source="entry", training=training, direction=direction)


def pair(source, target, index=0):
    return Pair(index, {source: "Two men.", target: "x"}), (source, target)


def all_texts(language):
    entry = ENTRIES[language]
    return [*entry["alpaca"].values(), *entry["translation"], *entry["qa"].values()]


# ── frames ──────────────────────────────────────────────────────────────────────────────────────────────────

GOLDEN = {
    "arb_Arab": (
        "فيما يلي تعليمات تصف مهمة، ومعها مُدخل فيه معلومات إضافية. اكتب ردًا يؤدي المهمة كما ينبغي.\n\n"
        "### التعليمات:\nترجم النص.\nلغة النص: الإنجليزية\nلغة الترجمة: العربية\n\n"
        "### المُدخل:\nTwo men.\n\n### الرد:"
    ),
    "zho_Hans": (
        "下面是一条描述任务的指令，并附有提供更多信息的输入。请写出恰当完成该任务的回答。\n\n"
        "### 指令：\n请翻译下文。\n原文语言：英语\n译文语言：中文\n\n### 输入：\nTwo men.\n\n### 回答："
    ),
    "deu_Latn": (
        "Unten stehen eine Anweisung, die eine Aufgabe beschreibt, und eine Eingabe mit weiteren Angaben. "
        "Schreibe eine Antwort, die die Aufgabe gut erfüllt.\n\n"
        "### Anweisung:\nÜbersetze den Text.\nSprache des Textes: Englisch\nSprache der Übersetzung: Deutsch\n\n"
        "### Eingabe:\nTwo men.\n\n### Antwort:"
    ),
}


@pytest.mark.parametrize("language", GOLDEN)
def test_a_translation_is_asked_for_in_the_language_of_the_answer(language):
    record, direction = pair("eng_Latn", language)
    assert one(record, direction=direction).prompt == GOLDEN[language]


def test_names_within_vietnamese_sentences_are_not_capitalized():
    record, direction = pair("eng_Latn", "vie_Latn", index=4)
    example = one(record, "raw", training=True, direction=direction)
    assert example.prompt == "Hãy dịch từ tiếng Anh sang tiếng Việt.\n\nTwo men.\n"
    assert LOCALIZED["raw"].name("pcm_Latn", "vie_Latn") == "Pidgin Nigeria"  # a name of its own


def test_into_english_all_is_as_with_english_frames():
    record, direction = pair("deu_Latn", "eng_Latn")
    for template, wording in LOCALIZED.items():
        english = render(record, wording_of(template), source="entry", training=True, direction=direction)
        assert render(record, wording, source="entry", training=True, direction=direction) == english


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_conversation_of_one_turn_reads_as_an_instruction_in_every_language(language):
    for template in LOCALIZED:
        chat = Conversation(3, language, (("user", "a?"), ("assistant", "b")))
        assert one(chat, template) == one(Instruction(3, language, "a?", "", "b"), template)


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_message_of_an_instruction_with_input_is_framed_as_it_was_learned(language):
    """Exported chat templates know by the heading of the input how to begin."""
    wording = LOCALIZED["alpaca"]
    prompt = one(Instruction(0, language, "a?", "b", "c")).prompt
    chat = wording.frames_of(language)["chat"]
    message = as_message(prompt, wording, language)
    assert chat["input_mark"] in message
    assert chat["opening_with_input"] + fill(chat["user"], {"text": message}) + chat["assistant"] == prompt


def test_a_turn_that_begins_with_the_heading_of_an_input_has_none():
    """The heading marks one only where an instruction stands before it."""
    chat = Conversation(0, "deu_Latn", (("user", "### Eingabe:\nx"), ("assistant", "y")))
    assert one(chat).text.startswith(ENTRIES["deu_Latn"]["alpaca"]["opening"])


def test_short_names_languages_in_the_language_of_the_answer_and_has_no_word_between():
    record, direction = pair("eng_Latn", "ind_Latn")
    assert one(record, "short", direction=direction).prompt == "Inggris > Indonesia\nTwo men.\n"
    question = Question(0, "q", "ind_Latn", "Dua orang.", "Berapa?", ("Dua",), 0)
    assert one(question, "short").prompt == "Dua orang.\nBerapa?\n"
    assert one(question, "raw").prompt == (
        "Jawablah pertanyaan dengan kata-kata yang diambil dari teks.\n\n"
        "Teks: Dua orang.\nPertanyaan: Berapa?\n"
    )


def test_instructions_take_turns_by_their_own_number_in_training():
    instructions = ENTRIES["deu_Latn"]["translation"]
    names = {"source_language": "Englisch", "target_language": "Deutsch"}
    for index in (0, 1, 5, 6, 7, 6000 + 4):
        record, direction = pair("eng_Latn", "deu_Latn", index)
        asked = fill(instructions[index % len(instructions)], names)
        example = one(record, "raw", training=True, direction=direction)
        assert example.prompt == f"{asked}\n\nTwo men.\n"


@pytest.mark.parametrize("template", LOCALIZED)
def test_braces_in_a_text_are_text_in_localized_frames_too(template):
    records = [
        (Instruction(0, "zho_Hans", HOSTILE, HOSTILE, HOSTILE), None),
        (Pair(1, {"eng_Latn": HOSTILE, "zho_Hans": HOSTILE}), ("eng_Latn", "zho_Hans")),
        (Question(0, "q", "zho_Hans", HOSTILE, HOSTILE, (HOSTILE,), 0), None),
        (Conversation(0, "zho_Hans", (("system", HOSTILE), ("user", HOSTILE), ("assistant", HOSTILE))), None),
    ]
    for record, direction in records:
        example = one(record, template, training=True, direction=direction)
        assert example.answer_texts == (HOSTILE,)
        assert HOSTILE in example.prompt


@given(
    language=st.sampled_from(LANGUAGES),
    text=st.text(st.characters(exclude_categories=["Cs"]), min_size=1).filter(str.strip),
    template=st.sampled_from(list(LOCALIZED)),
)
def test_any_text_stands_whole_in_any_localized_frame(language, text, template):
    example = one(Instruction(0, language, text, text, text), template)
    assert example.text == example.prompt + text
    assert example.prompt.count(text) >= 2


def test_a_language_without_frames_is_refused_with_those_that_have_them():
    with pytest.raises(
        ConfigError, match=r"data.frames: 'localized' given; .*localized.yaml has no frames for answers in "
        r"tam_Taml, but for eng_Latn, arb_Arab, .*; add it in a localized.yaml of your own in "
        r"data.wording_folder, or write data.frames=english",
    ):  # fmt: skip
        one(Instruction(0, "tam_Taml", "a", "", "b"))


def test_plain_text_has_no_frame_and_needs_none():
    assert one(Text(0, "tam_Taml", "தமிழ்")).text == "தமிழ்"


# ── names ───────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_language_is_named_by_the_file_else_by_cldr_else_not_at_all():
    wording = LOCALIZED["raw"]
    assert wording.name("deu_Latn", "ind_Latn") == "Jerman", "of CLDR"
    assert wording.name("abs_Latn", "ind_Latn") == "Melayu Ambon", "of the file alone"
    assert wording.name("zho_Hant", "rus_Cyrl") == "китайский (традиционное письмо)", (
        "of the file, not CLDR's"
    )
    with pytest.raises(
        ConfigError,
        match=r"localized.yaml: tha_Thai.names: nothing given for abs_Latn, and Unicode CLDR has no name of it in "
        r"tha_Thai; .*; add 'abs_Latn: NAME' there",
    ):
        wording.name("abs_Latn", "tha_Thai")


def test_a_name_that_no_slot_asks_for_is_not_needed():
    """The second German instruction names the target alone."""
    record, direction = pair("abs_Latn", "deu_Latn", 1)
    assert "Zielsprache: Deutsch." in one(record, "raw", training=True, direction=direction).prompt
    with pytest.raises(ConfigError, match="deu_Latn.names: nothing given for abs_Latn"):
        one(record, "raw", direction=direction)


def test_a_script_that_cldr_does_not_tell_apart_is_not_called_by_the_language_alone():
    with pytest.raises(ConfigError, match="nothing given for jav_Java"):
        LOCALIZED["raw"].name("jav_Java", "deu_Latn")


def test_a_language_that_there_is_not_is_refused_in_one_line():
    for wording in (LOCALIZED["raw"], wording_of("raw")):
        with pytest.raises(ConfigError, match="^language: unknown language 'xqx_Latn'; write .*$"):
            wording.name("xqx_Latn", "deu_Latn")


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_languages_that_have_frames_are_named_in_each_other(language):
    names = {LOCALIZED["raw"].name(other, language) for other in ["eng_Latn", *LANGUAGES]}
    assert len(names) == len(LANGUAGES) + 1, "each by another name"


def test_a_language_of_ones_own_needs_its_entry_alone(tmp_path):
    entry = ENTRIES["deu_Latn"] | {"names": {"eng_Latn": "Englesch", "ltz_Latn": "Lëtzebuergesch"}}
    (tmp_path / "localized.yaml").write_text(yaml.safe_dump({"ltz_Latn": entry}, allow_unicode=True))
    wording = load_wording(DataConfig(template="raw", frames="localized", wording_folder=str(tmp_path)))
    record, direction = pair("eng_Latn", "ltz_Latn")
    prompt = render(record, wording, source="x", training=False, direction=direction).prompt
    assert "Sprache des Textes: Englesch" in prompt
    with pytest.raises(
        ConfigError, match="has no frames for answers in deu_Latn, but for eng_Latn, ltz_Latn;"
    ):
        wording.frames_of("deu_Latn")


# ── the words ───────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("language", LANGUAGES)
def test_there_are_five_translation_instructions_or_more_and_some_name_only_the_target(language):
    instructions = ENTRIES[language]["translation"]
    assert len(set(instructions)) >= 5
    naming = ["source_language" in slots_of(each) for each in instructions]
    assert {True, False} == set(naming)
    assert naming.count(False) > naming.count(True)


@pytest.mark.parametrize("language", LANGUAGES)
def test_words_are_in_the_script_of_their_language_and_in_it(language):
    """By an identifier that was trained on other text; it does not know all of them."""
    known = identify.known_language(language)
    for text in all_texts(language):
        said = " ".join(literal for literal, _ in parse_slots(text))
        assert identify.share_in_script(said, language) == 1.0
        if known and identify.letters(said) >= ENOUGH_LETTERS:
            assert identify.probabilities(said)[known] >= LIKELY, said


@pytest.mark.parametrize("language", LANGUAGES)
def test_no_text_holds_spaces_left_by_a_folded_line(language):
    for text in all_texts(language):
        assert not re.search(r" {2}|^\s|\s$", text), text


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_first_instruction_is_the_native_prompt_of_evaluation(language):
    """A model that learned the localized wording is asked in it by eval.prompts=[native]."""
    translation = read_prompts(read_task_file("flores", ""), "", "flores").native
    if language in translation:
        assert translation[language][0].instruction == ENTRIES[language]["translation"][0]
    qa = read_prompts(read_task_file("xquad", ""), "", "xquad").native
    if language in qa:
        assert qa[language][0].model_dump(include={"instruction", "input"}) == ENTRIES[language]["qa"]


def test_most_languages_are_asked_natively_in_evaluation():
    """Else the test above would compare nothing."""
    native = read_prompts(read_task_file("flores", ""), "", "flores").native
    assert len(native.keys() & ENTRIES.keys()) >= 16
