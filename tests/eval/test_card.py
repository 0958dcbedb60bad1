"""The model card: valid for the hub, true to report.json, and silent about the machine it was written on."""

import json
import re
import shutil
from pathlib import Path

import pytest
import yaml
from huggingface_hub import ModelCard
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from jaxlingua.eval.card import model_card
from jaxlingua.eval.card_text import cell, hub_name, without_folders
from jaxlingua.eval.report import read_run, write_report
from jaxlingua.languages import LANGUAGES, hub_language
from tests.eval.told_run import PROMPTS, SECRET, settings, write_run


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return write_run(tmp_path_factory.mktemp("away") / "my_run")


def card_of(folder, config=None, *, read=True, **changes) -> str:
    options = {"parameters": 6738415616, "family": "llama", "dtype": "bfloat16", "step": 150}
    options |= {"base": "owner/Some-Model", "is_scratch": False, "has_chat_template": True}
    return model_card(
        read_run(folder) if read else None, config or settings(folder), **{**options, **changes}
    )


def tables_of(card: str) -> list[list[list[str]]]:
    """The tables that a Markdown reader sees: rows of cells as shown text."""
    tables, tokens = [], MarkdownIt("commonmark").enable("table").parse(ModelCard(card).text)
    for place, token in enumerate(tokens):
        if token.type == "table_open":
            tables.append([])
        elif token.type == "tr_open":
            tables[-1].append([])
        elif token.type in ("td_open", "th_open"):
            parts = tokens[place + 1].children
            tables[-1][-1].append("".join("\n" if part.content == "<br>" else part.content for part in parts))
    return tables


# ── front matter ─────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_hub_reads_languages_base_model_data_and_tags(folder):
    data = ModelCard(card_of(folder)).data.to_dict()
    assert data == {
        "language": ["el", "en", "he"],
        "library_name": "transformers",
        "pipeline_tag": "text-generation",
        "base_model": "owner/Some-Model",
        "datasets": ["people/questions"],
        "tags": ["jaxlingua", "cross-lingual-instruction-tuning"],
    }


def test_a_model_from_nothing_and_one_from_a_folder_name_no_base_model(folder):
    scratch = ModelCard(card_of(folder, is_scratch=True, base=""))
    assert "base_model" not in scratch.data.to_dict()
    assert "from random parameters" in scratch.text
    local = ModelCard(card_of(folder, base=f"{SECRET}/Some-Model"))
    assert "base_model" not in local.data.to_dict()
    assert "a local folder of the name Some-Model" in local.text


def test_the_language_that_yaml_takes_for_false_stays_a_language(tmp_path):
    run = write_run(tmp_path / "run")
    data = json.loads((run / "data.json").read_text())
    data["stages"][0]["mixture"][0]["language"] = "nor_Latn"
    (run / "data.json").write_text(json.dumps(data))
    front = yaml.safe_load(card_of(run, step=100).split("---\n")[1])
    assert front["language"] == ["no", "en"]


def test_every_language_has_two_or_three_letters_as_the_hub_wants_them():
    assert all(re.fullmatch("[a-z]{2,3}", hub_language(code)) for code in LANGUAGES)
    expected = {"zho_Hant": "zh", "pes_Arab": "fa", "zsm_Latn": "ms", "fil_Latn": "fil", "tgl_Latn": "tl", "ace_Latn": "ace",
                "swh_Latn": "sw", "nob_Latn": "nb", "ckb_Arab": "ckb", "tet_Latn": "tet"}  # fmt: skip
    assert {code: hub_language(code) for code in expected} == expected


def test_no_license_is_claimed(folder):
    card = ModelCard(card_of(folder))
    assert "license" not in card.data.to_dict()
    assert "No license is claimed here: those of the base model and of the data hold." in card.text


# ── scores ───────────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_table_has_every_score_of_report_json_with_its_interval_and_signature(folder, tmp_path):
    written = write_run(tmp_path / "run")
    write_report(written)
    scores = json.loads((written / "report.json").read_text("utf-8"))["scores"]
    card = card_of(written)
    head, *rows = tables_of(card)[1]
    assert head == [
        "task",
        "language",
        "learned in",
        "metric",
        "items",
        "floor",
        "base",
        "coit, step 100",
        "more, step 150",
    ]
    shown = {(row[0], head[place]): row[place] for row in rows for place in range(5, 9)}
    columns = {("floors", 0): "floor", ("base", 0): "base", ("coit", 100): head[7], ("more", 150): head[8]}
    assert len(shown) == len(scores) == 12
    for one in scores:
        text = f"{one['value']:.1f} [{one['low']:.1f}, {one['high']:.1f}]"
        assert shown[one["task"], columns[one["stage"], one["step"]]] == text
        assert f"`{one['signature']}`" in card


