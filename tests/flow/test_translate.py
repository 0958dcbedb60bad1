"""`python -m jaxlingua.data translate`, from the command line to the file: kills, batches, models, bad input."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest

from jaxlingua.config import InstructionsSource
from jaxlingua.data.__main__ import main
from jaxlingua.data.protect import parts
from jaxlingua.data.records import Pair
from jaxlingua.data.sources import open_source
from jaxlingua.data.templates import render
from jaxlingua.data.wordings import wording_of
from jaxlingua.errors import exit_with_one_line
from jaxlingua.eval.translate import asking
from jaxlingua.processes import start
from tests.compiling import xla_flags
from tests.flow.small import train, write_config
from tests.flow.test_eval import public

pytestmark = pytest.mark.xdist_group("translated")

LANGUAGES = ("--from", "eng_Latn", "--to", "ell_Grek")
QUICK = (
    "generate.max_new_tokens=6",
    "generate.batch_rows=8",
    "model.compute_dtype=float32",
    "data.template=short",
)
RECORDS = [
    {
        "id": f"r{number}",
        "instruction": f"Tell {{name}} how animal {number} lives.",
        "input": "" if number % 2 else f"It is old.\n```\ncode {number}\n```\n- mail a{number}@b.org",
        "output": f"It eats `x{number}` and sleeps, see https://a.org/{number}.\n\n{number}",
        "kept": [number, None],
    }
    for number in range(12)
]


def command(*arguments: object) -> None:
    """`python -m jaxlingua.data …` in this process."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["jaxlingua.data", *map(str, arguments)])
        exit_with_one_line(main)


