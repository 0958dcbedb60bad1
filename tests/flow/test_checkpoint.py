"""`python -m jaxlingua.checkpoint` and training from a public checkpoint, from the command line to the files."""

import json
import shutil
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
import yaml
from huggingface_hub import ModelCard

from jaxlingua.checkpoint.__main__ import main
from jaxlingua.checkpoint.huggingface.export import MARK
from jaxlingua.checkpoint.huggingface.model import load_params, open_model
from jaxlingua.errors import exit_with_one_line
from jaxlingua.model.llama import Llama
from tests.checkpoint.folders import LLAMA, QWEN3, draw, write_folder
from tests.flow.small import CONFIG, train, write_config
from tests.tiny import tiny_tokenizer
from tests.train.world import mesh_of

FIELDS = LLAMA | {"vocab_size": 384, "num_attention_heads": 4, "num_hidden_layers": 2}
MADE = ("config.yaml", "data.json", "provenance.json", "model", "tokenizer", "checkpoints")


def command(*arguments: object) -> None:
    """`python -m jaxlingua.checkpoint …` in this process."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["jaxlingua.checkpoint", *map(str, arguments)])
        exit_with_one_line(main)


def refused(capsys, *arguments: object, code: int = 2) -> str:
    """The one line with which a command ends."""
    with pytest.raises(SystemExit) as ended:
        command(*arguments)
    assert ended.value.code == code
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1, lines
    return lines[0].removeprefix("error: ")


# The tests that share what these make stay together, so that it is made once.
pytestmark = pytest.mark.xdist_group("public")


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """A public checkpoint with its tokenizer, in bfloat16; weights of a size that training can work with."""
    home = tmp_path_factory.mktemp("made")
    fields = FIELDS | {"torch_dtype": "bfloat16", "_name_or_path": "/home/somebody/model"}
    tensors = {
        name: (array * 0.1 if array.ndim > 1 else abs(array)).astype(array.dtype)
        for name, array in draw(fields, "bfloat16").items()
    }
    folder = write_folder(home / "public", fields, tensors)
    tiny_tokenizer().save(folder)
    generation = {"bos_token_id": 1, "eos_token_id": [2, 5], "temperature": 0.6, "do_sample": True}
    (folder / "generation_config.json").write_text(json.dumps(generation))
    command("import", folder, home / "run")
    return home


@pytest.fixture
def public(made, tmp_path) -> Path:
    """A public checkpoint of the test's own."""
    return Path(shutil.copytree(made / "public", tmp_path / "public"))


@pytest.fixture
def imported(made, tmp_path) -> Path:
    """A run that was made of it."""
    return Path(shutil.copytree(made / "run", tmp_path / "run"))


def weights(folder: Path) -> bytes:
    return (folder / "model.safetensors").read_bytes()


def test_import_export_and_import_again_are_bit_identical(public, imported, tmp_path):
    one, two = imported, tmp_path / "two"
    command("export", one)
    assert weights(one / "export") == weights(public)
    assert json.loads((one / "export" / "config.json").read_text()) == FIELDS | {"torch_dtype": "bfloat16"}
    for name in ("tokenizer.json", "tokenizer_config.json"):
        assert (one / "export" / name).read_bytes() == (public / name).read_bytes()
    generation = json.loads((one / "export" / "generation_config.json").read_text())
    assert generation == json.loads((public / "generation_config.json").read_text())

    command("import", one / "export", two, "sharding.mesh.fsdp=2", "sharding.mesh.tensor=2")
    command("export", two, f"checkpoint.export.folder={tmp_path / 'again'}")
    assert weights(tmp_path / "again") == weights(public)