def test_old_languages_stand_below_the_new_ones(folder):
    rows = tables_of(card_of(folder))[1][1:]
    assert [(row[1], row[2]) for row in rows] == [
        ("Greek (ell_Grek)", "coit"),
        ("Hebrew (heb_Hebr)", "more"),
        ("English (eng_Latn)", "no stage"),
    ]


def test_an_earlier_step_tells_nothing_of_what_came_later(folder):
    card = card_of(folder, step=60)
    assert "Not evaluated at step 60: no score below is of these weights." in card
    assert tables_of(card)[1][0][5:] == ["floor", "base"]
    assert "60 of 100 steps (what follows is told of all of them)" in card
    assert "Not in these weights: more, which the run has later." in card
    assert ModelCard(card).data.language == ["el", "en"]
    assert len(tables_of(card)) == 2, "samples are of later weights"
    assert "Not evaluated at" not in card_of(folder, step=100)


def test_without_scores_it_says_not_evaluated(tmp_path):
    run = write_run(tmp_path / "run")
    for file in (run / "evals").glob("*/scores.json"):
        file.unlink()
    assert "Not evaluated: there are no scores of this model" in card_of(run)
    assert "Not evaluated: there are no scores of this model" in card_of(run, read=False, step=0)


# ── data, texts, repeating ───────────────────────────────────────────────────────────────────────────────────────


def test_it_tells_what_was_learned_left_out_and_cut(folder):
    card = card_of(folder)
    rows = tables_of(card)[0]
    assert rows[1] == ["coit", "news", "parallel, n.{language}.txt", "Greek (ell_Grek)", "1,288", "2.5", "123,456", "75.0 %",
                       "12 too long", "3", "77"]  # fmt: skip
    assert rows[2][:3] == ["more", "hub", "huggingface, people/questions"]
    assert "Records of news that could not be used: 1,234 no text in ell\\_Grek." in card
    assert "hub.heb\\_Hebr, 4 items: 1 answered without coming to an end, 2 with a prompt too long" in card
    assert "which lost 1,900 tokens in all" in card
    assert (
        "100 steps of 8 rows of 64 tokens, 2.5 passes over its mixture; 98.5 % of the positions hold text."
        in card
    )
    assert "6,738,415,616 parameters, written in bfloat16, step 150 of the run" in card


@pytest.mark.parametrize(
    ("leaks", "told"),
    [
        ("refuse", "the run would have been refused"),
        ("drop", "such text was left out of training"),
        ("allow", "was allowed: scores may be too high"),
    ],
)
def test_it_tells_what_was_done_about_leaks(folder, leaks, told):
    config = settings(folder)
    config = config.model_copy(update={"data": config.data.model_copy(update={"leaks": leaks})})
    assert told in card_of(folder, config)


def test_samples_are_shown_as_they_are_in_any_script(folder):
    rows = {row[0]: row[1:] for row in tables_of(card_of(folder))[2][1:]}
    for task, language in (
        ("news.eng_Latn-ell_Grek", "ell_Grek"),
        ("hub.heb_Hebr", "heb_Hebr"),
        ("old.eng_Latn", "eng_Latn"),
    ):
        prompt = PROMPTS[language].replace("\r", "")
        assert rows[task] == [prompt, "नमस्ते | สวัสดี", "base: 你好 🦙␙|", "more: 你好 🦙␙|"]


# Without white space at the ends, which tables have none of, and what no Markdown reader keeps.
@given(
    st.text(
        st.characters(exclude_categories=["Cs", "Cc", "Zs", "Zl", "Zp"])
        | st.sampled_from("|\n\\`*_<&;$~[]:-"),
        min_size=1,
    )
)
def test_any_text_survives_a_cell(text):
    (table,) = tables_of(f"| a | b |\n|---|---|\n| {cell(text)} | x |\n")
    assert table[1] == [text, "x"]


def test_no_path_of_this_machine_is_in_it(folder):
    for card in (
        card_of(folder),
        card_of(folder, base=f"{SECRET}/owner/Some-Model"),
        card_of(folder, read=False, step=0),
    ):
        assert not re.search(r"(?<![\w.<\]:/])[~/\\]\w+/", card), "a path that begins at a root"
        for word in ("somebody", "secret", str(folder.parent), "away", "deep/", "~"):
            assert word not in card
    commands = re.search(r"```bash\n(.*?)```", card_of(folder), re.DOTALL)[1].splitlines()
    assert commands[0] == (
        "python -m jaxlingua.train my greek.yaml run.folder=my_run model.path=owner/Some-Model "
        "data.sources.old={kind: qa, path: q.json} tokens.cache_folder=cache"
    )
    assert commands[2] == (
        "python -m jaxlingua.train RUN run.folder=ANOTHER tokens.kind=huggingface tokens.path=RUN/tokenizer"
    )


