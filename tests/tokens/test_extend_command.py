"""`python -m jaxlingua.tokens extend`: a model and text in, a larger model out, and one line for what cannot be."""

import gzip
import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
import yaml

from jaxlingua.checkpoint.huggingface.model import open_model
from jaxlingua.errors import exit_with_one_line
from jaxlingua.tokens.__main__ import main
from jaxlingua.tokens.tokenizer import tokenizer_of_folder
from jaxlingua.train import distill
from jaxlingua.train.learned import Learned
from tests.checkpoint.folders import LLAMA, write_folder
from tests.tiny import tiny_parallel, tiny_tokenizer

OLD_PIECES, FILE_ROWS = 300, 310
GREEK, ENGLISH = (list(tiny_parallel()[language]) for language in ("ell_Grek", "eng_Latn"))


@pytest.fixture(scope="module")
def public(tmp_path_factory) -> Path:
    """A model that has seen no Greek: weights and a tokenizer."""
    folder = tmp_path_factory.mktemp("public") / "base"
    write_folder(folder, LLAMA | {"vocab_size": FILE_ROWS})
    tiny_tokenizer(OLD_PIECES).save(folder)
    (folder / "generation_config.json").write_text('{"eos_token_id": 2}')
    (folder / "LICENSE").write_text("as you like")
    return folder


