"""Rows to records: what is accepted, what is skipped with its reason, and every error word by word."""

import pytest

from jaxlingua.data.fields import conversation_of, instruction_of, lookup, pair_of, question_of, text_of
from jaxlingua.data.readers import Row
from jaxlingua.data.records import Conversation, Instruction, Pair, Question, Text
from jaxlingua.errors import DataError

PLACE = "data.sources.news (a.jsonl:7)"


def row(fields: dict) -> Row:
    return Row(PLACE, 6, fields)


def error_of(build, fields, *arguments) -> str:
    with pytest.raises(DataError) as caught:
        build(row(fields), *arguments)
    message = str(caught.value)
    assert message.startswith(f"{PLACE}: ")
    return message.removeprefix(f"{PLACE}: ")


# ── instructions ─────────────────────────────────────────────────────────────────────────────────────────────────

ALPACA = {"instruction": "Name two colors.", "input": "", "output": "Red, blue."}


@pytest.mark.parametrize(
    ("fields", "columns"),
    [
        (ALPACA, {}),
        ({"instruction": "Name two colors.", "output": "Red, blue."}, {}),
        (ALPACA | {"input": None, "id": 3}, {}),
        (
            {"prompt": "Name two colors.", "answer": "Red, blue."},
            {"instruction": "prompt", "output": "answer"},
        ),
        ({"zh": ALPACA}, {name: f"zh.{name}" for name in ALPACA}),
        (
            {"instruction": "Name two colors.", "instances": [{"input": "", "output": "Red, blue."}]},
            {"input": "instances.0.input", "output": "instances.0.output"},
        ),
    ],
    ids=["alpaca", "no input", "null input", "other names", "nested", "self-instruct"],
)
def test_instructions_are_read_from_their_columns(fields, columns):
    expected = Instruction(6, "eng_Latn", "Name two colors.", "", "Red, blue.")
    assert instruction_of(row(fields), "eng_Latn", columns) == expected


def test_texts_are_kept_as_they_are():
    fields = {"instruction": " a \n", "input": "\u200b b", "output": "c\u3000"}
    assert instruction_of(row(fields), "eng_Latn", {}) == Instruction(
        6, "eng_Latn", " a \n", "\u200b b", "c\u3000"
    )


@pytest.mark.parametrize(
    ("field", "reason"), [("instruction", "empty instruction"), ("output", "empty output")]
)
@pytest.mark.parametrize("blank", ["", " \n\t\u3000"])
def test_an_instruction_without_text_is_skipped_with_its_reason(field, reason, blank):
    assert instruction_of(row(ALPACA | {field: blank}), "eng_Latn", {}) == reason


@pytest.mark.parametrize(
    ("fields", "columns", "expected"),
    [
        (
            {"prompt": "a", "output": "b"},
            {},
            "no field 'instruction'; the record has 'prompt', 'output'; "
            "add it, or name the right one in the source's columns",
        ),
        (
            {letter: "" for letter in "abcdefg"},
            {},
            "no field 'instruction'; the record has 'a', 'b', 'c', 'd', 'e' and 2 more; "
            "add it, or name the right one in the source's columns",
        ),
        (
            ALPACA,
            {"input": "context"},
            "no field 'context'; the record has 'instruction', 'input', 'output'; "
            "add it, or name the right one in the source's columns",
        ),
        (ALPACA | {"output": None}, {}, "field 'output' is null; text is needed; mend the record"),
        (ALPACA | {"output": 7}, {}, "field 'output' is the number 7; text is needed; mend the record"),
        (ALPACA | {"output": True}, {}, "field 'output' is true or false; text is needed; mend the record"),
        (ALPACA | {"input": ["a"]}, {}, "field 'input' is a list; text is needed; mend the record"),
        (
            ALPACA | {"instruction": {}},
            {},
            "field 'instruction' is an object; text is needed; mend the record",
        ),
        (
            ALPACA | {"output": "ab\ud83d"},
            {},
            "field 'output' has half of a surrogate pair, U+D83D, at character 2; "
            "whole characters are needed; mend the record",
        ),
    ],
    ids=[
        "absent",
        "cut list",
        "named input absent",
        "null",
        "number",
        "boolean",
        "list",
        "object",
        "surrogate",
    ],
)
def test_an_instruction_with_other_fields_is_refused(fields, columns, expected):
    assert error_of(instruction_of, fields, "eng_Latn", columns) == expected


def test_dotted_names_go_into_structs_and_lists_and_a_name_with_a_dot_comes_first():
    assert lookup({"a.b": 1, "a": {"b": 2}}, "a.b") == 1
    assert lookup({"a": [{"b": 2}]}, "a.0.b") == 2


# ── pairs and texts ──────────────────────────────────────────────────────────────────────────────────────────────


