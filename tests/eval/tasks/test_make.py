"""Tasks: which records become items, what is asked, and what is refused."""

import json
from pathlib import Path

import pytest

from jaxlingua.config import Config, StageConfig
from jaxlingua.data.mixtures import stage_examples
from jaxlingua.data.records import Text
from jaxlingua.data.sources import open_source
from jaxlingua.data.wordings import load_wording
from jaxlingua.errors import ConfigError
from jaxlingua.eval.tasks.item import Task
from jaxlingua.eval.tasks.make import make_tasks, trained_sources
from jaxlingua.eval.tasks.sampling import sample
from tests.tiny import tiny_parallel

ENGLISH, THAI, GREEK = (tiny_parallel()[language] for language in ("eng_Latn", "tha_Thai", "ell_Grek"))


@pytest.fixture
def data(tmp_path: Path) -> dict:
    """A data section with parallel text, of which line 5 lacks its Thai, and questions."""
    lines = zip(ENGLISH, THAI, GREEK, strict=True)
    pairs = [dict(zip(("eng_Latn", "tha_Thai", "ell_Grek"), line, strict=True)) for line in lines]
    pairs[4]["tha_Thai"] = " "
    (tmp_path / "news.jsonl").write_text("".join(json.dumps(pair) + "\n" for pair in pairs), "utf-8")
    answers = [{"text": "The Nile", "answer_start": 0}, {"text": "Nile", "answer_start": 4}]
    asked = [{"id": f"q{i}", "question": f"Which river, {i}?", "answers": answers} for i in range(30)]
    squad = {"data": [{"title": "", "paragraphs": [{"context": "The Nile is long.", "qas": asked}]}]}
    (tmp_path / "rivers.json").write_text(json.dumps(squad), "utf-8")
    sources = {
        "news": {"kind": "parallel", "path": "news.jsonl", "languages": [*pairs[0]], "held_out_records": 9},
        "rivers": {"kind": "qa", "path": "rivers.json", "language": "eng_Latn"},
    }  # fmt: skip
    return {"folder": str(tmp_path), "sources": sources, "template": "short"}


def tasks_of(
    data: dict, names: list[str], trained: tuple[str, ...] = (), items: int | str = "auto"
) -> list[Task]:
    stages = [{"name": "s", "mixture": {f"as_{name}": {"source": name} for name in trained}, "steps": 1}]
    config = Config.model_validate(
        {"data": data, "eval": {"tasks": names, "items": items}, "stages": stages if trained else []}
    )
    sources = {
        name: open_source(name, each, config.data.folder) for name, each in config.data.sources.items()
    }
    return make_tasks(config, sources)


def test_translation_asks_for_the_target_language(data):
    (task,) = tasks_of(data, ["news.eng_Latn-tha_Thai"])
    item = task.items[0]
    assert (task.kind, task.language, task.split) == ("translation", "tha_Thai", "all")
    assert item.prompt == f"English to Thai\n{ENGLISH[0]}\n"
    assert (item.id, item.language, item.targets, item.source_text) == (
        "0",
        "tha_Thai",
        (THAI[0],),
        ENGLISH[0],
    )
    back = tasks_of(data, ["news.tha_Thai-eng_Latn"])[0].items[0]
    assert (back.prompt, back.targets) == (f"Thai to English\n{THAI[0]}\n", (ENGLISH[0],))


def test_questions_keep_all_their_answers(data):
    (task,) = tasks_of(data, ["rivers.eng_Latn"])
    item = task.items[3]
    assert (task.kind, len(task.items)) == ("qa", 30)
    assert (item.id, item.targets) == ("q3", ("The Nile", "Nile"))
    assert item.prompt == "The Nile is long.\nWhich river, 3?\n"


def test_every_item_is_asked_in_the_first_wording(data):
    """In training the 33 wordings take turns."""
    (task,) = tasks_of(data | {"template": "alpaca"}, ["news.eng_Latn-tha_Thai"])
    frames = {item.prompt.replace(item.source_text, "") for item in task.items}
    assert len(frames) == 1
    assert "prompt:alpaca.english.0" in task.signature


@pytest.mark.parametrize("frames", ["english", "localized"])
@pytest.mark.parametrize("template", ["alpaca", "short", "raw"])
def test_a_source_is_asked_in_the_frames_that_it_is_learned_in(data, template, frames):
    """The first record has the first wording in training too."""
    data |= {"template": template, "frames": frames}
    (task,) = tasks_of(data, ["news.eng_Latn-tha_Thai"])
    config = Config.model_validate({"data": data})
    source = open_source("news", config.data.sources["news"], data["folder"])
    stage = StageConfig(name="s", mixture={"news": {"direction": "eng_Latn-tha_Thai"}}, steps=1)
    made = stage_examples(stage, {"news": source}, load_wording(config.data)).by_entry["news"]
    first = next(example for example in made if example.index == 33 * 6)
    (item,) = [item for item in task.items if item.id == str(33 * 6)]
    assert item.prompt == first.prompt
    assert ("English" in item.prompt) == (frames == "english")


def test_a_trained_source_is_asked_only_what_it_held_out(data):
    (task,) = tasks_of(data, ["news.eng_Latn-tha_Thai"], trained=("news",))
    config = Config.model_validate({"data": data}).data.sources["news"]
    held_out = {
        str(record.index) for record in open_source("news", config, data["folder"]).records("held_out")
    }
    assert {item.id for item in task.items} == held_out - {"4"}
    assert (task.split, len(held_out)) == ("held_out", 9)
    assert tasks_of(data, ["news.eng_Latn-tha_Thai"], trained=("rivers",))[0].split == "all"