def test_an_imported_folder_is_a_run_that_tells_where_it_came_from(public, tmp_path, capsys):
    command("import", public, tmp_path / "run")
    assert set(MADE) <= {path.name for path in (tmp_path / "run").iterdir()}
    assert (
        "llama, 110,912 parameters in bfloat16; 384 pieces, 384 rows in the file" in capsys.readouterr().out
    )
    provenance = json.loads((tmp_path / "run" / "provenance.json").read_text())
    assert provenance["command"] == f"python -m jaxlingua.checkpoint import {public} {tmp_path / 'run'}"
    assert provenance["repeat"] == provenance["command"]
    assert "which holds checkpoints; a new folder is allowed" in refused(
        capsys, "import", public, tmp_path / "run"
    )


def test_a_float16_export_of_a_bfloat16_model_says_so_in_its_config(imported):
    command("export", imported, "checkpoint.export.dtype=float16")
    assert open_model(str(imported / "export")).dtype == "float16"
    assert json.loads((imported / "export" / "config.json").read_text())["torch_dtype"] == "float16"


# ── training from a checkpoint ────────────────────────────────────────────────────────────────────────────


def finetune(tmp_path: Path, public: Path, *overrides: str, **changes) -> Path:
    """Train a few steps from `public`; the run folder."""
    model = {"init": "huggingface", "path": str(public), "compute_dtype": "float32"}
    tokens = {"row_length_tokens": 64}
    train(write_config(tmp_path / "c.yaml", model=model, tokens=tokens, **changes), *overrides)
    return tmp_path / "run"