@pytest.fixture
def here(tmp_path, public, monkeypatch) -> Path:
    """A folder with text, and the model in base/."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(public, "base")
    Path("greek.txt").write_text("\n".join(GREEK) + "\n\n", "utf-8")
    Path("english.jsonl").write_text("\n".join(json.dumps({"text": text}) for text in ENGLISH))
    return tmp_path


def run(monkeypatch, command: str) -> int:
    """The exit code; what it prints is captured by pytest."""
    monkeypatch.setattr(sys, "argv", ["jaxlingua.tokens", *command.split()])
    try:
        exit_with_one_line(main)
    except SystemExit as end:
        return end.code
    return 0


USUAL = "extend base greek.txt --pieces 30 --output out --old english.jsonl"


def test_a_model_gets_pieces_and_rows_and_is_told_of(here, monkeypatch, capsys):
    assert run(monkeypatch, USUAL) == 0
    told = capsys.readouterr().out
    assert "greek.txt: 200 texts, 1 empty ones left out, 4,080 characters, letters: 100% Grek" in told
    assert "pieces: 30 learned of 30, from id 300 on" in told
    assert "old text (english.jsonl): 0 of 200 texts changed, 0 of" in told
    assert "rows: 310 → 384, new ones begin as the mean of those of their old pieces\n" in told
    old, new = (tokenizer_of_folder(name) for name in ("base", "out"))
    facts = json.loads(Path("out/extension.json").read_text())
    assert facts["read"] == [
        {
            "file": "greek.txt", "texts": 200, "empty texts": 1, "held out": 10, "characters": 4080,
            "language": "ell_Grek", "scripts": {"Grek": 1.0},
        }
    ]  # fmt: skip
    fertility = facts["fertility"]["greek.txt"]
    for tokenizer, when in ((old, "before"), (new, "after")):
        tokens = sum(len(each.ids) for each in tokenizer.encode_batch(GREEK[19::20], continuation=True))
        assert fertility[when]["tokens"] == tokens
        assert fertility[when]["texts"] == 10
    written = {i for each in new.encode_batch(GREEK) for i in each.ids.tolist()}
    inside = facts["pieces"]["inside others only"]
    assert inside == len(set(range(300, 330)) - written) > 0
    assert f"; {inside} stand in the text only inside longer ones" in told
    assert fertility["after"]["tokens"] < fertility["before"]["tokens"] / 2
    assert (
        f"{fertility['before']['tokens per word']:.3f} → {fertility['after']['tokens per word']:.3f}" in told
    )
    larger = open_model("out")
    assert (new.vocab_size, larger.config.vocab_size) == (330, 384)
    assert (facts["first_id"], facts["vocab_size"], facts["rows"]["after"]) == (300, 330, 384)
    assert {"LICENSE", "generation_config.json", "tokenizer_config.json"} <= {
        p.name for p in Path("out").iterdir()
    }
    assert run(monkeypatch, USUAL) == 0  # what it wrote it may write again


def test_what_is_told_for_a_training_configuration_trains_new_rows_only(here, monkeypatch, capsys):
    for tied, arrays in ((False, {"embed/embedding", "head/kernel"}), (True, {"embed/embedding"})):
        if tied:
            write_folder(Path("base"), LLAMA | {"vocab_size": FILE_ROWS, "tie_word_embeddings": True})
        assert run(monkeypatch, USUAL) == 0
        lines = capsys.readouterr().out.splitlines()[-2:]
        model, frozen = (yaml.safe_load(line) for line in lines)
        assert model["model"] == {"init": "huggingface", "path": str(here / "out")}
        shapes = {"embed": {"embedding": np.zeros((384, 4))}, "layers": {"mlp": {"up": np.zeros((2, 4))}}}
        shapes |= {"final_norm": {"scale": np.zeros(4)}} | (
            {} if tied else {"head": {"kernel": np.zeros((4, 384))}}
        )
        learned = Learned(tuple(frozen["stages[0]"]["frozen"]))
        learned.check(shapes, "words", 384)
        assert learned.count(shapes) == len(arrays) * 84 * 4


def test_old_text_that_would_change_is_counted_with_an_example_or_kept(here, monkeypatch, capsys):
    command = "extend base greek.txt english.jsonl --pieces 200 --output out --old english.jsonl"
    assert run(monkeypatch, command) == 0
    facts = json.loads(Path("out/extension.json").read_text())["old text"]
    old, new = (tokenizer_of_folder(name) for name in ("base", "out"))
    pairs = zip(old.encode_batch(ENGLISH), new.encode_batch(ENGLISH), strict=True)
    changed = sum(one.ids.tolist() != other.ids.tolist() for one, other in pairs)
    assert facts["changed_texts"] == changed > 0
    first = facts["examples"][0]
    assert f"; first '{first['text']}': {' '.join(first['before'])} → " in capsys.readouterr().out
    assert run(monkeypatch, f"{command} --keep-old") == 0
    facts = json.loads(Path("out/extension.json").read_text())
    assert (facts["old text"]["changed_texts"], facts["old text"]["kept"]) == (0, True)
    assert 0 < facts["pieces"]["learned"] < 200
    assert "the text has no more that stand there twice and change no old text" in capsys.readouterr().out


def test_old_text_that_quotes_the_new_script_is_told_where_it_is_kept(here, monkeypatch, capsys):
    Path("quotes.jsonl").write_text(
        "".join(json.dumps({"text": text}) + "\n" for text in [*ENGLISH, "alpha: άλφα", "Δ"]), "utf-8"
    )
    command = "extend base greek.txt --pieces 30 --output out --old quotes.jsonl"
    assert run(monkeypatch, f"{command} --keep-old") == 0
    told = capsys.readouterr().out
    assert "2 of 202 old texts hold letters of Grek; with --keep-old they forbid most pieces of it" in told
    assert run(monkeypatch, command) == 0
    assert "forbid" not in capsys.readouterr().out
    assert run(monkeypatch, f"{USUAL} --keep-old") == 0
    assert "forbid" not in capsys.readouterr().out


def test_without_old_text_our_own_is_counted_but_that_of_the_new_language(here, monkeypatch, capsys):
    assert run(monkeypatch, "extend base greek.txt --pieces 30 --output out") == 0
    told = capsys.readouterr().out
    assert "seems to be ell_Grek" in told
    assert "old text (jaxlingua's own wording): 0 of" in told  # though it has Greek instructions


def test_a_tokenizer_alone_is_extended_alone(here, monkeypatch, capsys):
    tiny_tokenizer(OLD_PIECES).save(Path("alone"))
    assert run(monkeypatch, "extend alone greek.txt --pieces 30 --output out --old english.jsonl") == 0
    assert tokenizer_of_folder("out").vocab_size == 330
    assert not list(Path("out").glob("*.safetensors"))
    assert "model:" not in capsys.readouterr().out
    assert run(monkeypatch, "extend alone greek.txt --pieces 30 --output out --rows mean") == 2
    assert "--rows: given, and 'alone' has a tokenizer alone; leave it out" in capsys.readouterr().err


def test_few_texts_and_a_huge_one_in_any_form_are_read(here, monkeypatch, capsys):
    """Of fewer than 20 texts none is held out, and that is told."""
    huge = " ".join(GREEK * 50)
    pyarrow.parquet.write_table(pyarrow.table({"text": GREEK[:3]}), "few.parquet")
    with gzip.open("huge.jsonl.gz", "wt", encoding="utf-8") as file:
        file.write(json.dumps({"text": huge}))
    command = "extend base few.parquet huge.jsonl.gz --pieces 30 --output out --old english.jsonl"
    assert run(monkeypatch, command) == 0
    told = capsys.readouterr().out
    assert f"huge.jsonl.gz: 1 texts, {len(huge):,} characters" in told
    assert told.count("none; learned ones") == 2


def test_distilled_rows_are_of_new_pieces_and_of_the_embedding_alone(here, monkeypatch, capsys):
    monkeypatch.setattr(distill, "LEAST_STEPS", 1)
    options = "--rows distilled model.compute_dtype=float32 sharding.mesh.data=1 sharding.mesh.fsdp=8"
    for command in (f"{USUAL} {options}", USUAL.replace("output out", "output pieces")):
        assert run(monkeypatch, command) == 0
    told = capsys.readouterr().out
    how = json.loads(Path("out/extension.json").read_text())["rows"]["distilled"]
    apart = " → ".join(f"{how[f'held_out_{when}']:.4g}" for when in ("before", "after"))
    assert f"\nmean squared error of hidden states on held-out text: {apart}\n" in told
    assert f"distilled: {how['snippets']} snippets, {how['steps']} steps of a rate up to " in told
    assert "\nnew rows of the head are means of their old pieces\n" in told
    written = tokenizer_of_folder("out").encode_batch([text for i, text in enumerate(GREEK, 1) if i % 20])
    there = sorted({number for each in written for number in each.ids.tolist() if number >= 300})
    assert f"\n{30 - len(there)} pieces stand in no snippet; their rows are means" in told
    ours, other = (open_model(folder).tensors for folder in ("out", "pieces"))
    for name, tensor in ours.items():
        rows = [each.read_rows(0, each.shape[0]) for each in (tensor, other[name])]
        learned = np.flatnonzero((rows[0] != rows[1]).reshape(len(rows[0]), -1).any(1)).tolist()
        assert learned == (there if "embed_tokens" in name else [])


# ── what cannot be ────────────────────────────────────────────────────────────
BAD = {
    "extend base": "--pieces: not given; How many new pieces, at most. Write --pieces 8000",
    "extnd base": "jaxlingua.tokens: 'extnd' given; did you mean 'extend'?",
    "extend base --pieces 9 --output out": "MODEL and one TEXT or more are needed; 'base' alone given",
    USUAL.replace("30", "0"): "--pieces: '0' given; a whole number from 1 to 1000000 is allowed",
    USUAL.replace("30", "many"): "--pieces: 'many' given; a whole number from 1 to 1000000 is allowed",
    USUAL.replace("30", "-3"): "--pieces: '-3' given; a whole number from 1 to 1000000 is allowed",
    f"{USUAL} --row-multiple 1.5": "--row-multiple: '1.5' given; a whole number from 1 to 1000000",
    f"{USUAL} --rows piece": "--rows: 'piece' given; mean, pieces, distilled are allowed",
    f"{USUAL} --keep-olds": "'--keep-olds' given; did you mean '--keep-old'?",
    f"{USUAL} run.seed=4": "run.seed=4: has no effect without --rows distilled",
    f"{USUAL} train.batch_rows=3": "train.batch_rows=3: has no effect here; those options that --help names",
    f"{USUAL} --rows distilled sharding.mesh.tensor=3": "sharding.mesh",
    f"{USUAL} --rows distilled sharding.processes.count=2": "sharding.processes.count=2: has no effect here",
    f"{USUAL} --rows distilled run.platform=tpu": "run.platform: 'tpu' asked for, JAX finds only 'cpu'",
    f"{USUAL} greek.txt": "TEXT: 'greek.txt' given twice; give each file once",
    USUAL.replace("greek", "greec"): "TEXT: 'greec.txt' given, which is no file; give a file of texts",
    USUAL.replace("greek.txt", "base"): "'base' is a folder; a file is needed",
    f"{USUAL[:-13]}nowhere.txt": "--old: 'nowhere.txt' given, which is no file",
    USUAL.replace("greek", "nothing"): "TEXT (nothing.txt): the file is empty; one record or more is needed",
    USUAL.replace("greek", "blank"): "TEXT (blank.txt): 3 texts, all of them empty; one with a character",
    USUAL.replace("greek", "latin1"): "TEXT (latin1.txt:2): byte 0xe4 at offset 4 is not UTF-8",
    USUAL.replace("greek.txt", "cut.txt.gz"): "TEXT (cut.txt.gz): damaged gzip",
    USUAL.replace("greek.txt", "cut.parquet"): "TEXT (cut.parquet): damaged Parquet",
    USUAL.replace("greek.txt", "other.jsonl"): "TEXT (other.jsonl:1): no field 'text'",
    USUAL.replace("greek", "digits"): "no words of letters in 38 texts",
    USUAL.replace("base", "run"): "MODEL: 'run' given, the folder of a run; a Hugging Face folder is needed; run "
    "'python -m jaxlingua.checkpoint export run' and give run/export",
    USUAL.replace("base", "peft"): "MODEL: 'peft' given, the folder of an adapter; a whole model is needed",
    USUAL.replace("base", "./nowhere"): "MODEL: './nowhere' does not exist; give a folder or a hub name",
    USUAL.replace("base", "half"): "half: holds no model.safetensors and no model.safetensors.index.json",
    USUAL.replace("base", "other"): "other: its tokenizer has 400 pieces, its embedding 310 rows",
    USUAL.replace("output out", "output taken"): "--output: '{here}/taken' given, which holds something else ('mine')",
    USUAL.replace("output out", "output base"): "--output: '{here}/base' given, which is read from; a new folder is allowed",
    USUAL.replace("output out", "output greek.txt"): "--output: '{here}/greek.txt' given, which holds something else ('a file')",
}  # fmt: skip


@pytest.fixture
def troubles(here) -> Path:
    """Files and folders that cannot be used."""
    Path("nothing.txt").write_text("")
    Path("blank.txt").write_text("\n \n\t\n")
    Path("latin1.txt").write_bytes(b"ab\n\xe4\n".replace(b"\xe4", b"c\xe4"))
    Path("cut.txt.gz").write_bytes(gzip.compress("\n".join(GREEK).encode())[:-30])
    pyarrow.parquet.write_table(pyarrow.table({"text": GREEK}), "whole.parquet")
    Path("cut.parquet").write_bytes(Path("whole.parquet").read_bytes()[:-30])
    Path("other.jsonl").write_text('{"words": "a"}\n')
    Path("digits.txt").write_text("1 2 3\n" * 40)
    for name in ("run", "peft", "half", "taken"):
        Path(name).mkdir()
    Path("run/config.yaml").write_text("")
    Path("peft/adapter_config.json").write_text("{}")
    shutil.copy("base/config.json", "half")
    Path("taken/mine").write_text("")
    shutil.copytree("base", "other")
    tiny_tokenizer(400).save(Path("other"))
    return here


def test_what_cannot_be_is_told_in_one_line_and_leaves_nothing(troubles, monkeypatch, capsys):
    before = sorted(path.relative_to(troubles) for path in troubles.rglob("*"))
    for command, message in BAD.items():
        assert run(monkeypatch, command) == (1 if "run.platform" in command else 2), command
        told = capsys.readouterr().err.strip()
        assert message.format(here=troubles) in told, command
        assert "\n" not in told
    assert sorted(path.relative_to(troubles) for path in troubles.rglob("*")) == before


def test_help_is_told_and_needs_no_jax():
    program = (
        "import sys; sys.argv[1:] = sys.argv[1].split(); from jaxlingua.tokens.__main__ import main\n"
        "try: main()\nexcept SystemExit as end: print(end.code, 'jax' in sys.modules)"
    )
    told = subprocess.run(
        [sys.executable, "-c", program, "extend --help"], capture_output=True, text=True, check=True
    ).stdout
    assert told.startswith("usage: python -m jaxlingua.tokens extend MODEL TEXT [TEXT …] --pieces 8000")
    assert told.endswith("\n0 False\n")
