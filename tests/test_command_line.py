"""Configuration from files and the command line: precedence, and one line for whatever is wrong."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from jaxlingua.command_line import (
    apply_override,
    config_from_command_line,
    extending,
    find_config,
    help_text,
    load_config,
)
from jaxlingua.config import Config, parse_mixture
from jaxlingua.errors import ConfigError, DataError, exit_with_one_line, nearest, one_line

SMALL = """
data:
  sources:
    phrases: {kind: cldr, languages: [eng_Latn, deu_Latn]}
stages:
- {name: coit, mixture: phrases, steps: 3}
"""


@pytest.fixture
def small(tmp_path: Path) -> Path:
    path = tmp_path / "small.yaml"
    path.write_text(SMALL)
    return path


def test_the_command_line_beats_the_file_beats_the_extended_file_beats_the_default(
    tmp_path: Path, small: Path
):
    small.write_text(SMALL + "train: {batch_rows: 64, remat: none}\n")
    mine = tmp_path / "mine.yaml"
    mine.write_text("extends: small.yaml\ntrain: {batch_rows: 32}\nrun: {seed: 3}\n")
    config = load_config(str(mine), ["run.seed=4", "stages[0].steps=5", "train.optimizer.peak_lr=1e-3"])
    assert config.train.batch_rows == 32
    assert config.train.remat == "none"
    assert config.run.seed == 4
    assert config.stages[0].steps == 5
    assert config.train.optimizer.peak_lr == 1e-3
    assert config.train.optimizer.warmup_ratio == 0.03


def test_the_run_folder_carries_the_name_of_the_config(small: Path):
    assert load_config(str(small)).run.folder == "runs/small"


def run_of(config: Config, folder: Path) -> Path:
    """The folder of a run as far as a configuration goes."""
    folder.mkdir()
    (folder / "config.yaml").write_text(yaml.safe_dump(config.model_dump(mode="json")))
    (folder / "provenance.json").write_text("{}")
    return folder


MORE = """
run: {branch_from: auto}
stages+:
- {name: more, mixture: phrases, epochs: 2}
eval: {tasks+: [phrases.deu_Latn-eng_Latn]}
"""


@pytest.mark.parametrize("is_in_file", [True, False])
def test_a_file_adds_stages_and_tasks_to_a_run_that_is_named_once(
    tmp_path: Path, small: Path, monkeypatch: pytest.MonkeyPatch, is_in_file: bool
):
    """Named in the file, or on the command line in place of what the file names."""
    monkeypatch.chdir(tmp_path)
    given = load_config(str(small), ["run.seed=7", "eval.tasks=[phrases.eng_Latn-deu_Latn]"])
    run_of(given, tmp_path / "mine")
    (tmp_path / "more.yaml").write_text(("extends: mine\n" if is_in_file else "extends: demo.yaml\n") + MORE)
    named = [] if is_in_file else ["extends=mine"]
    config = load_config(
        "more.yaml", [*named, "stages[-1].epochs=3", "eval.tasks+=[phrases.eng_Latn-deu_Latn]"]
    )
    assert [(stage.name, stage.steps, stage.epochs) for stage in config.stages] == [
        ("coit", 3, "auto"), ("more", "auto", 3)
    ]  # fmt: skip
    assert config.stages[0] == given.stages[0]
    assert config.eval.tasks == [
        "phrases.eng_Latn-deu_Latn", "phrases.deu_Latn-eng_Latn", "phrases.eng_Latn-deu_Latn"
    ]  # fmt: skip
    assert (config.run.folder, config.run.branch_from, config.run.seed) == ("runs/more", "mine", 7)
    assert load_config("more.yaml", [*named, "run.branch_from=''"]).run.branch_from == ""
    at_path = load_config("more.yaml", ["extends=mine/config.yaml"])
    assert (at_path.run.folder, at_path.run.branch_from) == ("runs/more", "mine")


def test_the_run_of_an_extended_file_is_where_its_command_puts_it(tmp_path: Path, small: Path):
    (tmp_path / "more.yaml").write_text("extends: small.yaml\n" + MORE)
    assert load_config(str(tmp_path / "more.yaml")).run.branch_from == "runs/small"
    small.write_text(SMALL + "run: {folder: here/it/is}\n")
    given = load_config(str(tmp_path / "more.yaml"), ["run.folder=there"])
    assert (given.run.folder, given.run.branch_from) == ("there", "here/it/is")


def test_what_the_command_line_extends_is_looked_for_where_the_command_is_given(
    tmp_path: Path, small: Path, monkeypatch: pytest.MonkeyPatch
):
    """What a file names lies beside it first."""
    (tmp_path / "recipes").mkdir()
    more = tmp_path / "recipes" / "more.yaml"
    more.write_text("extends: small.yaml\n" + MORE)
    for folder, seed in ((tmp_path, 1), (more.parent, 2)):
        (folder / "small.yaml").write_text(SMALL + f"run: {{seed: {seed}}}\n")
        run_of(load_config(str(folder / "small.yaml")), folder / "mine")
    monkeypatch.chdir(tmp_path)
    assert load_config(str(more)).run.seed == 2
    assert load_config(str(more), ["extends=small.yaml"]).run.seed == 1
    assert load_config(str(more), ["extends=mine"]).run.seed == 1
    shutil.rmtree(tmp_path / "mine")
    small.unlink()
    assert load_config(str(more), ["extends=mine"]).run.seed == 2
    assert load_config(str(more), ["extends=small.yaml"]).run.seed == 2


def test_a_run_that_tells_nothing_of_run_can_be_extended(tmp_path: Path, small: Path):
    run = run_of(load_config(str(small)), tmp_path / "mine")
    (run / "config.yaml").write_text(SMALL + "run:\n")
    (tmp_path / "more.yaml").write_text("extends: mine\n" + MORE)
    assert load_config(str(tmp_path / "more.yaml")).run.seed == 0
    assert load_config(str(run)).run.folder == str(run)


def test_a_run_extends_nothing(tmp_path: Path, small: Path):
    run = run_of(load_config(str(small)), tmp_path / "mine")
    with pytest.raises(ConfigError, match=r"extends=.*small.yaml: given with '.*mine', the folder of a run"):
        load_config(str(run), [f"extends={small}"])


def test_what_is_written_to_extend_a_file_knows_what_the_command_line_extends(tmp_path: Path, small: Path):
    (tmp_path / "more.yaml").write_text("extends: demo.yaml\n" + MORE)
    overrides = [f"extends={small}", "train.batch_rows=4"]
    written = extending(str(tmp_path / "more.yaml"), overrides, tmp_path)
    assert (written["extends"], written["train"], len(written["stages"])) == (
        "small.yaml",
        {"batch_rows": 4},
        2,
    )
    (tmp_path / "written.yaml").write_text(yaml.safe_dump(written))
    before = load_config(str(tmp_path / "more.yaml"), [*overrides, "run.folder=runs/x"])
    assert load_config(str(tmp_path / "written.yaml"), ["run.folder=runs/x"]) == before


def test_a_run_folder_is_a_configuration(tmp_path: Path, small: Path):
    config = load_config(str(small), ["run.seed=7"])
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config.model_dump(mode="json")))
    assert load_config(str(tmp_path)) == config


def test_the_one_line_mixture_is_the_map_that_it_stands_for():
    assert parse_mixture("alpaca_en+alpaca_zh+news:eng_Latn-zho_Hans[10:100000]") == {
        "alpaca_en": {"source": "alpaca_en"},
        "alpaca_zh": {"source": "alpaca_zh"},
        "news.eng_Latn-zho_Hans": {
            "source": "news",
            "task": "translation",
            "direction": "eng_Latn-zho_Hans",
            "start": 10,
            "limit": 99990,
        },
    }


BAD_OVERRIDES = {
    "train.batch_row=3": "train: unknown key 'batch_row'; did you mean 'batch_rows'?",
    "train.batch_rows=many": "train.batch_rows: 'many' given; whole number above 0 is allowed; Rows of one step",
    "train.batch_rows=0": "train.batch_rows: '0' given; whole number above 0 is allowed",
    "train.optimizer.peak_lr=.nan": "train.optimizer.peak_lr: 'nan' given; number above 0 is allowed",
    "train=3": "train: '3' given; map is allowed; The training step.",
    "trian.batch_rows=3": "unknown key 'trian'; did you mean 'train'?",
    "stages[0].step=3": "stages[0]: unknown key 'step'; did you mean 'steps'?",
    "stages[1].steps=3": "stages[1].steps=3: index 1 given; there are 1, counted from 0",
    "stages[-2].steps=3": "stages[-2].steps=3: index -2 given; there are 1, counted from 0",
    "stages+=3": "stages+: a number given; a list is allowed, added to the one before",
    "eval.prompts+=[native.1]": "'eval.prompts+=[native.1]' given; overrides have the form key=value",
    "run.branch_from=auto": "run.branch_from: auto given, which is the run that a file extends, and this one extends",
    "run.branch_from=": (
        "run.branch_from: nothing given; text is allowed, '' for none; write \"run.branch_from=''\" in a command"
    ),
    "run.folder=": "run.folder: nothing given; text is allowed; Folder of everything the run writes",
    "extends=": "extends: nothing given; a file, a recipe or the folder of a run is allowed; name one, or",
    "extends=gs://b/mine": "extends: 'gs://b/mine' given; a file, a recipe or a run in a folder of this machine",
    "extends=nowhere.yaml": "nowhere.yaml: no such configuration",
    "stages[0].epochs=2": "stage 'coit': steps and epochs given; give exactly one of steps, epochs and target_tokens",
    "stages[0].mixture=phrase": "stage 'coit', mixture.phrase: unknown source 'phrase'; did you mean 'phrases'?",
    "stages[0].mixture={}": "stage 'coit', mixture: nothing given; name at least one source",
    "stages[0].mixture=phrases:eng_Latn-fra_Latn": "language 'fra_Latn' given; the source has eng_Latn, deu_Latn",
    "stages[0].mixture=phrases:eng_Latn-deu_Latn[5:5]": (
        "stage 'coit', mixture: 'phrases:eng_Latn-deu_Latn[5:5]' given; a slice [start:stop] needs start below stop"
    ),
    "stages[0].mixture={phrases: {objectives: random-xs}}": (
        "stage 'coit', mixture.phrases.objectives: unknown objective 'random-xs'; did you mean 'random-xss'?"
    ),
    "stages[0].mixture={phrases: {objectives: []}}": (
        "stage 'coit', mixture.phrases.objectives: an empty list given; name one or more, or write off"
    ),
    "stages[0].mixture={phrases: {objectives: [translation, similarity], task: text}}": (
        "stage 'coit', mixture.phrases.objectives: 'translation, similarity' given with task 'text'; objectives "
        "are the task; leave task out"
    ),
    "stages[0].mixture={phrases: {negatives: {}}}": (
        "stage 'coit', mixture.phrases.negatives: {} given; similarity needs random, hard or noised; name one"
    ),
    "stages[0].mixture={phrases: {objectives: pair, negatives: {hard: 1}}}": (
        "stage 'coit', mixture.phrases.negatives: given with objectives 'pair'; only similarity has negatives; "
        "leave them out, or name similarity among the objectives"
    ),
    "stages[0].mixture.phrases.negatives={hard: 1}": (
        "stage 'coit', mixture.phrases.negatives: given with objectives 'off'; only similarity has negatives"
    ),
    "stages[0].mixture={phrases: {weight: {steps: [5, 5], weights: [1, 2]}}}": (
        "stage 'coit', mixture.phrases.weight: steps [5, 5] and weights [1.0, 2.0] given; as many weights as steps"
    ),
    "stages[0].mixture={phrases: {weight: {steps: [0], weights: [1]}}, more: {source: phrases}}": (
        "stage 'coit', mixture.more.weight: not given, and that of mixture.phrases changes by step; give every "
        "entry one"
    ),
    "stages[0].faithful=true": (
        "stage 'coit', faithful: true given, and no entry of its mixture has objectives, which are what the "
        "released code is about; give one of them some, or leave faithful out"
    ),
    "data.sources.phrases.kind=cldrr": "data.sources.phrases.kind: 'cldrr' given; did you mean 'cldr'?",
    "data.sources.phrases.languages=[deu]": "data.sources.phrases: unknown language 'deu'; write 'deu_Latn'",
    "data.sources.phrases.languages=[german]": "data.sources.phrases: unknown language 'german'; write 'deu_Latn'",
    "data.sources.phrases.languages=[eng_Latn,eng_Latn]": "each may appear once",
    "data.sources.more.path=x.json": "data.sources.more.kind: not given; instructions, chat, parallel, qa",
    "data.sources.more.kind=qa": "data.sources.more.path: not given; JSON file",
    "eval.tasks=[phrases]": "eval.tasks: 'phrases' given; write NAME.LANGUAGE or NAME.LANGUAGE-LANGUAGE",
    "eval.abilities.old=[xquad.eng_Latn]": "eval.abilities.old: 'xquad.eng_Latn' given, which is not evaluated; tasks of eval.tasks are allowed, ",
    "eval.abilities.old=[]": "eval.abilities.old: no task given; tasks of eval.tasks are allowed; name one, or leave it out",
    "eval.tasks=[phrases.eng_Latn-eng_Latn]": "direction 'eng_Latn-eng_Latn' given; write SOURCE-TARGET",
    "eval.tasks=[floers.eng_Latn]": "eval.tasks: 'floers.eng_Latn': unknown source or task file 'floers'; did you mean 'flores'?",
    "train.micro_batch_rows=48": "train.micro_batch_rows: 48 given, which does not divide train.batch_rows=128",
    "tokens.kind=huggingface": "tokens.path: nothing given; tokens.kind=huggingface needs the path of a tokenizer",
    "model.compute_dtype=fp16": "model.compute_dtype: 'fp16' given; bfloat16|float32 is allowed",
    "run": "'run' given; overrides have the form key=value, such as train.batch_rows=64",
    "stages[0].steps=true": "stages[0].steps: 'true' given; whole number above 0 or auto is allowed",
    "tokens.packing=1": "tokens.packing: '1' given; true/false is allowed",
    "tokens.packing=no": "tokens.packing: 'no' given; true/false is allowed",
    "train.batch_rows='8'": "train.batch_rows: the text '8' given; whole number above 0 is allowed",
    "data.sources.more={kind: text, path: x, language: no}": "data.sources.more: unknown language 'no'",
    "data.sources.more={kind: text, path: x, language: true}": (
        "data.sources.more.language: the truth value true given; text is allowed"
    ),
    "data.sources.more={kind: text, path: 1.10, language: eng_Latn}": (
        "data.sources.more.path: the number 1.1 given; text is allowed"
    ),
    "stages[0].mixture={phrases: {weight: heavy}}": (
        "stages[0].mixture.phrases.weight: 'heavy' given; number above 0 or auto or map is allowed; Share of"
    ),
    "stages[0].mixture={phrases: {direction: [[a]]}}": (
        "stages[0].mixture.phrases.direction: a list given; text or list of texts is allowed; Translation"
    ),
    "stages[0].mixture=3": "stages[0].mixture: '3' given; map of names to options is allowed; What is learned",
    "stages[0].mixture={2: {}}": "stages[0].mixture: key 2 given; text is allowed; quote it or rename it",
    "data.sources={2: {kind: cldr}}": "data.sources: key 2 given; text is allowed; quote it or rename it",
    "train={3: 4}": "train: key 3 given; text is allowed; quote it or rename it",
    "stages[0].name=a b": "stages[0].name: 'a b' given; text that matches ^[A-Za-z0-9_-]+$ is allowed; Name of",
    "data.sources=3": "data.sources: '3' given; map of names to options is allowed; Sources by name.",
    "data.sources.more={kind: parallel, path: x, languages: [eng_Latn]}": (
        "data.sources.more.languages: [eng_Latn] given; list of language codes (2 or more) is allowed"
    ),
    "data.sources.more={kind: cldr, languages: [eng_Latn, 3]}": (
        "data.sources.more.languages[1]: the number 3 given; language code is allowed; Languages to write"
    ),
    "data.sources.more={kind: text, path: news.{language}}": (
        "not YAML: expected ',' or '}', but got '{'; mend the line, or quote values that hold { or }, such as"
    ),
    "model.path=llama": "model.path: 'llama' given; model.init=scratch draws its parameters and needs no path",
    "run.seed.x=3": "run.seed: a map given; whole number of at least 0 and below 4294967296 is allowed",
    "run.seed=[": "run.seed=[:1: not YAML",
}


@pytest.mark.parametrize(("override", "message"), BAD_OVERRIDES.items())
def test_a_bad_override_is_told_in_one_line(small: Path, override: str, message: str):
    with pytest.raises(ConfigError) as error:
        load_config(str(small), [override])
    assert message in str(error.value)
    assert "\n" not in str(error.value)


BAD_FILES = {
    "": "the file is empty; a run needs at least data.sources and stages",
    "- a\n- b\n": "a list given; a map of options is allowed",
    "run: {seed: 1\n": "not YAML",
    "run: {seed: 1}\nrun: {seed: 2}\n": "key 'run' given twice in the map of line 1; give it once",
    "extends: [demo.yaml]\n": "extends: a list given; a file, a recipe or the folder of a run is allowed; name one",
    "extends:\n": "extends: nothing given; a file, a recipe or the folder of a run is allowed",
    "extends: gs://b/mine\n": "extends: 'gs://b/mine' given; a file",
    "extends: wrong\nrun: {branch_from: auto}\n": "wrong/config.yaml: run: a text given; a map of options is allowed",
    "extends: wrong.yaml\nrun: {branch_from: auto}\n": "wrong.yaml: run: a text given; a map of options",
    "extends: nowhere.yaml\n": "nowhere.yaml: no such configuration",
    "extends: small.yaml\nstages: []\nstages+: []\n": "bad.yaml: stages+: given beside stages; one of them is",
    "extends: small.yaml\neval: {tasks+: phrases.eng_Latn-deu_Latn}\n": "bad.yaml: eval.tasks+: a text given; a list",
    "extends: small.yaml\neval: {prompts+: [native]}\n": "eval: unknown key 'prompts+'; did you mean 'prompts'?",
    "extends: twice.yaml\n": "extends 'twice.yaml', which itself extends 'small.yaml'; only one is allowed",
}


@pytest.mark.parametrize(("text", "message"), BAD_FILES.items())
def test_a_bad_file_is_told_in_one_line(tmp_path: Path, small: Path, text: str, message: str):
    (tmp_path / "twice.yaml").write_text("extends: small.yaml\n")
    (tmp_path / "wrong.yaml").write_text(SMALL + "run: text\n")
    (run_of(load_config(str(small)), tmp_path / "wrong") / "config.yaml").write_text(SMALL + "run: text\n")
    (tmp_path / "bad.yaml").write_text(text)
    with pytest.raises(ConfigError) as error:
        load_config(str(tmp_path / "bad.yaml"))
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_a_map_may_be_merged_and_changed(tmp_path: Path):
    (tmp_path / "merged.yaml").write_text(
        "data:\n  sources:\n"
        "    first: &first {kind: cldr, languages: [eng_Latn, deu_Latn], records: 50}\n"
        "    second: {<<: *first, records: 60}\n"
    )
    sources = load_config(str(tmp_path / "merged.yaml")).data.sources
    assert [sources["first"].records, sources["second"].records] == [50, 60]
    assert sources["second"].languages == ["eng_Latn", "deu_Latn"]


def test_a_file_that_is_not_utf8_is_named_with_the_byte(tmp_path: Path):
    path = tmp_path / "latin1.yaml"
    path.write_bytes("run: {folder: Größe}".encode("latin-1"))
    with pytest.raises(ConfigError, match="latin1.yaml: byte 16 is not UTF-8; save the file as UTF-8"):
        load_config(str(path))


def test_a_missing_config_names_the_nearest_one(tmp_path: Path, small: Path):
    with pytest.raises(ConfigError, match=r"smal.yaml: no such configuration; did you mean '.*small.yaml'\?"):
        find_config(str(tmp_path / "smal.yaml"))
    with pytest.raises(
        ConfigError, match=r"configs/demmo.yaml: no such configuration; did you mean 'configs/demo"
    ):
        find_config("configs/demmo.yaml")


def test_a_name_that_shares_only_its_folder_and_ending_is_not_suggested(tmp_path: Path, small: Path):
    assert nearest("nope.json", ["obj.json"]) == "known: obj.json"
    with pytest.raises(ConfigError, match=r"nope.yaml: no such configuration; known: "):
        find_config(str(tmp_path / "nope.yaml"))


@pytest.mark.parametrize("call", ["is_file", "read_text"])
def test_a_config_that_may_not_be_read_is_one_line(small: Path, monkeypatch: pytest.MonkeyPatch, call: str):
    """A folder without permission fails where the file is looked for, a file where it is read."""

    def refuse(path: Path, *_: str) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, call, refuse)
    with pytest.raises(ConfigError) as error:
        load_config(str(small))
    assert str(error.value) == (
        f"{small}: no permission to read '{small}'; a configuration that can be read is needed; "
        "allow it with chmod a+rX"
    )


def test_whole_numbers_are_numbers_and_texts_where_these_are_needed(small: Path):
    overrides = [
        "train.optimizer.peak_lr=1",
        "stages[0].name=2024",
        "data.sources.news={kind: parallel, path: a.tsv, languages: [eng_Latn, deu_Latn], columns: {eng_Latn: 2}}",
        "run.folder=2024-01-01",
    ]
    config = load_config(str(small), overrides)
    assert type(config.train.optimizer.peak_lr) is float
    assert config.stages[0].name == "2024"
    assert config.data.sources["news"].columns == {"eng_Latn": "2"}
    assert config.run.folder == "2024-01-01"


def test_a_folder_that_is_no_run_is_refused(tmp_path: Path):
    with pytest.raises(ConfigError, match="a folder without config.yaml given"):
        find_config(str(tmp_path))


def test_overrides_reach_into_lists_and_make_missing_maps():
    given = {"stages": [{"name": "a"}]}
    apply_override(given, "stages[0].steps=3")
    apply_override(given, "train.optimizer.kind=lion")
    assert given == {"stages": [{"name": "a", "steps": 3}], "train": {"optimizer": {"kind": "lion"}}}


def test_help_tells_every_field_and_needs_no_jax():
    text = help_text("jaxlingua.train", "Trains.")
    for name, section in Config.model_fields.items():
        if name != "stages":
            for field in section.annotation.model_fields:
                assert f"{name}.{field}" in text
    probe = "import sys, jaxlingua.command_line; assert not {'jax', 'tensorflow', 'transformers'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", probe], check=True)


def test_every_field_says_what_it_is_and_whether_a_resume_may_change_it():
    def check(model: type) -> None:
        for name, field in model.model_fields.items():
            assert field.description, (model, name)
            assert field.json_schema_extra["on_resume"] in ("identity", "free"), (model, name)
            if hasattr(field.annotation, "model_fields"):
                check(field.annotation)

    check(Config)


def test_help_exits_with_0_and_a_missing_config_with_2(capsys: pytest.CaptureFixture):
    for arguments, code in ((["--help"], 0), ([], 2)):
        with pytest.raises(SystemExit) as stop:
            config_from_command_line("jaxlingua.train", "Trains.", arguments)
        assert stop.value.code == code
        assert "usage: python -m jaxlingua.train CONFIG" in capsys.readouterr().out


def test_errors_that_a_user_can_mend_are_one_line_with_code_2(capsys: pytest.CaptureFixture):
    def fails() -> None:
        raise DataError("news.tsv:3: two\nlines")

    with pytest.raises(SystemExit) as stop:
        exit_with_one_line(fails)
    assert stop.value.code == 2
    assert capsys.readouterr().err == "error: news.tsv:3: two lines\n"


def test_a_full_disk_is_one_line_with_code_1(capsys: pytest.CaptureFixture):
    def fails() -> None:
        raise OSError(28, "No space left on device", "runs/x")

    with pytest.raises(SystemExit) as stop:
        exit_with_one_line(fails)
    assert stop.value.code == 1
    assert capsys.readouterr().err.startswith("error: runs/x: No space left on device; free some space")


def test_our_own_bugs_keep_their_traceback():
    def fails() -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        exit_with_one_line(fails)
    assert one_line(ValueError("a\n  b")) == "a b"


def test_a_run_goes_on_where_it_lies_and_a_home_folder_is_understood(tmp_path, monkeypatch):
    run = tmp_path / "moved"
    run.mkdir()
    (run / "config.yaml").write_text("run: {folder: runs/elsewhere}\n")
    (run / "provenance.json").write_text("{}")
    assert load_config(str(run)).run.folder == str(run)
    assert load_config(str(run), ["run.folder=another"]).run.folder == "another"
    assert load_config(str(run / "config.yaml")).run.folder == "runs/elsewhere"
    monkeypatch.setenv("HOME", str(tmp_path))
    assert load_config(str(run), ["run.folder=~/q"]).run.folder == f"{tmp_path}/q"