def test_training_begins_with_the_public_weights_and_its_export_holds_the_trained_ones(public, tmp_path):
    run = finetune(tmp_path, public, "stages[0].steps=4")
    command("export", run, "checkpoint.export.dtype=float32")
    mesh = mesh_of(fsdp=4, tensor=2)
    before, after = open_model(str(public)), open_model(str(run / "export"))
    assert after.config == before.config
    params = [load_params(p, Llama(p.config), mesh) for p in (before, after)]
    changes = jax.tree.map(lambda old, new: float(abs(new - old).max()), *params)
    assert all(0 < change < 0.05 for change in jax.tree.leaves(changes)), (
        changes
    )  # four steps of at most 0.003
    losses = [json.loads(line)["loss"] for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert losses[-1] < losses[0] < np.log(384) + 2

    card = ModelCard.load(run / "export" / "README.md")
    assert card.data.library_name == "transformers"
    assert "trained further by jaxlingua" in card.text
    assert "4 steps of 8 rows of 64 tokens" in card.text
    generation = json.loads((run / "export" / "generation_config.json").read_text())
    assert generation["eos_token_id"] == [2, 5]
    assert json.loads((run / "export" / MARK).read_text())["step"] == 4


def test_a_run_goes_on_when_the_checkpoint_that_it_began_from_is_gone(public, tmp_path):
    options = ("stages[0].steps=8", "eval.tasks=[]")
    run = finetune(tmp_path, public, *options)
    command("export", run, "checkpoint.export.dtype=float32")
    straight = weights(run / "export")
    shutil.rmtree(public)
    shutil.rmtree(run / "checkpoints" / "8")  # as if it had stopped after step 4
    finetune(tmp_path, public, *options)
    command("export", run, "checkpoint.export.dtype=float32")
    assert weights(run / "export") == straight


def test_a_relative_path_is_written_out_and_the_run_goes_on_with_it(public, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    options = ("stages[0].steps=4", "eval.tasks=[]")
    run = finetune(tmp_path, Path("public"), *options)
    assert yaml.safe_load((run / "config.yaml").read_text())["model"]["path"] == str(public)
    finetune(tmp_path, Path("public"), *options)
    shutil.rmtree(public)
    finetune(tmp_path, Path("public"), *options)
    monkeypatch.chdir("/")
    command("export", run)
    assert ModelCard.load(run / "export" / "README.md").data.base_model is None


def test_other_weights_under_the_path_of_the_base_are_not_evaluated_as_the_base(public, tmp_path, capsys):
    run = finetune(tmp_path, public, "stages[0].steps=4")
    shutil.rmtree(run / "evals" / "base-0")
    write_folder(public, FIELDS | {"torch_dtype": "bfloat16"}, draw(FIELDS, "bfloat16", seed=9))
    capsys.readouterr()
    with pytest.raises(SystemExit):
        finetune(tmp_path, public, "stages[0].steps=4")
    line = capsys.readouterr().err
    assert f"model.path: '{public}' holds other weights than the run began with (fingerprint" in line
    assert "set eval.base_model=false to go on without" in line


def test_a_run_that_begins_anew_keeps_nothing_of_the_checkpoint_before(public, tmp_path):
    run = finetune(tmp_path, public, "stages[0].steps=4", "eval.tasks=[]")
    shutil.rmtree(run / "checkpoints")
    (run / "tokenizer" / "tokenizer.model").write_bytes(b"of another checkpoint")
    (public / "generation_config.json").unlink()
    finetune(tmp_path, public, "stages[0].steps=4", "eval.tasks=[]")
    assert not (run / "tokenizer" / "tokenizer.model").exists()
    assert not (run / "model" / "generation_config.json").exists()


def test_a_tokenizer_that_transformers_cannot_load_is_exported_without_a_chat_template(
    public, tmp_path, capsys
):
    settings = json.loads((public / "tokenizer_config.json").read_text())
    settings |= {
        "tokenizer_class": "NobodyKnowsTokenizer",
        "auto_map": {"AutoTokenizer": ["code.Tokenizer", None]},
    }
    (public / "tokenizer_config.json").write_text(json.dumps(settings))
    run = finetune(tmp_path, public, "stages[0].steps=4", "eval.tasks=[]")
    command("export", run)
    assert "no chat template: transformers reads other tokens" in capsys.readouterr().out
    card = (run / "export" / "README.md").read_text()
    assert "It was trained with this text around each question" in card
    assert 'inputs = tokenizer("WHAT YOU ASK\\n", return_tensors="pt")' in card


def test_a_tokenizer_with_more_pieces_than_rows_is_refused_or_gets_rows_of_their_mean(tmp_path, capsys):
    fields = FIELDS | {"vocab_size": 380}
    public = write_folder(tmp_path / "public", fields)
    tiny_tokenizer().save(public)
    assert refused(capsys, "import", public, tmp_path / "run") == (
        "tokens.path: a tokenizer of 384 pieces given; the checkpoint's embedding has 380 rows; give the tokenizer "
        "that belongs to it, or set model.new_tokens=mean to begin 4 new rows with the mean of the old"
    )
    assert not (tmp_path / "run").exists()
    command("import", public, tmp_path / "run", "model.new_tokens=mean")
    command("export", tmp_path / "run")
    before, after = open_model(str(public)), open_model(str(tmp_path / "run" / "export"))
    assert after.fields["vocab_size"] == after.config.vocab_size == 384
    for name in ("model.embed_tokens.weight", "lm_head.weight"):
        old, new = before.tensors[name].read_rows(0, 380), after.tensors[name].read_rows(0, 384)
        np.testing.assert_array_equal(new[:380], old)
        mean = np.broadcast_to(old.mean(0, dtype=np.float64), (4, 64))
        np.testing.assert_allclose(new[380:], mean, atol=1e-6, rtol=0)


def test_a_run_with_new_tokens_resumes_with_the_rows_that_it_has(tmp_path):
    public = write_folder(tmp_path / "public", FIELDS | {"vocab_size": 380})
    tiny_tokenizer().save(public)
    options = ("model.new_tokens=mean", "stages[0].steps=4", "eval.tasks=[]")
    run = finetune(tmp_path, public, *options)
    finetune(tmp_path, public, *options)
    command("export", run)
    assert open_model(str(run / "export")).config.vocab_size == 384


def test_a_model_from_scratch_is_exported_too(tmp_path):
    """Without the rows that only pad its vocabulary."""
    train(write_config(tmp_path / "c.yaml"), "stages[0].steps=4", "eval.tasks=[]")
    command("export", tmp_path / "run")
    exported = open_model(str(tmp_path / "run" / "export"))
    assert exported.config.vocab_size == CONFIG["tokens"]["vocab_size"] == 400
    assert exported.dtype == "float32"
    assert exported.fields["model_type"] == "llama"
    assert "Not evaluated" in (tmp_path / "run" / "export" / "README.md").read_text()


def test_a_run_on_plain_text_is_exported_without_a_chat_template(public, tmp_path):
    (tmp_path / "text.txt").write_text("a line of text\n" * 200)
    run = finetune(
        tmp_path, public, "stages[0].steps=4",
        data={"folder": str(tmp_path), "sources": {"text": {"kind": "text", "path": "text.txt", "language": "eng_Latn"}}},
        stages=[{"name": "text", "mixture": {"text": {}}, "steps": 4}], eval={"tasks": []},
    )  # fmt: skip
    command("export", run)
    assert not (run / "export" / "chat_template.jinja").exists()
    assert "apply_chat_template" not in (run / "export" / "README.md").read_text()


# ── what is refused, and that nothing is left half-written ───────────────────────────────────────────────


def test_an_import_that_fails_leaves_no_folder(public, tmp_path, capsys):
    file = public / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-5])
    assert "cut short or damaged" in refused(capsys, "import", public, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_an_export_that_fails_leaves_the_earlier_one_as_it_was(imported, monkeypatch, capsys):
    run = imported
    command("export", run)
    before = weights(run / "export")
    from jaxlingua.checkpoint.huggingface import export

    def full(*_):
        raise OSError(28, "No space left on device", "model.safetensors")

    monkeypatch.setattr(export, "write_file", full)
    capsys.readouterr()
    assert "No space left on device" in refused(capsys, "export", run, code=1)
    assert weights(run / "export") == before
    assert not list(run.glob(".export*"))


def test_a_folder_that_holds_something_else_is_not_written_over(imported, tmp_path, capsys):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "cat.jpg").write_bytes(b"cat")
    line = refused(capsys, "export", imported, f"checkpoint.export.folder={tmp_path / 'photos'}")
    assert line == (
        f"checkpoint.export.folder: '{tmp_path / 'photos'}' given, which holds something else ('cat.jpg'); a new "
        f"folder, or one with nothing but an earlier export, is allowed; choose another"
    )
    assert (tmp_path / "photos" / "cat.jpg").exists()