def test_how_to_repeat_has_versions_commit_and_resumptions(folder):
    card = card_of(folder)
    assert f"jaxlingua 0.1.0, commit {'0123abcd' * 5}; jax 0.10.2." in card
    assert "Started 2031-02-03 04:05 UTC on 8 devices (tpu)" in card
    assert "resumed at step 40, 1,200." in card


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("train C:\\Users\\me\\a.yaml x=1", "train a.yaml x=1"),
        ("train ../up/a.yaml data.folder=..", "train a.yaml data.folder=.."),
        ("train a.yaml model.path=owner/x", "train a.yaml model.path=x"),
        ("train a.yaml paths=[/a/b,/c/d/]", "train a.yaml paths=[b,d]"),
    ],
)
def test_of_a_path_only_the_last_part_is_left(given, expected):
    assert without_folders(given) == expected


def test_a_folder_is_no_name_of_the_hub(tmp_path):
    (tmp_path / "owner").mkdir()
    assert hub_name("owner/model") == "owner/model"
    assert hub_name("owner/model", str(tmp_path)) == ""
    assert [hub_name(path) for path in ("", "model", "/a/b", "~/b", "./b", "a/b/c")] == [""] * 6


# ── how to prompt it ─────────────────────────────────────────────────────────────────────────────────────────────


def test_the_frame_of_one_user_turn_is_the_one_of_training(folder):
    frame = re.search(r"```text\n(.*?)\n```", card_of(folder), re.DOTALL)[1]
    assert frame == (
        "Below is an instruction that describes a task. "
        "Write a response that appropriately completes the request.\n\n"
        "### Instruction:\nWHAT YOU ASK\n\n### Response:"
    )


def test_a_translation_is_asked_for_as_it_was_learned(folder):
    [message] = re.findall(r'"content": ("Translate.*")}\]\n```', card_of(folder))
    assert json.loads(message).endswith("\n\n### Input:\nYOUR SENTENCE")


def test_localized_frames_are_told_in_a_language_that_was_learned(folder):
    """English was not: its frame would be new to the model."""
    english = settings(folder)
    card = card_of(
        folder, english.model_copy(update={"data": english.data.model_copy(update={"frames": "localized"})})
    )
    assert "### Οδηγία:\nWHAT YOU ASK\n\n### Απάντηση:" in card
    [message] = re.findall(r'"content": ("Μετάφρασε.*")}\]\n```', card)
    assert json.loads(message).endswith("\n\n### Είσοδος:\nYOUR SENTENCE")


@pytest.mark.parametrize("step", [0, 150])
def test_its_code_can_be_compiled(folder, step):
    card = card_of(folder, step=step, has_chat_template=step > 0)
    code = re.search(r"```python\n(.*?)```", card, re.DOTALL)[1]
    compile(code, "card", "exec")
    assert ("apply_chat_template" in code) == (step > 0)


def test_nothing_is_told_of_training_where_there_was_none(folder):
    card = card_of(folder, read=False, step=0)
    assert ModelCard(card).data.to_dict() == {
        "library_name": "transformers",
        "pipeline_tag": "text-generation",
        "base_model": "owner/Some-Model",
        "tags": ["jaxlingua"],
    }
    assert "Nothing: these weights were not trained by jaxlingua." in card
    assert "How to repeat" not in card
    assert "# owner/Some-Model" in card


def test_several_prompts_are_rows_of_their_own_and_the_best_floor_is_shown(folder, tmp_path):
    written = Path(shutil.copytree(folder, tmp_path / "run"))
    for name in ("more-150", "floors-0"):
        file = written / "evals" / name / "scores.json"
        content = json.loads(file.read_text("utf-8"))
        score = next(one for one in content["scores"] if one["task"] == "old.eng_Latn")
        twin = {"prompt": "native.0"} if name == "more-150" else {"model": "random", "stage": "floors"}
        content["scores"].append({**score, **twin, "value": 90.5})
        file.write_text(json.dumps(content), "utf-8")
    rows = {row[0]: row for row in tables_of(card_of(written))[1][1:]}
    assert rows["old.eng_Latn"][5].startswith("90.5")  # of two floors the one that is harder to beat
    assert rows["old.eng_Latn"][8].startswith("65.2")
    assert rows["old.eng_Latn, native.0"][8].startswith("90.5")


def test_other_models_that_were_evaluated_beside_are_not_in_the_card(folder, tmp_path):
    written = Path(shutil.copytree(folder, tmp_path / "run"))
    home = written / "evals" / "Other-0"
    home.mkdir()
    content = json.loads((written / "evals" / "base-0" / "scores.json").read_text("utf-8"))
    content["scores"] = [{**one, "stage": "Other", "model": "Other"} for one in content["scores"]]
    (home / "scores.json").write_text(json.dumps({**content, "tasks": {}}), "utf-8")
    assert tables_of(card_of(written))[1] == tables_of(card_of(folder))[1]
