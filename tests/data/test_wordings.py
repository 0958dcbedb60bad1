"""Wording files: ours, a user's in place of them, what identifies them, and what is refused."""

import pickle
import re
import shutil
from pathlib import Path

import pytest
import yaml

from jaxlingua.config import DataConfig
from jaxlingua.data.slots import slots_of
from jaxlingua.data.wordings import FILES, OURS, load_wording, wording_of
from jaxlingua.errors import ConfigError, DataError, JaxlinguaError, one_line

OBJECTIVES = yaml.safe_load((OURS / "objectives.yaml").read_text("utf-8"))
LOCALIZED = yaml.safe_load((OURS / "localized.yaml").read_text("utf-8"))
FRAMES = yaml.safe_load((OURS / "frames.yaml").read_text("utf-8"))


def of_folder(folder: Path, template: str = "alpaca", frames: str = "english"):
    return load_wording(DataConfig(template=template, frames=frames, wording_folder=str(folder)))


def write(folder: Path, name: str, content: object) -> Path:
    text = (
        content if isinstance(content, str) else yaml.safe_dump(content, allow_unicode=True, sort_keys=False)
    )
    (folder / f"{name}.yaml").write_text(text, "utf-8")
    return folder


def changed(tree: dict, *keys: str, to: object) -> dict:
    """A copy of `tree` with one value replaced, or taken out."""
    head, *rest = keys
    if rest:
        return {**tree, head: changed(tree[head], *rest, to=to)}
    return {**tree, head: to} if to is not None else {key: tree[key] for key in tree if key != head}


# ── what a wording is ───────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("frames", ["english", "localized"])
def test_a_wording_survives_pickling_and_is_known_by_its_fingerprint(frames):
    """It goes to the processes that draw examples."""
    wording = wording_of("alpaca", frames)
    copy = pickle.loads(pickle.dumps(wording))
    assert copy == wording
    assert hash(copy) == hash(wording)
    assert copy.objectives == wording.objectives
    assert copy.frames_of("deu_Latn") == wording.frames_of("deu_Latn")


def test_the_fingerprint_tells_templates_and_frames_apart():
    wordings = [wording_of(template, frames) for template in FRAMES for frames in ("english", "localized")]
    assert len({wording.fingerprint for wording in wordings}) == 6


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        ("frames", "Below is an", "Here is an"),
        ("translation", "What is this in", "What would this be in"),
        ("qa", "Answer the", "Please answer the"),
        ("objectives", "Repair the sentence.", "Mend the sentence."),
        ("localized", "Anweisung:", "Auftrag:"),
    ],
)
def test_another_word_in_any_file_is_another_wording_but_a_comment_is_not(tmp_path, name, old, new):
    frames = "localized" if name == "localized" else "english"
    ours = wording_of("alpaca", frames)
    text = (OURS / f"{name}.yaml").read_text("utf-8")
    assert old in text
    assert of_folder(write(tmp_path, name, f"# mine\n{text}"), frames=frames).fingerprint == ours.fingerprint
    other = of_folder(write(tmp_path, name, text.replace(old, new) + "\n"), frames=frames)
    assert other.fingerprint != ours.fingerprint


def test_localized_words_that_are_not_used_do_not_tell_a_run_apart(tmp_path):
    write(tmp_path, "localized", {"deu_Latn": LOCALIZED["deu_Latn"]})
    assert of_folder(tmp_path).fingerprint == wording_of("alpaca").fingerprint


def test_a_file_of_ones_own_takes_the_place_of_ours_and_the_others_stay(tmp_path):
    write(tmp_path, "translation", ["Into {target_language}, please:"])
    (tmp_path / ".hidden").write_text("x")
    wording = of_folder(tmp_path)
    assert wording.translation("deu_Latn") == ("Into {target_language}, please:",)
    assert wording.qa("deu_Latn") == wording_of("alpaca").qa("deu_Latn")


def test_all_files_can_be_copied_and_mean_the_same(tmp_path):
    for name in FILES:
        shutil.copy(OURS / f"{name}.yaml", tmp_path)
    for template in FRAMES:
        assert of_folder(tmp_path, template).fingerprint == wording_of(template).fingerprint


# ── objectives, as the paper has them ───────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("name", "slot", "naming"),
    [
        ("denoising", "source_language", 5),
        ("translation", "source_language", 3),
        ("bilingual_denoising", "context_language", 4),
        ("similarity", "source_language", 3),
        ("similarity", "target_language", 3),
    ],
)
def test_every_objective_has_six_templates_of_which_the_papers_number_names_the_language(name, slot, naming):
    templates = wording_of("raw").objectives[name]
    assert len(set(templates)) == 6
    assert sum(slot in slots_of(template) for template in templates) == naming