def test_trained_sources_go_by_the_source_of_an_entry():
    stage = {"name": "a", "steps": 1, "mixture": {"x": {}, "replay": {"source": "y"}}}
    text = {"kind": "text", "path": "t", "language": "eng_Latn"}
    config = Config.model_validate(
        {"data": {"sources": {"x": text, "y": text, "z": text}}, "stages": [stage]}
    )
    assert trained_sources(config) == {"x", "y"}


def test_a_sample_is_the_same_records_in_every_direction(data):
    there, back = tasks_of(data, ["news.eng_Latn-tha_Thai", "news.tha_Thai-eng_Latn"], items=20)
    assert [item.id for item in there.items] == [item.id for item in back.items]
    assert len(there.items) == 20
    assert there.available == 199
    assert there.left_out == {"empty text in tha_Thai": 1}
    assert there.describe() == (
        "news.eng_Latn-tha_Thai: 20 of 199 items (all); left out: empty text in tha_Thai 1"
    )
    assert "items:20of199" in there.signature


def test_a_smaller_sample_is_part_of_a_larger_one_and_spread_out():
    records = [Text(index, "eng_Latn", "") for index in range(1000)]
    keys = [str(record.index) for record in records]
    small, large = sample(records, 50, keys), sample(records, 200, keys)
    assert set(small) <= set(large)
    assert [record.index for record in large] == sorted(record.index for record in large)
    assert 350 < sum(record.index for record in large) / 200 < 650
    assert sample(records, "auto", keys) == sample(records, 1000, keys) == records


def test_the_signature_changes_with_the_items(data):
    before = tasks_of(data, ["rivers.eng_Latn"])[0].signature
    assert tasks_of(data, ["rivers.eng_Latn"])[0].signature == before
    assert tasks_of(data | {"template": "raw"}, ["rivers.eng_Latn"])[0].signature != before
    file = Path(data["folder"]) / "rivers.json"
    file.write_text(file.read_text("utf-8").replace("Which", "What"), "utf-8")
    after = tasks_of(data, ["rivers.eng_Latn"])[0].signature
    assert after != before
    assert after.split("|data:")[0] == before.split("|data:")[0]


REFUSED = [
    (
        ["weather.eng_Latn"],
        "eval.tasks: 'weather.eng_Latn': unknown source or task file 'weather'; known: news, rivers",
    ),
    (["news.eng_Latn-tha_Tai"], "unknown language 'tha_Tai'; write 'tha_Thai'"),
    (["news.eng_Latn-deu_Latn"], "language 'deu_Latn' given; the source has eng_Latn, tha_Thai, ell_Grek"),
    (["rivers.eng_Latn", "rivers.eng_Latn"], "eval.tasks: 'rivers.eng_Latn' given twice; .*remove one"),
    (
        ["rivers.dev.eng_Latn"],
        "'rivers' is a source, which has no splits to choose from; write rivers.eng_Latn",
    ),
    (["news.eng_Latn"], "'news' has no questions; for translation write 'news.eng_Latn-tha_Thai'"),
]


@pytest.mark.parametrize(("names", "message"), REFUSED)
def test_a_task_that_its_source_cannot_answer_is_refused(data, names, message):
    with pytest.raises(ConfigError, match=message):
        tasks_of(data, names)


def test_a_trained_source_that_holds_nothing_out_is_refused(data):
    data["sources"]["rivers"]["held_out_records"] = 0
    with pytest.raises(
        ConfigError, match="a stage trains on 'rivers', which holds nothing out; set its held_out"
    ):
        tasks_of(data, ["rivers.eng_Latn"], trained=("rivers",))


def test_built_in_text_is_asked_about_what_training_never_saw():
    languages = ["eng_Latn", "deu_Latn"]
    source = {"kind": "cldr", "languages": languages, "records": 600, "held_out_records": 40}
    data = {"sources": {"cldr": source, "diary": source | {"yields": "qa"}}, "template": "short"}
    names = ["cldr.eng_Latn-deu_Latn", "diary.deu_Latn"]
    translation, questions = tasks_of(data, names, trained=("cldr", "diary"))
    assert (len(translation.items), len(questions.items)) == (40, 20)
    config = Config.model_validate({"data": data})
    trained = open_source("cldr", config.data.sources["cldr"], ".").records("train")
    learned = {record.texts["deu_Latn"] for record in trained}
    assert not learned & {target for item in translation.items for target in item.targets}


def test_all_questions_of_xquad_become_items(shared_data):
    """1,190 questions in each language, of which a sample asks the same ones."""
    sources = {
        f"xquad_{code}": {"kind": "qa", "path": f"xquad/xquad.{code}.json", "language": language}
        for code, language in (("en", "eng_Latn"), ("zh", "zho_Hans"))
    }
    data = {"folder": str(shared_data), "sources": sources}
    names = ["xquad_en.eng_Latn", "xquad_zh.zho_Hans"]
    for task in tasks_of(data, names):
        assert len({item.id for item in task.items}) == 1190
        assert all(item.targets[0] in item.source_text for item in task.items)
    english, chinese = tasks_of(data, names, items=100)
    assert [item.id for item in english.items] == [item.id for item in chinese.items]