def refused(capsys, *arguments: object, code: int = 2) -> str:
    """The one line with which the command ends."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as ended:
        command(*arguments)
    assert ended.value.code == code
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1, lines
    return lines[0].removeprefix("error: ")


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Path:
    """A file of records, two public models, and what the first makes of the file."""
    folder = tmp_path_factory.mktemp("translated")
    (folder / "in.json").write_text(json.dumps(RECORDS), "utf-8")
    public(folder / "model")
    public(folder / "other", 0.2)
    command(*asked(folder, folder / "once.json"))
    return folder


def asked(home: Path, output: Path, *overrides: str, model: str = "model", file: str = "in.json") -> list:
    return [
        "translate",
        home / file,
        "--model",
        home / model,
        *LANGUAGES,
        "--output",
        output,
        *QUICK,
        *overrides,
    ]


def test_every_record_comes_back_with_its_other_fields_and_all_that_is_protected(home):
    found = json.loads((home / "once.json").read_text("utf-8"))
    report = json.loads((home / "once.json.report.json").read_text("utf-8"))
    assert [list(one) for one in found] == [list(one) for one in RECORDS]
    for number, (before, after) in enumerate(zip(RECORDS, found, strict=True)):
        assert (after["id"], after["kept"]) == (before["id"], before["kept"])
        assert (after["input"] == "") == (before["input"] == "")
        assert "{name}" in after["instruction"]
        assert after["instruction"] != before["instruction"]
        assert f"`x{number}`" in after["output"]
        assert f"https://a.org/{number}.\n\n{number}" in after["output"]
        if before["input"]:
            assert f"\n```\ncode {number}\n```\n- " in after["input"]
            assert f"a{number}@b.org" in after["input"]
    assert report["records"] == len(RECORDS)
    assert report["fields"] == {"translated": 30, "empty": 6, "nothing_to_translate": 0}
    assert report["protected_spans"] == 12 + 6 * 2 + 12 * 2
    language = report["language"]
    assert language["on"] + language["off"] + language["undecided"] == 30
    assert report["records_with_problems"] == len(report["problems_by_record"])
    listed = [
        problem
        for one in report["problems_by_record"]
        for name in one
        if name not in ("index", "id")
        for problem in one[name]
    ]
    assert {name: listed.count(name) for name in listed} == report["problems"]
    assert report["problems_by_record"][0]["id"] == RECORDS[report["problems_by_record"][0]["index"]]["id"]
    assert not (home / "once.json.unfinished").exists()


def test_the_output_is_read_as_instructions(home):
    config = InstructionsSource(
        kind="instructions", path="once.json", language="ell_Grek", held_out_records=0
    )
    assert len(open_source("x", config, str(home)).records("all")) == len(RECORDS)


def test_the_model_is_asked_as_in_training_and_for_each_part_once(home, tmp_path, monkeypatch):
    requests = []
    monkeypatch.setattr(
        asking,
        "generate",
        lambda model, params, now, **rest: requests.append((now, rest)) or real(model, params, now, **rest),
    )
    command(*asked(home, tmp_path / "out.json"))
    wanted = {
        render(
            Pair(0, {"eng_Latn": part.text, "ell_Grek": "x"}),
            wording_of("short"),
            source="a",
            training=False,
            direction=("eng_Latn", "ell_Grek"),
        ).prompt
        for one in RECORDS
        for name in ("instruction", "input", "output")
        for part in parts(one[name])
        if part.is_asked
    }
    (first, rest), *_ = requests
    given = [rest["tokenizer"].decode(one.prompt[1:]) for one in first]
    assert sorted(given) == sorted(wanted)
    assert (tmp_path / "out.json").read_bytes() == (home / "once.json").read_bytes()


real = asking.generate


@pytest.mark.parametrize(
    "overrides", [["generate.batch_rows=16"], ["sharding.mesh={data: 2, tensor: 2, fsdp: 2}"]]
)
def test_neither_batch_nor_mesh_change_the_output(home, tmp_path, overrides):
    command(*asked(home, tmp_path / "out.json", *overrides))
    assert (tmp_path / "out.json").read_bytes() == (home / "once.json").read_bytes()
    assert (tmp_path / "out.json.report.json").read_bytes() == (home / "once.json.report.json").read_bytes()


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_one_that_was_ended_goes_on_asks_nothing_twice_and_gives_the_same_bytes(
    home, tmp_path, monkeypatch, capsys, how
):
    output = tmp_path / "out.json"
    environment = os.environ | {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": xla_flags(8)}
    arguments = [sys.executable, "-m", "jaxlingua.data", *map(str, asked(home, output))]
    process = subprocess.Popen(
        arguments, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    journal = tmp_path / "out.json.unfinished" / "unfinished.jsonl"
    while process.poll() is None and (not journal.is_file() or journal.read_bytes().count(b"\n") < 17):
        time.sleep(0.01)
    process.send_signal(how)
    said, _ = process.communicate(timeout=300)
    if how == signal.SIGTERM:
        assert process.returncode == 143
        assert said.endswith("stopped: answers so far are kept; exit code 143; run it again to go on\n")
    else:
        assert process.returncode == -signal.SIGKILL
    known = journal.read_bytes().count(b"\n") - 1
    assert known >= 16
    assert not output.exists()
    left = []
    monkeypatch.setattr(
        asking,
        "generate",
        lambda model, params, now, **rest: left.append(len(now)) or real(model, params, now, **rest),
    )
    line = refused(capsys, *asked(home, output, "generate.max_new_tokens=7"))
    assert line == (
        f"--output: '{output}' given, which was begun with max_new_tokens '6'; now '7' is given; give the same "
        f"again, choose another name, or remove {output}.unfinished"
    )
    assert "was begun with model '" in refused(capsys, *asked(home, output, model="other"))
    command(*asked(home, output))
    assert output.read_bytes() == (home / "once.json").read_bytes()
    assert (tmp_path / "out.json.report.json").read_bytes() == (home / "once.json.report.json").read_bytes()
    assert not journal.parent.exists()
    resumed = sum(left)
    left.clear()
    command(*asked(home, tmp_path / "whole.json"))
    assert resumed == sum(left) - known


def test_an_output_that_is_there_is_kept(home, tmp_path, capsys, monkeypatch):
    output = tmp_path / "out.json"
    for name in ("once.json", "once.json.report.json"):
        shutil.copy(home / name, tmp_path / name.replace("once", "out"))
    monkeypatch.setattr(asking, "generate", None)
    before = output.read_bytes()
    capsys.readouterr()
    command(*asked(home, output))
    assert "translated already" in capsys.readouterr().out
    line = refused(capsys, *asked(home, output, model="other"))
    assert "was begun with model '" in line
    assert line.endswith("or remove it and out.json.report.json")
    (tmp_path / "out.json.report.json").unlink()
    line = refused(capsys, *asked(home, output))
    assert line == (
        f"--output: '{output}' given, which is there already and no translation of ours; a new name is "
        f"allowed; choose one"
    )
    assert output.read_bytes() == before


def test_what_can_be_refused_without_devices_is_refused_before_they_start(
    home, tmp_path, capsys, monkeypatch
):
    def starts(*_):
        raise AssertionError("devices are started")

    monkeypatch.setattr(start, "together", starts)
    output = tmp_path / "out.json"
    assert refused(capsys, *asked(home, output, model="nobody")).startswith(f"--model: '{home}/nobody' does")
    (tmp_path / "empty").mkdir()
    assert "holds no config.json" in refused(capsys, *asked(home, output, model=tmp_path / "empty"))
    for name in ("once.json", "once.json.report.json"):
        shutil.copy(home / name, tmp_path / name.replace("once", "out"))
    line = refused(capsys, *asked(home, output, "generate.max_new_tokens=7"))
    assert "which was begun with max_new_tokens '6'; now '7' is given" in line
    (tmp_path / "out.json.report.json").unlink()
    assert "no translation of ours" in refused(capsys, *asked(home, output))
    with pytest.raises(AssertionError):
        command(*asked(home, tmp_path / "new.json"))


def test_two_processes_do_not_write_one_output(home, tmp_path, capsys):
    from jaxlingua.generate.output import held

    with held(tmp_path / "out.json", {"a": 1}):
        (tmp_path / "out.json.unfinished" / "settings.json").unlink()
        line = refused(capsys, *asked(home, tmp_path / "out.json"), code=1)
        (tmp_path / "out.json.unfinished").mkdir(exist_ok=True)
    assert line.startswith(f"--output: '{tmp_path / 'out.json'}' given, which another process is writing")


def test_a_run_of_ours_translates_with_its_own_template_and_tokenizer(home, tmp_path, capsys):
    train(write_config(tmp_path / "small.yaml"), "stages[0].steps=2", "eval.tasks=[]")
    rows = [{"instruction": "in 2 days", "output": "on Monday"}, {"instruction": "a year", "output": "now"}]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "in.parquet")
    file, output = tmp_path / "in.parquet", tmp_path / "out.parquet"
    command("translate", file, "--model", tmp_path / "run", *LANGUAGES, "--output", output)
    found = pyarrow.parquet.read_table(output).to_pylist()
    assert len(found) == 2
    assert all(one["instruction"] != before["instruction"] for one, before in zip(found, rows, strict=True))
    report = json.loads((tmp_path / "out.parquet.report.json").read_text("utf-8"))
    assert report["settings"]["wording"] == wording_of("short").fingerprint
    assert report["settings"]["max_new_tokens"] == 8  # the run's own


def test_what_is_too_long_for_the_model_stays_and_is_told(home, tmp_path):
    long = "word " * 60 + "end"  # one sentence
    (tmp_path / "in.json").write_text(json.dumps([{"instruction": "Say it.", "output": long}]), "utf-8")
    command(*asked(tmp_path, tmp_path / "out.json", model=home / "model"))
    (found,) = json.loads((tmp_path / "out.json").read_text("utf-8"))
    assert found["output"] == long
    assert found["instruction"] != "Say it."
    report = json.loads((tmp_path / "out.json.report.json").read_text("utf-8"))
    (listed,) = report["problems_by_record"]
    assert "too long for the model" in listed["output"]


def test_samples_depend_on_the_seed_and_on_what_is_asked_not_on_what_stands_beside(home, tmp_path):
    (tmp_path / "in.json").write_text(json.dumps(RECORDS[::-1]), "utf-8")
    made = {}
    for name, folder, seed in (("a", home, 1), ("b", home, 1), ("c", home, 2), ("reversed", tmp_path, 1)):
        output = tmp_path / f"{name}.json"
        options = ("generate.temperature=1.0", f"run.seed={seed}", f"generate.batch_rows={8 * seed}")
        command(*asked(folder, output, *options, model=home / "model"))
        made[name] = json.loads(output.read_text("utf-8"))
    assert made["a"] == made["b"] != made["c"]
    assert made["reversed"] == made["a"][::-1]


# ── bad input ─────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"FILE": "absent.json"}, "FILE: '{home}/absent.json' given, which is no file; give one of Alpaca's form"),
        ({"--to": "eng_Latn"}, "--to: 'eng_Latn' given, which is the language of FILE; give another one"),
        ({"--to": "greek"}, "--to: unknown language 'greek'; write 'ell_Grek'"),
        ({"--model": "nobody"}, "nobody"),
        ({"--output": "in/out.json"}, "--output: '{home}/in/out.json' given, which is in no folder; a file in a folder that is there is allowed; give one"),
        ({"--output": "model"}, "--output: '{home}/model' given, which is a folder; a file in a folder that is there is allowed; give one"),
        ({"--output": "out.parquet"}, "--output: '{home}/out.parquet' given; the file that is read is JSON, and what is written has its form, not zipped; name it out.json"),
        ({"--from": None}, "--from: not given; Language of FILE. Write --from eng_Latn"),
        ({"--wat": "x"}, "jaxlingua.data translate: '--wat' given; "),
        ({"FILE": None}, "jaxlingua.data translate: 0 files given; one FILE is needed; give one; see --help"),
        ({"more": "second.json"}, "jaxlingua.data translate: 2 files given; one FILE is needed; give one; see --help"),
        ({"more": "train.batch_rows=3"}, "train.batch_rows=3: has no effect here; options of generate and sharding, and those that --help names, are allowed; leave it out"),
        ({"more": "generate.beam=3"}, "jaxlingua.data translate: generate: unknown key 'beam'; did you mean 'beams'?"),
        ({"more": "generate.top_k=3"}, "generate.top_k: 3 given with generate.temperature=0"),
        ({"more": "generate.max_new_tokens=255"}, "generate.max_new_tokens: 255 given, which leaves 1 of the model's 256 positions, too few for any prompt; give less"),
    ],
)  # fmt: skip
def test_what_cannot_be_translated_is_told_in_one_line(home, capsys, changes, told):
    given = {
        "FILE": home / "in.json", "--model": home / "model", "--from": "eng_Latn", "--to": "ell_Grek",
        "--output": home / "refused.json",
    }  # fmt: skip
    for name, value in changes.items():
        given[name] = home / value if value and name in ("FILE", "--model", "--output") else value
    flags = [
        part for name, value in given.items() if name.startswith("--") and value for part in (name, value)
    ]
    file = [given["FILE"]] if given["FILE"] else []
    line = refused(capsys, "translate", *file, *flags, *QUICK[1:], given.get("more") or QUICK[0])
    assert told.format(home=home) in line
    assert not (home / "refused.json").exists()


def test_help_tells_the_flags_and_the_options_that_matter(capsys):
    with pytest.raises(SystemExit) as ended:
        command("translate", "--help")
    told = capsys.readouterr().out
    assert ended.value.code == 0
    assert told.startswith(
        "usage: python -m jaxlingua.data translate FILE --model MODEL --from eng_Latn --to"
    )
    assert "generate.max_new_tokens" in told
    assert "train." not in told.replace("train.batch_rows=64", "")