def test_the_context_stands_before_the_damaged_sentence_or_after_it():
    templates = wording_of("raw").objectives["bilingual_denoising"]
    first = [template.index("{context}") < template.index("{source_text}") for template in templates]
    assert {True, False} == set(first)


def test_objectives_are_four_and_the_labels_apart():
    wording = wording_of("raw")
    assert list(wording.objectives) == ["denoising", "translation", "bilingual_denoising", "similarity"]
    assert wording.labels == {"same": "yes", "different": "no"}


# ── what is refused ─────────────────────────────────────────────────────────────────────────────────────────

OBJECTIVE = ("objectives", "similarity")
ALPACA = ("frames", "alpaca")
BAD = {
    "a slot is missing": (
        ("translation", ["{target_language}!", "Translate."]),
        r"translation.yaml: number 2: slot {target_language} is not in 'Translate.'; it is needed; put it in",
    ),
    "a slot is misspelt": (
        ("translation", ["Into {target_langage}."]),
        r"number 1: unknown slot {target_langage} .*; did you mean 'target_language'\?",
    ),
    "a map in place of a list": (
        ("translation", {"a": "b"}),
        r"translation.yaml: '{'a': 'b'}' given; a list of one or more texts is needed",
    ),
    "an empty list": (("translation", []), "nothing given; a list of one or more texts is needed"),
    "a number in place of a text": (("translation", [7]), "number 1: '7' given; a text is needed"),
    "an empty file": (("qa", ""), "qa.yaml: nothing given; a map is needed; its keys are instruction, input"),
    "not YAML": (("qa", "instruction: 'x"), r"qa.yaml:\d+: not YAML"),
    "a key given twice": (
        ("qa", "instruction: a\ninstruction: b\ninput: c"),
        "key 'instruction' given twice",
    ),
    "a key is missing": (("qa", {"instruction": "x"}), "qa.yaml: no 'input'; instruction, input are needed"),
    "a key is misspelt": (
        ("qa", {"instruction": "x", "inputs": "y"}),
        "qa.yaml: unknown key 'inputs'; did you mean 'input'",
    ),
    "a question without its context": (
        ("qa", {"instruction": "x", "input": "{question}"}),
        "qa.yaml: input: slot {context} is not in",
    ),
    "a slot in the instruction of a question": (
        ("qa", {"instruction": "{context}", "input": "{context} {question}"}),
        "qa.yaml: instruction: unknown slot {context}",
    ),
    "an objective is missing": (
        ("objectives", changed(OBJECTIVES, "similarity", to=None)),
        "objectives.yaml: no 'similarity'",
    ),
    "an answer in the middle": (
        ("objectives", changed(OBJECTIVES, "denoising", to=["{source_text}\n{target_text}\n"])),
        r"denoising, number 1: .* {target_text}, which is the answer, stands once and at the end; move it",
    ),
    "an answer given twice": (
        ("objectives", changed(OBJECTIVES, "denoising", to=["{target_text} {source_text} {target_text}"])),
        "denoising, number 1: .* stands once and at the end",
    ),
    "an answer glued to a text of the record": (
        ("objectives", changed(OBJECTIVES, "denoising", to=["{source_text}{target_text}"])),
        "between {target_text} and the slot before it text or a line break is needed",
    ),
    "a judgment without a label": (
        ("objectives", changed(OBJECTIVES, "similarity", to=["{label}: {source_text}\n{target_text}"])),
        "similarity, number 1: .* {label}, which is the answer",
    ),
    "a translation without its language": (
        ("objectives", changed(OBJECTIVES, "translation", to=["{source_text}\n{target_text}"])),
        "translation, number 1: slot {target_language} is not in",
    ),
    "labels that are the same": (
        ("objectives", changed(OBJECTIVES, "labels", "same", to="no")),
        "labels: both are 'no'; two different texts",
    ),
    "a label that is a truth value": (
        ("objectives", changed(OBJECTIVES, "labels", "same", to=True)),
        "labels.same: 'True' given; a text is needed; write one in quotes",
    ),
    "no frames of the template": (
        ("frames", changed(FRAMES, "alpaca", to=None)),
        "frames.yaml: no frames for data.template=alpaca; short, raw are there",
    ),
    "an unknown template": (
        ("frames", {**FRAMES, "alpca": {}}),
        "unknown key 'alpca'; did you mean 'alpaca'",
    ),
    "a frame without its slot": (
        ("frames", changed(FRAMES, "alpaca", "with_input", to="{input}")),
        "frames.yaml: alpaca.with_input: slot {instruction} is not in '{input}'",
    ),
    "a chat without its turn": (
        ("frames", changed(FRAMES, "alpaca", "chat", "user", to="x")),
        "alpaca.chat.user: slot {text} is not in 'x'",
    ),
    "a turn given twice": (
        ("frames", changed(FRAMES, "alpaca", "chat", "user", to="{text}{text}")),
        "alpaca.chat.user: slot {text} given twice",
    ),
    "a chat that is missing": (("frames", changed(FRAMES, "raw", "chat", to=None)), "raw: no 'chat'"),
    "an unknown language": (
        ("localized", {"deu_Latm": LOCALIZED["deu_Latn"]}),
        "localized.yaml: unknown language 'deu_Latm'; write 'deu_Latn'",
    ),
    "English among the others": (
        ("localized", {"eng_Latn": LOCALIZED["deu_Latn"]}),
        "eng_Latn given; English is in frames.yaml, translation.yaml and qa.yaml; leave it out here",
    ),
    "a heading that is missing": (
        ("localized", changed(LOCALIZED, "deu_Latn", "alpaca", "response", to=None)),
        "deu_Latn.alpaca: no 'response'",
    ),
    "a localized instruction without its slot": (
        ("localized", changed(LOCALIZED, "deu_Latn", "translation", to=["Auf {source_language}."])),
        "deu_Latn.translation, number 1: slot {target_language} is not in",
    ),
    "a name of an unknown language": (
        ("localized", changed(LOCALIZED, "ind_Latn", "names", to={"xx": "X"})),
        "ind_Latn.names: unknown language 'xx'",
    ),
}