def test_what_was_put_beside_an_export_is_not_deleted_by_the_next(imported, capsys):
    command("export", imported)
    (imported / "export" / "model-Q4.gguf").write_bytes(b"mine")
    assert "which holds something else ('model-Q4.gguf'); a new folder" in refused(capsys, "export", imported)
    assert (imported / "export" / "model-Q4.gguf").read_bytes() == b"mine"
    (imported / "export" / "model-Q4.gguf").unlink()
    command("export", imported, "checkpoint.export.shard_gib=0.0001")
    assert not (imported / "export" / "model.safetensors").exists()


def test_a_run_is_exported_as_it_was_trained(imported, capsys):
    line = refused(capsys, "export", imported, "data.template=raw")
    assert line.startswith(
        f'{imported}: data.template: "alpaca" there, "raw" given; a run is exported as it was'
    )


def test_another_tokenizer_in_the_run_folder_is_noticed(imported, capsys):
    tiny_tokenizer(400).save(imported / "tokenizer")
    line = refused(capsys, "export", imported)
    assert line == f"{imported / 'tokenizer'}: not the tokenizer that the run began with; bring it back"


def test_a_path_with_an_equals_sign_is_a_path(public, tmp_path):
    odd = public.rename(tmp_path / "lr=1")
    command("import", odd, tmp_path / "run")
    assert open_model(str(odd)).dtype == "bfloat16"


