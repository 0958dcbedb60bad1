"""docs/add_language.md: all of its commands, with a small run, few sentences and few steps."""

import json
import re
import shlex
import sys
from pathlib import Path

import pytest

from jaxlingua.command_line import load_config
from jaxlingua.errors import exit_with_one_line
from jaxlingua.eval.__main__ import main as evaluate
from tests.flow.small import train
from tests.tiny import tiny_parallel

# One worker of pytest-xdist takes all, so that the run that is added to is trained once.
pytestmark = pytest.mark.xdist_group("add_language")

TEXT = (Path(__file__).parents[2] / "docs" / "add_language.md").read_text("utf-8")
# What the demo becomes; the runs that are added to it have it from there.
SMALL = [
    "model.preset=tiny-test", "tokens.vocab_size=400", "stages[0].steps=4", "stages[0].mixture=phrases",
    "data.sources.phrases={kind: cldr, languages: [eng_Latn, deu_Latn], records: 200}",
    "train.optimizer.warmup_steps=1", "train.held_out_documents=0", "checkpoint.save_every_steps=3",
    "checkpoint.keep_last=1", "eval.tasks=[phrases.eng_Latn-deu_Latn]", "eval.items=2",
    "eval.bootstrap_samples=20", "generate.max_new_tokens=8", "generate.batch_rows=8", "tracking.tensorboard=false", "tracking.log_every_steps=1",
]  # fmt: skip
SIZES, SMALLER = "100 1000 10000", (3, 20)
TASKS = ["phrases.eng_Latn-deu_Latn", "new.eng_Latn-ind_Latn", "new.ind_Latn-eng_Latn"]


def commands() -> list[str]:
    blocks = re.findall(r"```bash\n(.*?)```", TEXT, re.DOTALL)
    return [line.partition(" # ")[0].strip() for block in blocks for line in block.splitlines()]