@pytest.mark.parametrize("what", BAD)
def test_a_file_that_cannot_be_used_is_refused_in_one_line(tmp_path, what):
    """With the file, the key and the number."""
    (name, content), message = BAD[what]
    with pytest.raises(ConfigError, match=message) as refused:
        of_folder(write(tmp_path, name, content))
    told = one_line(refused.value)
    assert told.startswith(str(tmp_path / f"{name}.yaml"))
    assert len(told) < 600


def test_a_file_in_another_encoding_is_refused_with_its_line(tmp_path):
    (tmp_path / "qa.yaml").write_bytes("instruction: x\ninput: Größe".encode("latin-1"))
    with pytest.raises(DataError, match=r"data.wording_folder \(.*qa.yaml:2\): byte 0xf6 .* is not UTF-8"):
        of_folder(tmp_path)


def test_files_that_are_no_wording_are_refused_with_the_nearest(tmp_path):
    (tmp_path / "translations.yaml").write_text("[]")
    with pytest.raises(ConfigError, match=r"'translations.yaml' in it .*; did you mean 'translation.yaml'\?"):
        of_folder(tmp_path)


def test_a_folder_that_is_empty_or_none_is_refused(tmp_path):
    with pytest.raises(
        ConfigError, match="which is empty; put one of frames.yaml, translation.yaml, qa.yaml"
    ):
        of_folder(tmp_path)
    with pytest.raises(ConfigError, match="data.wording_folder: .*none' given, which is no folder"):
        of_folder(tmp_path / "none")


def test_every_error_of_a_file_leads_to_exit_code_2(tmp_path):
    """A scheduler must not retry them."""
    with pytest.raises(JaxlinguaError) as refused:
        of_folder(write(tmp_path, "qa", "[]"))
    assert refused.value.exit_code == 2
    assert not re.search(r"\n", str(refused.value))


# ── docs/wording.md ─────────────────────────────────────────────────────────────────────────────────────────

DOCS = (Path(__file__).parents[2] / "docs" / "wording.md").read_text("utf-8")


def test_the_languages_that_are_told_are_those_that_have_frames():
    told = re.search(r"<!-- languages -->\n(.*?)\n\n", DOCS, re.DOTALL)[1]
    assert told.split() == list(LOCALIZED)


def test_the_entry_that_is_shown_can_be_used(tmp_path):
    entry = re.search(r"```yaml\n(.*?)```", DOCS, re.DOTALL)[1]
    wording = of_folder(write(tmp_path, "localized", entry), frames="localized")
    assert wording.frames_of("nld_Latn")["without_input"].endswith("### Antwoord:")
    assert wording.name("abs_Latn", "nld_Latn") == "Ambonees Maleis"


def test_the_error_that_is_shown_is_what_is_said(tmp_path):
    write(tmp_path, "translation", ["{target_language}"] * 2 + ["Into {target_langage}."])
    with pytest.raises(ConfigError) as refused:
        of_folder(tmp_path)
    assert str(refused.value).replace(str(tmp_path), "mine") in DOCS