def test_a_folder_with_other_files_is_not_made_a_run(public, capsys):
    line = refused(capsys, "import", public, public)
    assert line == f"RUN: '{public}' given, which holds something else; a new folder is allowed; choose one"


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["exprot", "run"], "jaxlingua.checkpoint: 'exprot' given; did you mean 'export'?; see --help"),
        (
            ["export", "run", "--dtype", "float16"],
            "'--dtype' given; options have the form key=value, such as checkpoint",
        ),
        (
            ["import", "a/b", "run", "tokens.vocab_size=4096"],
            "tokens.vocab_size: 4096 given; only a tokenizer that is",
        ),
        (
            ["export", "runs/nowhere"],
            "RUN: 'runs/nowhere' given, which is not the folder of a run; one that training",
        ),
        (["export"], "jaxlingua.checkpoint export: 0 names given; RUN needed; see --help"),
        (["import", "here"], "jaxlingua.checkpoint import: 1 names given; MODEL and RUN needed; see --help"),
        (
            ["import", "./nowhere", "run"],
            "model.path: './nowhere' does not exist; give a folder or a hub name",
        ),
        (
            ["import", "a/b", "run", "model.layers=3"],
            "model.layers: '3' given; with model.init=huggingface sizes",
        ),
        (
            ["import", "a/b", "run", "tokens.kind=learned"],
            "tokens.kind: 'learned' given; a checkpoint knows only",
        ),
        (
            ["import", "", "run"],
            "model.path: not given; model.init=huggingface reads a checkpoint; give its folder",
        ),
    ],
)
def test_a_wrong_command_is_one_line(arguments, line, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert line in refused(capsys, *arguments)
    assert not list(tmp_path.iterdir())


def test_a_name_that_is_not_here_without_a_network_is_one_line(capsys, tmp_path):
    line = refused(capsys, "import", "nobody/nothing", tmp_path / "run", code=1)
    assert line.startswith(
        "model.path: 'nobody/nothing' is no folder here, and it is not in the cache, and the hub"
    )
    assert not (tmp_path / "run").exists()


def test_a_run_without_checkpoints_is_not_exported(tmp_path, capsys):
    write_config(tmp_path / "config.yaml")
    assert "which holds no checkpoint; the folder of a run" in refused(capsys, "export", tmp_path)


def test_a_step_that_is_not_there_is_told(imported, capsys):
    assert "step 7 is not there; it holds 0" in refused(
        capsys, "export", imported, "checkpoint.export.step=7"
    )


def test_training_from_a_checkpoint_that_is_not_understood_is_refused_before_anything_is_written(
    tmp_path, capsys
):
    public = write_folder(tmp_path / "public", FIELDS | {"sliding_windw": 8})
    with pytest.raises(SystemExit):
        finetune(tmp_path, public)
    line = capsys.readouterr().err
    assert "field 'sliding_windw' is not understood; did you mean 'sliding_window'?" in line
    assert not (tmp_path / "run").exists()


def test_help_names_both_verbs_and_only_the_options_that_matter(capsys):
    with pytest.raises(SystemExit) as ended:
        command("--help")
    assert ended.value.code == 0
    text = capsys.readouterr().out
    assert "usage: python -m jaxlingua.checkpoint import MODEL RUN [key=value …]" in text
    assert "usage: python -m jaxlingua.checkpoint export RUN [key=value …]" in text
    assert "checkpoint.export.dtype" in text
    assert "eval.bootstrap_samples" not in text
    assert "CONFIG" not in text


def test_a_qwen_with_norms_and_a_tied_head_is_trained_and_exported_as_one(tmp_path):
    public = write_folder(tmp_path / "public", QWEN3 | {"vocab_size": 384, "num_hidden_layers": 2})
    tiny_tokenizer().save(public)
    run = finetune(tmp_path, public, "stages[0].steps=4", "sharding.mesh.tensor=2", "eval.tasks=[]")
    command("export", run)
    exported = open_model(str(run / "export"))
    assert exported.fields["model_type"] == "qwen3"
    assert "lm_head.weight" not in exported.tensors
    assert yaml.safe_load((run / "config.yaml").read_text())["model"]["path"] == str(public)
