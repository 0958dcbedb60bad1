"""What users get wrong: each is told in one line, with exit code 2 and no traceback, before anything is trained."""

import gzip
import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.flow.small import train, write_config

# Hexadecimal digits, which no tokenizer makes short.
GOOD = [
    {"instruction": hashlib.sha256(bytes([n])).hexdigest()[:24], "input": "", "output": f"It is {n}."}
    for n in range(40)
]


def instructions(folder: Path, content: bytes | None, name: str = "a.json", **options: Any) -> Path:
    """A configuration that trains on one file of instructions."""
    if content is not None:
        (folder / name).write_bytes(content)
    source = {"kind": "instructions", "path": name, "language": "eng_Latn"}
    data = {"folder": str(folder), "template": "short", "sources": {"alpaca": source}}
    stages = [{"name": "sft", "mixture": "alpaca", "steps": 2}]
    return write_config(folder / "bad.yaml", **{"data": data, "stages": stages, "eval": {}, **options})


def jsonl(rows: list[Any]) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def refused(config: Path, *overrides: str, capsys: pytest.CaptureFixture) -> str:
    """The one line that a run is refused with."""
    with pytest.raises(SystemExit) as stop:
        train(config, *overrides)
    assert stop.value.code == 2
    told = capsys.readouterr().err
    errors = [line for line in told.split("\n") if line.startswith("error: ")]
    assert len(errors) == 1
    assert "Traceback" not in told
    assert not (config.parent / "run" / "checkpoints").exists()
    return errors[0]


def test_good_input_is_not_refused(tmp_path: Path):
    """Without this, the tests below could all pass for another reason."""
    train(instructions(tmp_path, json.dumps(GOOD).encode()))
    assert (tmp_path / "run" / "report.html").is_file()


def test_a_missing_config(tmp_path: Path, capsys: pytest.CaptureFixture):
    told = refused(tmp_path / "nowhere.yaml", capsys=capsys)
    assert "nowhere.yaml: no such configuration" in told


OVERRIDES = {
    "attention of another platform": (
        "model.attention=splash",
        "model.attention: 'splash' given; it runs on TPUs, and this program is for a cpu; set model.attention=auto",
    ),
    "an option that no compiler knows": (
        "train.compiler_options={xla_of_my_own: 3}",
        "No such compile option: 'xla_of_my_own'); leave that one out, or set train.compiler_options=auto",
    ),
    "a bucket": (
        "run.folder=s3://bucket/run",
        "run.folder: 's3://bucket/run' given; a folder of this machine or gs://bucket/path is allowed; write",
    ),
    "a misspelt key": ("train.batch_row=4", "train: unknown key 'batch_row'; did you mean 'batch_rows'?"),
    "a wrong type": (
        "train.batch_rows=many",
        "train.batch_rows: 'many' given; whole number above 0 is allowed",
    ),
    "an unknown language": (
        "data.sources.alpaca.language=tha",
        "data.sources.alpaca: unknown language 'tha'; write 'tha_Thai'",
    ),
    "a preset that does not exist": (
        "model.preset=llama2-7",
        "unknown preset 'llama2-7'; did you mean 'llama2-7b'?",
    ),
    "a mesh that does not divide the devices": (
        "sharding.mesh.fsdp=3",
        "sharding.mesh: data=auto, fsdp=3, tensor=1 gives 3, but there are 8 devices",
    ),
    "a batch that does not divide": ("train.batch_rows=12", "train.batch_rows: 12 rows cannot be split over"),
    "rows longer than the model is meant for": (
        "model.max_positions=32",
        "the model is meant for at most 32 positions",
    ),
    "heads that cannot be spread": ("sharding.mesh={tensor: 8, fsdp: 1}", "kv_heads"),
    "a tracker that is not installed": (
        "tracking.wandb_project=mine",
        "tracking.wandb_project: 'mine' given, wandb is not installed",
    ),
    "no stage": ("stages=[]", "stages: none given; a run needs one or more"),
    "a task of another kind": ("eval.tasks=[alpaca.eng_Latn]", "'alpaca' has no questions"),
    "every example longer than the row": (
        "tokens.row_length_tokens=8",
        "none of its 39 examples fits",
    ),
    "every record held out": ("data.sources.alpaca.held_out_records=40", "mixture.alpaca"),
    "a start beyond the end": ("stages[0].mixture=alpaca[99:]", "99 given"),
}


@pytest.mark.parametrize("what", OVERRIDES)
def test_a_value_that_cannot_be(what: str, tmp_path: Path, capsys: pytest.CaptureFixture):
    override, message = OVERRIDES[what]
    config = instructions(tmp_path, json.dumps(GOOD).encode())
    assert message in refused(config, override, capsys=capsys)


