"""Answers on disk while an evaluation goes on: none is asked twice, none of another model is taken."""

import json
from contextlib import suppress

import pytest

from jaxlingua.errors import DataError
from jaxlingua.eval.journal import JOURNAL, Prediction, asked_in, opened_journal, read_predictions
from jaxlingua.eval.tasks.item import Item, Task

ONE = Prediction("да\u2028\n\ud800", 3, True, 0)
TWO = Prediction("yes", 0, True, 2, {"yes": -1.5, "no": -2.25})


class Killed(BaseException):
    pass


def written(folder, model="m" * 64, answers=(("a", ONE), ("b", TWO))):
    """A journal that its process did not end."""
    with suppress(Killed), opened_journal(folder, model, is_owner=False) as journal:
        for name, prediction in answers:
            journal.note(name, prediction)
        raise Killed
    return folder / JOURNAL


def known(folder, model="m" * 64, **options):
    said = []
    with opened_journal(folder, model, **{"is_owner": False, "say": said.append} | options) as journal:
        return dict(journal.known), said


def test_what_was_noted_before_a_crash_is_known_after_it(tmp_path):
    written(tmp_path)
    assert known(tmp_path) == ({"a": ONE, "b": TWO}, [])
    assert not (tmp_path / JOURNAL).exists(), "an evaluation that ended leaves none"


def test_a_second_crash_loses_nothing_of_the_first(tmp_path):
    written(tmp_path, answers=[("a", ONE)])
    written(tmp_path, answers=[("b", TWO)])
    assert known(tmp_path)[0] == {"a": ONE, "b": TWO}


def test_every_torn_end_costs_one_answer(tmp_path):
    path = written(tmp_path)
    content = path.read_bytes()
    last = content[:-1].rindex(b"\n") + 1
    for size in range(last + 1, len(content) - 1):
        path.write_bytes(content[:size])
        found, said = known(tmp_path)
        assert found == {"a": ONE}
        assert said == [f"{path}:3: torn line, its item is asked again"]


@pytest.mark.parametrize(
    "damage", [b"{", b"[]", b'"x"', b'{"asked": "a"}', b"\xff\xfe", b'{"asked": "a", "prediction": 1}']
)
def test_a_damaged_line_is_named_and_nothing_is_lost(tmp_path, damage):
    path = written(tmp_path)
    lines = path.read_bytes().split(b"\n")
    path.write_bytes(b"\n".join([lines[0], damage, *lines[2:]]))
    before = path.read_bytes()
    with pytest.raises(DataError, match=rf"{JOURNAL}:2: damaged prediction .* remove the line") as caught:
        known(tmp_path)
    assert "\n" not in str(caught.value)
    assert path.read_bytes() == before


def test_predictions_of_another_model_are_refused(tmp_path):
    path = written(tmp_path)
    with pytest.raises(
        DataError, match=r"predictions of another model \(fingerprint mmmmmmmmmmmm there, nnnnnnnnnnnn now\)"
    ):
        known(tmp_path, model="n" * 64)
    assert path.is_file()


def test_the_run_that_trains_a_model_makes_them_again(tmp_path):
    path = written(tmp_path)
    assert known(tmp_path, model="n" * 64, is_owner=True) == (
        {},
        [f"{path}: answers of another model, made again"],
    )


def test_predictions_that_are_done_are_known_when_tasks_are_added(tmp_path):
    line = {
        "id": "1",
        "asked": "a",
        "prediction": "да",
        "new_tokens": 2,
        "is_finished": True,
        "cut_prompt_tokens": 0,
    }
    (tmp_path / "x.rus_Cyrl.jsonl").write_text(json.dumps(line) + "\n")
    (tmp_path / "judge.jsonl").write_text("not ours\n")
    assert known(tmp_path)[0] == {}, "no scores.json: nobody knows whose they are"
    (tmp_path / "scores.json").write_text(
        json.dumps({"model": {"fingerprint": "m" * 64}, "tasks": {"x.rus_Cyrl": {}}})
    )
    assert known(tmp_path)[0] == {"a": Prediction("да", 2, True, 0)}
    with pytest.raises(DataError, match="predictions of another model"):
        known(tmp_path, model="n" * 64)


def test_a_question_is_named_by_all_that_decides_its_answer():
    def task(**changes):
        facts = {"labels": ("yes", "no"), "prompt": "english.0"} | changes
        return Task("t.eng_Latn", "choice", "t", "eng_Latn", "all", "raw", (), (), 1, {}, **facts)

    def item(**changes):
        return Item(
            **{
                "id": "1",
                "language": "eng_Latn",
                "prompt": "p",
                "targets": ("yes",),
                "source_text": "s",
                "choices": ("y", "n"),
            }
            | changes
        )

    names = [
        asked_in(task(), item(), "greedy,3"),
        asked_in(task(prompt="english.1"), item(), "greedy,3"),
        asked_in(task(labels=("no", "yes")), item(), "greedy,3"),
        asked_in(task(), item(id="2"), "greedy,3"),
        asked_in(task(), item(prompt="q"), "greedy,3"),
        asked_in(task(), item(choices=("n", "y")), "greedy,3"),
        asked_in(task(), item(), "greedy,4"),
    ]
    assert len(set(names)) == len(names)
    assert asked_in(task(), item(targets=("no",)), "greedy,3") == names[0], "the right answer decides nothing"


def test_a_file_of_predictions_is_read_line_by_line_as_json_has_them(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text('{"prediction": "a\u2028b"}\n{"prediction": "c"}\n', "utf-8")
    assert [line["prediction"] for line in read_predictions(path)] == ["a\u2028b", "c"]
    path.write_text('{"prediction": "a"}\n{"predic', "utf-8")
    with pytest.raises(DataError, match=r"a.jsonl:2: damaged prediction"):
        read_predictions(path)