def test_a_pair_holds_the_languages_that_are_asked_for():
    fields = {"en": "Hello.", "de": "Hallo.", "fr": "Salut."}
    assert pair_of(row(fields), ["eng_Latn", "deu_Latn"], {"eng_Latn": "en", "deu_Latn": "de"}) == Pair(
        6, {"eng_Latn": "Hello.", "deu_Latn": "Hallo."}
    )


def test_a_pair_with_an_empty_side_is_skipped():
    assert (
        pair_of(row({"eng_Latn": "a", "deu_Latn": " "}), ["eng_Latn", "deu_Latn"], {})
        == "empty text in deu_Latn"
    )


def test_a_pair_without_a_language_is_refused():
    assert error_of(pair_of, {"en": "a"}, ["eng_Latn"], {}) == (
        "no field 'eng_Latn'; the record has 'en'; add it, or name the right one in the source's columns"
    )


def test_text_is_read_from_its_column():
    assert text_of(row({"body": "a"}), "eng_Latn", {"text": "body"}) == Text(6, "eng_Latn", "a")
    assert text_of(row({"text": ""}), "eng_Latn", {}) == "empty text"


# ── questions ────────────────────────────────────────────────────────────────────────────────────────────────────

# Offsets count code points: the emoji, the byte order mark and the combining accent are one each.
CONTEXT = "\ufeff \U0001f600\U0001f468\u200d\U0001f469 Ann  lives in Ore\u0301.\u200b "
SQUAD = {
    "id": "q1",
    "context": CONTEXT,
    "question": "Where?",
    "answers": [{"text": "Ore\u0301", "answer_start": 21}, {"text": "in Ore\u0301", "answer_start": 18}],
}


def test_offsets_count_code_points_of_the_unstripped_context():
    question = question_of(row(SQUAD), "eng_Latn", {})
    assert question == Question(6, "q1", "eng_Latn", CONTEXT, "Where?", ("Ore\u0301", "in Ore\u0301"), 21)
    assert CONTEXT[question.answer_start :].startswith(question.answers[0])


def test_answers_of_the_datasets_library_are_the_same():
    answers = {"text": ["Ore\u0301", "in Ore\u0301"], "answer_start": [21, 18]}
    assert question_of(row(SQUAD | {"answers": answers}), "eng_Latn", {}) == question_of(
        row(SQUAD), "eng_Latn", {}
    )


def test_a_question_without_id_gets_its_index():
    fields = {name: value for name, value in SQUAD.items() if name != "id"}
    assert question_of(row(fields), "eng_Latn", {}).id == "6"


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"answers": []}, "question without an answer"),
        ({"answers": [{"text": "", "answer_start": 0}]}, "question without an answer"),
        ({"question": " "}, "empty question"),
        ({"context": " ", "answers": []}, "empty context"),
    ],
    ids=["unanswerable", "blanked", "no question", "no context"],
)
def test_a_question_that_cannot_be_asked_is_skipped_with_its_reason(change, reason):
    assert question_of(row(SQUAD | change), "eng_Latn", {}) == reason


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (
            {"text": "Ann", "answer_start": 6},
            "answer 'Ann' with answer_start 6, where the context has ' An'; "
            "code points of the unstripped context are counted; found at 7: mend answer_start",
        ),
        (
            {"text": "Bob", "answer_start": 99},
            "answer 'Bob' with answer_start 99, where the context has ''; "
            "code points of the unstripped context are counted; not in the context: mend the record",
        ),
        (
            {"text": "B" * 50, "answer_start": 0},
            f"answer '{'B' * 40}…' with answer_start 0, where the context has '{CONTEXT}'; "
            "code points of the unstripped context are counted; not in the context: mend the record",
        ),
        (
            {"text": "Ann", "answer_start": -1},
            "field 'answers[0].answer_start' is the number -1; a count of code points from 0 is needed; mend the record",
        ),
        (
            {"text": "Ann", "answer_start": "7"},
            "field 'answers[0].answer_start' is text; a count of code points from 0 is needed; mend the record",
        ),
        (
            {"text": "Ann"},
            "field 'answers[0].answer_start' is null; a count of code points from 0 is needed; mend the record",
        ),
        ({"answer_start": 7}, "field 'answers[0].text' is null; text is needed; mend the record"),
    ],
    ids=["shifted", "outside", "long", "negative", "text", "no start", "no text"],
)
def test_an_answer_that_is_not_where_it_says_is_refused(answer, expected):
    assert error_of(question_of, SQUAD | {"answers": [answer]}, "eng_Latn", {}) == expected