FILES: dict[str, tuple[bytes | None, str, str]] = {
    "a missing file": (None, "a.json", "a.json' does not exist; the folder has"),
    "an empty file": (b"", "a.json", "empty"),
    "a file without records": (b"[]", "a.json", "no record"),
    "truncated JSON in line 3": (jsonl(GOOD[:2]) + b'{"instruction": "cut', "a.jsonl", "a.jsonl:3"),
    "a truncated array": (json.dumps(GOOD).encode()[:-20], "a.json", "a.json"),
    "a truncated gzip file": (gzip.compress(jsonl(GOOD))[:-12], "a.jsonl.gz", "a.jsonl.gz"),
    "invalid UTF-8 in line 2": (jsonl(GOOD[:1]) + b'{"instruction": "\xff"}\n', "a.jsonl", "a.jsonl:2"),
    "a column that the template needs": (
        jsonl([{"question": "a", "answer": "b"}]),
        "a.jsonl",
        "'instruction'",
    ),
    "a number for a text": (jsonl([{"instruction": 3, "input": "", "output": "x"}]), "a.jsonl", "a.jsonl:1"),
    "a picture": (b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 4, "a.jsonl", "a.jsonl:1"),
}


@pytest.mark.parametrize("what", FILES)
def test_a_file_that_cannot_be_read(what: str, tmp_path: Path, capsys: pytest.CaptureFixture):
    content, name, message = FILES[what]
    told = refused(instructions(tmp_path, content, name), capsys=capsys)
    assert "data.sources.alpaca" in told
    assert message in told


def test_parallel_files_of_different_lengths(tmp_path: Path, capsys: pytest.CaptureFixture):
    (tmp_path / "t.eng_Latn").write_text("one\ntwo\n")
    (tmp_path / "t.deu_Latn").write_text("eins\n")
    source = {"kind": "parallel", "path": "t.{language}", "languages": ["eng_Latn", "deu_Latn"]}
    data = {"folder": str(tmp_path), "template": "short", "sources": {"alpaca": source}}
    told = refused(instructions(tmp_path, None, data=data), capsys=capsys)
    assert "t.eng_Latn has 2 lines" in told
    assert "t.deu_Latn has 1" in told


def test_training_on_what_is_evaluated(tmp_path: Path, capsys: pytest.CaptureFixture):
    pairs = [
        {"eng_Latn": f"The house number {n} is green.", "deu_Latn": f"Haus Nummer {n} ist grün."}
        for n in range(60)
    ]
    (tmp_path / "train.jsonl").write_bytes(jsonl(pairs))
    (tmp_path / "test.jsonl").write_bytes(
        jsonl([*pairs[:9], {"eng_Latn": "Another one.", "deu_Latn": "Ein anderes."}])
    )
    languages = ["eng_Latn", "deu_Latn"]
    sources = {
        name: {"kind": "parallel", "path": f"{name}.jsonl", "languages": languages, "held_out_records": 0}
        for name in ("train", "test")
    }
    config = instructions(
        tmp_path,
        None,
        data={"folder": str(tmp_path), "template": "short", "sources": sources},
        stages=[{"name": "coit", "mixture": "train", "steps": 2}],
        eval={"tasks": ["test.eng_Latn-deu_Latn"], "bootstrap_samples": 10},
    )
    assert "the first of 9 leaks in 60 training records" in refused(config, capsys=capsys)
    train(config, "data.leaks=drop")
    counted = json.loads((tmp_path / "run" / "data.json").read_text("utf-8"))["stages"][0]["mixture"][0]
    assert counted["records"] == 60
    assert counted["documents"] == 51
    assert counted["left out"] == "9 equals evaluation text"


def test_answers_that_leave_no_room_for_a_prompt(tmp_path: Path, capsys: pytest.CaptureFixture):
    """Told before anything is trained, also where the first evaluation comes after the training."""
    config = write_config(tmp_path / "bad.yaml")
    told = refused(config, "generate.max_new_tokens=99999", "eval.base_model=false", capsys=capsys)
    assert "generate.max_new_tokens: 99999 given, which leaves no room for a prompt" in told


def test_an_unreadable_answer_of_the_disk_is_code_1(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
):
    def full(*_: Any, **__: Any) -> Callable:
        raise OSError(28, "No space left on device", "run/data.json")

    monkeypatch.setattr("jaxlingua.train.run_folder.write_json", full)
    with pytest.raises(SystemExit) as stop:
        train(instructions(tmp_path, json.dumps(GOOD).encode()))
    assert stop.value.code == 1
    assert "error: run/data.json: No space left on device" in capsys.readouterr().err