def arguments(command: str) -> list[str]:
    words = shlex.split(command)
    assert words[:2] == ["python", "-m"]
    return words[2:]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory):
    """A folder in which the page's first command was run, as it were, and the new language lies."""
    home = tmp_path_factory.mktemp("add")
    (home / "corpus").mkdir()
    for code, made_up in (("eng_Latn", "eng_Latn"), ("ind_Latn", "ell_Grek")):
        (home / "corpus" / f"ind.{code}").write_text("\n".join(tiny_parallel()[made_up]), "utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(home)
        module, config = arguments(commands()[0])
        assert (module, config) == ("jaxlingua.train", "demo.yaml")
        train(Path(config), *SMALL)
    return home


@pytest.fixture
def here(home: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(home)
    return home


@pytest.fixture(scope="module")
def added(home: Path) -> Path:
    """The language added by the page's command, in three steps."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(home)
        module, config, *overrides = arguments(commands()[1])
        assert module == "jaxlingua.train"
        train(Path(config), *overrides, "stages[-1].epochs=auto", "stages[-1].steps=3")
    return home / "runs" / "add_language"


def scores(run: Path) -> dict[str, set[str]]:
    """Tasks by the model that has a score in them."""
    found: dict[str, set[str]] = {}
    for score in json.loads((run / "report.json").read_text("utf-8"))["scores"]:
        found.setdefault(f"{score['stage']}-{score['step']}", set()).add(score["task"])
    return found


def losses(run: Path) -> dict[int, float]:
    lines = (run / "metrics.jsonl").read_text("utf-8").splitlines()
    return {line["step"]: line["loss"] for line in map(json.loads, lines)}


def test_one_command_adds_a_language_and_scores_it_before_and_after(home: Path, added: Path):
    found = scores(added)
    assert [found[name] for name in ("base-0", "coit-4", "new_language-7")] == [set(TASKS)] * 3
    told = json.loads((added / "report.json").read_text("utf-8"))["data"]["stages"][1]["mixture"]
    assert {row["entry"] for row in told} == {"new", "replay.coit.phrases"}
    assert (added / "report.md").read_text("utf-8").count("new\\_language") > 1
    # All of the time before is there, and the last checkpoint of every stage.
    assert losses(added).keys() == set(range(1, 8))
    assert {step: loss for step, loss in losses(added).items() if step <= 4} == losses(home / "runs" / "demo")
    assert sorted(path.name for path in (added / "checkpoints").iterdir()) == ["4", "7"]
    facts = json.loads((added / "provenance.json").read_text("utf-8"))
    assert (facts["branched"]["folder"], facts["branched"]["step"]) == (str(home / "runs" / "demo"), 4)
    first = json.loads((home / "runs" / "demo" / "provenance.json").read_text("utf-8"))
    assert facts["branched"]["command"] == first["command"] != facts["command"]
    assert "add_language.yaml" in facts["command"]
    assert facts["begun_with"] == first["begun_with"]
    kept = load_config(str(added))
    assert (kept.run.branch_from, [stage.name for stage in kept.stages]) == ("", ["coit", "new_language"])
    assert kept.eval.tasks == TASKS


def test_the_run_that_is_added_to_stays_as_it_is(home: Path, added: Path):
    demo = home / "runs" / "demo"
    assert [path.name for path in (demo / "checkpoints").iterdir()] == ["4"]
    assert set(losses(demo)) == {1, 2, 3, 4}
    assert scores(demo).keys() == {"base-0", "coit-4", "floors-0"}
    assert not list((home / "runs").glob(".*"))


def test_the_same_command_goes_on_and_a_stage_added_in_place_learns_the_same(here: Path, added: Path):
    """Bit for bit: what a copy learns is what the run itself would have learned."""
    before = (added / "metrics.jsonl").read_bytes()
    _, config, *overrides = arguments(commands()[1])
    length = ["stages[-1].epochs=auto", "stages[-1].steps=3"]
    train(Path(config), *overrides, *length)
    assert (added / "metrics.jsonl").read_bytes() == before
    in_place = re.search(r"`(run\.folder=RUN [^`]*)`", TEXT)[1].replace("RUN", "runs/again")
    train(Path("runs/demo"), "run.folder=runs/again", "eval.tasks=[]")
    train(Path(config), *overrides, *length, *shlex.split(in_place), "eval.tasks=[]")
    assert losses(here / "runs" / "again") == losses(added)


def test_all_other_commands_of_the_page_run(here: Path, added: Path, capsys: pytest.CaptureFixture):
    """With fewer pairs, steps and records: the sizes of the page are asked of its text alone."""
    _, _, sweep, table = commands()
    sizes, command = re.fullmatch(r"for n in ([\d ]+); do (.*); done", sweep).groups()
    assert sizes == SIZES
    for size in SMALLER:
        module, config, *overrides = arguments(command.replace("$n", str(size)))
        train(Path(config), *overrides, "stages[-1].steps=2", "data.sources.new.records=60")
        stage = json.loads((here / f"runs/pairs-{size}/data.json").read_text("utf-8"))["stages"][1]
        documents = [row["documents"] for row in stage["mixture"] if row["entry"] == "new"]
        assert documents == [size, size]
        assert stage["steps"] == 2
    module, *words = arguments(table)
    assert (module, words) == ("jaxlingua.eval", ["table", "runs/pairs-*"])
    folders = sorted(str(path.relative_to(here)) for path in here.glob("runs/pairs-*"))
    capsys.readouterr()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", [module, "table", *folders])
        exit_with_one_line(evaluate)
    header = capsys.readouterr().out.split("\n")[0]
    for size in SMALLER:
        assert f"pairs-{size} coit, step 4 | pairs-{size} new\\_language, step 6" in header


def test_the_overrides_of_the_page_change_what_they_say(here: Path):
    plain = load_config("add_language.yaml", ["extends=runs/demo"])
    rows = re.findall(r"^\| [^|]* \| (`.*`.*) \|$", TEXT, re.MULTILINE)
    for given in [given for row in rows for given in re.findall(r"`([^`]*)`", row)]:
        changed = load_config("add_language.yaml", ["extends=runs/demo", *shlex.split(given)])
        assert changed != plain, given
        assert changed.stages[0] == plain.stages[0]
    asked = shlex.split(re.search(r"`('data.sources.asked=[^`]*)`", TEXT)[1])
    assert set(load_config("add_language.yaml", asked).stages[-1].mixture) == {"new", "asked"}
    assert len(rows) == 7


BAD = {
    "another vocabulary": (["tokens.vocab_size=401"], "tokens.vocab_size: 400 there, 401 given; stages, sources"),
    "another tokenizer": (
        ["tokens.kind=huggingface", "tokens.path=runs/demo/tokenizer"], "another run: tokens.kind: "
    ),
    "a stage without data": (["stages[-1].mixture={}"], "stage 'new_language', mixture: nothing given; name at"),
    "files that are not there": (["data.sources.new.path=none.{language}"], "none.eng_Latn"),
    "one curve with a stage that is trained": (
        ["stages[-1].schedule=continue"], "stages[1].schedule: 'continue' given for 'new_language', and the"
    ),
    "no run": (["extends=demo.yaml", "run.branch_from=runs/none"], "'runs/none' given, which is no folder; that"),
}  # fmt: skip


@pytest.mark.parametrize("what", BAD)
def test_what_cannot_be_added_is_refused_before_anything_is_trained(
    here: Path, what: str, capsys: pytest.CaptureFixture
):
    overrides, message = BAD[what]
    given = ["extends=runs/demo", "data.sources.new.path=corpus/ind.{language}"]
    named = [
        one for one in given if one.partition("=")[0] not in {new.partition("=")[0] for new in overrides}
    ]
    with pytest.raises(SystemExit) as stop:
        train(Path("add_language.yaml"), *named, *overrides, f"run.folder=runs/bad {what}")
    assert stop.value.code == 2
    told = [line for line in capsys.readouterr().err.split("\n") if line.startswith("error: ")]
    assert len(told) == 1
    assert message in told[0]
    assert not list(here.glob("runs/bad*/evals/new_language-*"))
    assert not list(here.glob("runs/bad*/checkpoints/[5-9]"))


def test_a_stage_without_data_appended_in_place_is_refused(here: Path, capsys: pytest.CaptureFixture):
    """Nothing of the finished run changes: neither its configuration nor what it has learned."""
    before = (here / "runs/demo/config.yaml").read_bytes()
    more = "stages+=[{name: more, mixture: {phrases: {start: 999}}, steps: 2}]"
    with pytest.raises(SystemExit) as stop:
        train(Path("runs/demo"), more)
    assert stop.value.code == 2
    assert "stage 'more', mixture.phrases.start: 999 given" in capsys.readouterr().err
    assert (here / "runs/demo/config.yaml").read_bytes() == before