@pytest.mark.parametrize(
    ("answers", "expected"),
    [
        (
            "Ann",
            "field 'answers' is text; a list of objects with text and answer_start is needed; mend the record",
        ),
        (
            {"text": ["Ann", "Bob"], "answer_start": [7]},
            "field 'answers' has 2 texts and 1 starts; one start per text is needed; mend the record",
        ),
    ],
    ids=["text", "lists of two lengths"],
)
def test_answers_of_another_form_are_refused(answers, expected):
    assert error_of(question_of, SQUAD | {"answers": answers}, "eng_Latn", {}) == expected


# ── strata ───────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("value", "stratum"), [("qa", "qa"), ("สรุป", "สรุป"), ("", ""), (None, ""), (3, "3"), (0, "0")]
)
def test_a_stratum_is_text_or_a_whole_number_or_nothing(value, stratum):
    columns = {"stratum": "meta.task"}
    meta = {"meta": {"task": value}}
    turns = [{"role": "assistant", "content": "Hi."}]
    assert instruction_of(row(ALPACA | meta), "eng_Latn", columns).stratum == stratum
    assert text_of(row({"text": "a"} | meta), "eng_Latn", columns).stratum == stratum
    assert conversation_of(row({"messages": turns} | meta), "eng_Latn", columns).stratum == stratum


def test_a_column_of_strata_is_read_only_where_it_is_named():
    assert text_of(row({"text": "a", "stratum": 1.5}), "eng_Latn", {}).stratum == ""


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        (
            {"text": "a"},
            "no field 'task'; the record has 'text'; add it, or name the right one in the source's columns",
        ),
        ({"text": "a", "task": 1.5}, "field 'task' is the number 1.5; text is needed; mend the record"),
        ({"text": "a", "task": True}, "field 'task' is true or false; text is needed; mend the record"),
    ],
    ids=["missing", "fraction", "boolean"],
)
def test_a_stratum_that_cannot_be_read_is_refused(fields, expected):
    assert error_of(text_of, fields, "eng_Latn", {"stratum": "task"}) == expected


# ── conversations ────────────────────────────────────────────────────────────────────────────────────────────────

TURNS = (("system", "Be brief."), ("user", "Hi."), ("assistant", "Hello."), ("user", "Bye."))


def test_openai_and_sharegpt_give_the_same_turns():
    openai = {"messages": [{"role": role, "content": text} for role, text in TURNS]}
    names = {"system": "system", "user": "human", "assistant": "gpt"}
    sharegpt = {"id": "x", "conversations": [{"from": names[role], "value": text} for role, text in TURNS]}
    expected = Conversation(6, "eng_Latn", TURNS)
    assert conversation_of(row(openai), "eng_Latn", {}) == expected
    assert conversation_of(row(sharegpt), "eng_Latn", {}) == expected
    renamed = {"chat": openai["messages"]}
    assert conversation_of(row(renamed), "eng_Latn", {"messages": "chat"}) == expected


@pytest.mark.parametrize(
    ("messages", "reason"),
    [
        ([{"role": "user", "content": "Hi."}], "no assistant turn"),
        ([], "no assistant turn"),
        ([{"role": "user", "content": " "}, {"role": "assistant", "content": "Hi."}], "empty turn"),
    ],
)
def test_a_conversation_with_nothing_to_learn_is_skipped_with_its_reason(messages, reason):
    assert conversation_of(row({"messages": messages}), "eng_Latn", {}) == reason


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        (
            {"dialog": []},
            "no field 'messages'; the record has 'dialog'; add it, or name the right one in the source's columns",
        ),
        (
            {"messages": "Hi."},
            "field 'messages' is text; a list of turns is needed; mend the record",
        ),
        (
            {"messages": ["Hi."]},
            "messages[0] is text; an object with role and content is needed; mend it",
        ),
        (
            {"messages": [{"role": "user", "text": "Hi."}]},
            "messages[0] has no 'content'; it has 'role', 'text'; add it",
        ),
        (
            {"conversations": [{"from": "human"}]},
            "conversations[0] has no 'value'; it has 'from'; add it",
        ),
        (
            {"messages": [{"role": "tool", "content": "{}"}]},
            "messages[0].role='tool' given; 'system', 'user', 'human', 'assistant', 'gpt' are allowed; rename or remove it",
        ),
        (
            {"messages": [{"role": "assistant", "content": None}]},
            "field 'messages[0].content' is null; text is needed; mend the record",
        ),
        (
            {"messages": [{"role": "assistant", "content": "Hi.", "weight": 0}]},
            "messages[0].weight=0 given; every assistant turn is learned; remove it",
        ),
    ],
    ids=["no column", "text", "text turn", "no content", "no value", "tool", "null", "weight"],
)
def test_a_conversation_of_another_form_is_refused(fields, expected):
    assert error_of(conversation_of, fields, "eng_Latn", {}) == expected
