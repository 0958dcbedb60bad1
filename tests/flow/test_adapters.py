"""Adapters from the command line to the files: trained, resumed, exported, merged, imported and evaluated."""

import json
import shutil
import sys
from collections.abc import Callable
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
import torch
import transformers
from peft import PeftModel
from safetensors.numpy import load_file, save_file

from jaxlingua.checkpoint.__main__ import main as checkpoint_main
from jaxlingua.command_line import load_config
from jaxlingua.config import Config
from jaxlingua.errors import ConfigError, exit_with_one_line
from jaxlingua.eval.__main__ import main as eval_main
from jaxlingua.model.lora import Lora, collections
from jaxlingua.sharding.mesh import make_mesh
from jaxlingua.sharding.rules import MeshFunction
from jaxlingua.train.open_model import open_step
from jaxlingua.train.origin import Origin
from tests.checkpoint.folders import LLAMA, draw, write_folder
from tests.flow.small import CONFIG, train, write_config
from tests.flow.test_train import losses, parameters
from tests.tiny import tiny_llama_config, tiny_tokenizer
from tests.train.world import FP32_STEPS

# The tests that share what these make stay together, so that it is made once.
pytestmark = pytest.mark.xdist_group("adapters")

LOGITS = 1e-5  # of peft's and transformers', absolute
FIELDS = LLAMA | {"vocab_size": 384, "num_attention_heads": 4, "num_hidden_layers": 2}
TASK = "phrases.eng_Latn-ell_Grek"
TARGETS = ["q", "k", "v", "o", "gate", "up", "down", "embed", "head"]
# Over an untied base in float32, and over a tied one in four bits.
LORA = {
    "plain": {"rank": 4, "targets": TARGETS, "rank_stabilized": True},
    "quantized": {"rank": 4, "alpha": 4, "targets": TARGETS, "dora": True, "base": "nf4"},
}
ADAPTER, WEIGHTS, MODEL = "adapter_config.json", "adapter_model.safetensors", "model.safetensors"


def command(main: Callable[[], None], *arguments: object) -> None:
    """A program of ours in this process."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["jaxlingua", *map(str, arguments)])
        exit_with_one_line(main)


def checkpoint(*arguments: object) -> None:
    command(checkpoint_main, *arguments)


def one_line(capsys, run: Callable[..., None], *arguments: object) -> str:
    """The line with which it ends, with code 2."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as ended:
        run(*arguments)
    assert ended.value.code == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1, lines
    return lines[0].removeprefix("error: ")


def base_folder(folder: Path, seed: int = 0, **fields: Any) -> Path:
    """A public checkpoint with its tokenizer, of weights that training can work with."""
    fields = FIELDS | fields
    tensors = {
        name: (array * 0.1 if array.ndim > 1 else abs(array)).astype(array.dtype)
        for name, array in draw(fields, seed=seed).items()
    }
    write_folder(folder, fields, tensors)
    tiny_tokenizer().save(folder)
    return folder


def train_adapters(home: Path, base: Path, lora: dict[str, Any], *overrides: str) -> Path:
    """Six steps at home/run, saved after three."""
    config = write_config(
        home / "c.yaml",
        model={"init": "huggingface", "path": str(base), "compute_dtype": "float32", "lora": lora},
        tokens={"row_length_tokens": 64},
        data={
            "template": "short",
            "sources": {"phrases": CONFIG["data"]["sources"]["phrases"] | {"records": 200}},
        },
        stages=[{"name": "coit", "mixture": {"phrases": {}}, "steps": 6}],
        train={"batch_rows": 8, "optimizer": {"peak_lr": 0.02}, "held_out_documents": 4},
        checkpoint={"save_every_steps": 3},
        generate={"max_new_tokens": 4, "batch_rows": 8},
        eval={"tasks": [], "items": 4, "bootstrap_samples": 20},
        tracking={"log_every_steps": 1, "tensorboard": False},
    )
    train(config, *overrides)
    return home / "run"


@pytest.fixture(autouse=True, scope="module")
def _one_device():
    """All but one test: programs for one device are compiled in half the time."""
    with pytest.MonkeyPatch.context() as patch:
        first = jax.devices()[:1]
        patch.setattr(jax, "devices", lambda *platform: first)
        yield


@pytest.fixture(scope="module")
def bases(tmp_path_factory) -> dict[str, Path]:
    home = tmp_path_factory.mktemp("bases")
    return {
        "plain": base_folder(home / "untied"),
        "quantized": base_folder(home / "tied", tie_word_embeddings=True),
    }


@pytest.fixture(scope="module")
def runs(bases, tmp_path_factory) -> dict[str, Path]:
    """Runs that nobody disturbed, exported and merged."""
    made = {}
    for kind, base in bases.items():
        made[kind] = train_adapters(tmp_path_factory.mktemp(kind), base, LORA[kind])
        checkpoint("export", made[kind])
        checkpoint("merge", made[kind])
    return made


@pytest.fixture(scope="module")
def rows() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    tokens = np.random.default_rng(0).integers(3, 384, (8, 24), np.int32)
    positions = np.tile(np.arange(24, dtype=np.int32), (8, 1))
    return tokens, positions, np.ones_like(tokens)


@pytest.fixture(scope="module")
def logits(runs, rows) -> Callable[[str], np.ndarray]:
    """What the weights of a run that are evaluated answer."""

    @contextmanager
    def telling(what: str):
        yield lambda done, total: None

    @cache
    def logits_of(kind: str) -> np.ndarray:
        config = load_config(str(runs[kind]))
        mesh = make_mesh(config.sharding)
        opened = open_step(config, runs[kind], 6, mesh, telling)
        program = jax.jit(lambda weights, *rows: opened.model.apply(collections(weights), *rows))
        return np.asarray(MeshFunction(program, mesh)(opened.params, *rows))[..., :384]

    return logits_of


@torch.no_grad()
def torch_logits(model: torch.nn.Module, rows: tuple[np.ndarray, ...]) -> np.ndarray:
    return model.eval()(torch.tensor(rows[0]).long()).logits.numpy()


def of_transformers(folder: Path) -> transformers.PreTrainedModel:
    return transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)


def resumed(run: Path, folder: Path, base: Path, lora: dict[str, Any], *overrides: str) -> Path:
    """A copy of a run that goes on as if it had stopped after step 3."""
    shutil.copytree(run, folder / "run")
    shutil.rmtree(folder / "run" / "checkpoints" / "6")
    return train_adapters(folder, base, lora, *overrides)


# ── training ──────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("kind", LORA)
def test_a_checkpoint_holds_adapters_and_their_moments_and_nothing_of_the_base(kind, runs):
    saved = parameters(runs[kind], 6)
    adapters = load_file(runs[kind] / "export" / WEIGHTS)
    sizes = {"params": 0, "opt_state": 0}
    for name, array in saved.items():
        part = name.split("/")[0]
        if array.ndim:
            assert "/lora/" in name
            sizes[part] += array.size
            assert array.dtype == np.float32
        else:
            assert part in ("step", "nonfinite_in_a_row", "skipped_steps", "opt_state")
    count = sum(array.size for array in adapters.values())
    assert sizes == {"params": count, "opt_state": 2 * count}
    told = [loss for _, loss, _ in losses(runs[kind])]
    assert len(told) == 6
    assert told[-1] < told[0] < np.log(384) + 2


@pytest.fixture(scope="module")
def again(runs, bases, tmp_path_factory) -> dict[str, Path]:
    """The same after a stop; the plain one is evaluated too, before it goes on and at its end."""
    home = tmp_path_factory.mktemp("again")
    return {
        kind: resumed(
            runs[kind], home / kind, bases[kind], LORA[kind], *[f"eval.tasks=[{TASK}]"] * (kind == "plain")
        )
        for kind in LORA
    }


@pytest.mark.parametrize("kind", LORA)
def test_a_run_that_stopped_goes_on_bit_for_bit(kind, runs, again):
    assert losses(again[kind]) == losses(runs[kind])
    straight, resumed = parameters(runs[kind], 6), parameters(again[kind], 6)
    assert straight.keys() == resumed.keys()
    for name, array in straight.items():
        np.testing.assert_array_equal(resumed[name], array, err_msg=name)


@pytest.mark.slow
def test_a_run_of_one_device_goes_on_with_eight(runs, bases, tmp_path, monkeypatch):
    monkeypatch.setattr(jax, "devices", jax.local_devices)
    mesh = "sharding.mesh={data: 2, fsdp: 2, tensor: 2}"
    run = resumed(runs["quantized"], tmp_path, bases["quantized"], LORA["quantized"], mesh)
    told, wanted = (np.array([loss for _, loss, _ in losses(folder)]) for folder in (run, runs["quantized"]))
    np.testing.assert_allclose(told, wanted, rtol=FP32_STEPS)
    resumed_on = json.loads((run / "provenance.json").read_text())["resumed"][0]["devices"]
    assert resumed_on.startswith("8 devices")


@pytest.fixture(scope="module")
def continued(runs, bases, tmp_path_factory) -> Path:
    """A run, home/run, that went on from an adapter, home/three, and beside its own copy of the base.

    Its rate is next to nothing, so that it is at the end where it began.
    """
    home = tmp_path_factory.mktemp("continued")
    shutil.copytree(bases["plain"], home / "base")
    checkpoint(
        "export", runs["plain"], "checkpoint.export.step=3", f"checkpoint.export.folder={home / 'three'}"
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(home)
        train_adapters(home, home / "base", {"adapter": "three"}, "train.optimizer.peak_lr=1e-12")
    return home


def test_training_goes_on_from_an_exported_adapter(continued, runs):
    """Step 4 has the loss that it had in the run that was exported after step 3."""
    before, after = losses(runs["plain"]), losses(continued / "run")
    np.testing.assert_allclose(after[3][1:], before[3][1:], rtol=1e-5)
    assert after[0][1] < before[0][1] - 0.01
    checkpoint("export", continued / "run")
    three, again = (
        load_file(folder / WEIGHTS) for folder in (continued / "three", continued / "run" / "export")
    )
    assert three.keys() == again.keys()
    for name, tensor in three.items():
        np.testing.assert_allclose(again[name], tensor, atol=1e-9, rtol=0, err_msg=name)
    assert load_config(str(continued / "run")).model.lora.adapter == str(continued / "three")


def test_without_its_base_or_beside_another_a_run_does_not_go_on(continued, tmp_path, capsys, monkeypatch):
    """It has a checkpoint, to which it needs the base and no longer the adapter that it began from."""
    home = Path(shutil.copytree(continued, tmp_path / "home"))
    for file in (home / "c.yaml", home / "run" / "config.yaml"):
        file.write_text(file.read_text("utf-8").replace(str(continued), str(home)), "utf-8")
    shutil.rmtree(home / "three")
    base, run, file = home / "base", home / "run", home / "base" / MODEL
    monkeypatch.chdir(home)

    def go_on(*overrides: str) -> None:
        train(home / "c.yaml", "train.optimizer.peak_lr=1e-12", *overrides)

    assert one_line(capsys, go_on, "model.lora.rank=4") == (
        f'{run}: holds another run: model.lora.rank: "auto" there, 4 given; choose another run.folder, or go on '
        f"with the values of {run}/config.yaml"
    )
    kept, tensors = file.read_bytes(), load_file(file)
    save_file(tensors | {"lm_head.weight": tensors["lm_head.weight"] + 1}, file, {"format": "pt"})
    other = f"model.path: '{base}' holds other weights than the run began with (fingerprint"
    # Whether it is first evaluated or trained on, or exported as a whole model.
    tasks = f"eval.tasks=[{TASK}]"
    for asked in ((go_on,), (go_on, tasks), (checkpoint, "merge", run)):
        line = one_line(capsys, *asked)
        assert line.startswith(other)
        assert line.endswith("now); bring them back")
    base.rename(home / "away")
    for asked in ((go_on,), (checkpoint, "merge", run)):
        assert one_line(capsys, *asked).startswith(
            f"model.path: '{base}' does not exist; give a folder or a hub"
        )
    checkpoint("export", run)  # the adapters alone need no base
    (home / "away").rename(base)
    file.write_bytes(kept)
    base.rename(home / "away")
    checkpoint("merge", run, f"model.path={home / 'away'}")  # where it is now
    assert (run / "merged" / MODEL).is_file()
    (home / "away").rename(base)
    go_on()
    line = one_line(capsys, go_on, tasks)  # the model before training is that of the adapter
    assert line.startswith("model.lora.adapter: 'three' does not exist; ")
    assert line.endswith("evaluate the model before training; set eval.base_model=false to go on without")


# ── to peft and transformers, and back ────────────────────────────────────────────────────────────────────


def test_peft_answers_as_the_weights_that_are_evaluated(runs, bases, rows, logits):
    base = torch_logits(of_transformers(bases["plain"]), rows)
    model = PeftModel.from_pretrained(of_transformers(bases["plain"]), runs["plain"] / "export")
    np.testing.assert_allclose(torch_logits(model, rows), logits("plain"), atol=LOGITS, rtol=0)
    assert np.abs(base - logits("plain")).max() > 0.1
    told = json.loads((runs["plain"] / "export" / ADAPTER).read_text())
    assert told["base_model_name_or_path"] == str(bases["plain"])


@pytest.mark.parametrize("kind", LORA)
def test_the_merged_model_answers_in_transformers_as_its_adapters_do(kind, runs, rows, logits):
    merged = runs[kind] / "merged"
    assert not json.loads((merged / "config.json").read_text())["tie_word_embeddings"]
    np.testing.assert_allclose(torch_logits(of_transformers(merged), rows), logits(kind), atol=LOGITS, rtol=0)


@pytest.mark.parametrize(("kind", "base"), [("plain", "auto"), ("quantized", "nf4")])
def test_an_exported_adapter_is_merged_as_its_run_is(kind, base, runs, tmp_path):
    """The base is as exact as in its file unless asked for otherwise, whatever the model computes in."""
    asked = () if base == "auto" else (f"model.lora.base={base}",)
    out = tmp_path / "merged"
    checkpoint("merge", runs[kind] / "export", f"checkpoint.export.folder={out}", *asked)
    of_run = runs[kind] / "merged"
    assert (out / MODEL).read_bytes() == (of_run / MODEL).read_bytes()
    assert json.loads((out / "config.json").read_text()) == json.loads((of_run / "config.json").read_text())
    assert (out / "tokenizer.json").read_bytes() == (of_run / "tokenizer.json").read_bytes()


def test_an_imported_adapter_is_a_run_that_is_exported_and_merged_as_it_came(runs, tmp_path):
    export, run = runs["plain"] / "export", tmp_path / "run"
    checkpoint("import", export, run)
    checkpoint("export", run)
    for file in (WEIGHTS, ADAPTER):
        assert (run / "export" / file).read_bytes() == (export / file).read_bytes()
    checkpoint("merge", run)
    assert (run / "merged" / MODEL).read_bytes() == (runs["plain"] / "merged" / MODEL).read_bytes()


def test_evaluation_gives_the_same_answers_of_run_folder_and_merged_model(runs, again, tmp_path):
    """In training, from the checkpoint, from the adapter beside its base, and merged."""
    home = shutil.copytree(again["plain"], tmp_path / "side")
    shutil.rmtree(home / "evals" / "coit-6")
    asked = {name: str(runs["plain"] / name) for name in ("export", "merged")}
    command(eval_main, home, f"eval.tasks=[{TASK}]", f"eval.models={json.dumps(asked)}", f"run.folder={home}")

    def predictions(name: str, home: Path = home) -> list[str]:
        file = home / "evals" / name / f"{TASK}.jsonl"
        return [json.loads(line)["prediction"] for line in file.read_text("utf-8").split("\n")[:-1]]

    wanted = predictions("coit-6", again["plain"])
    assert all(predictions(name) == wanted for name in ("coit-6", "export-0", "merged-0"))
    assert predictions("coit-6") != predictions("base-0")


# ── what is refused ───────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("model", "line"),
    [
        ({"init": "scratch", "lora": {}}, "model.lora: given with model.init=scratch"),
        (
            {"lora": {"rank": 65}},
            "model.lora.rank: 65 given; the matrix of target 'q' is 64 × 64, so 64 at most",
        ),
        (
            {"lora": {"rank": 33}},
            "model.lora.rank: 33 given; the matrix of target 'k' is 64 × 32, so 32 at most",
        ),
        ({"lora": {"rank": 0}}, "model.lora.rank: "),
        ({"lora": {"targets": ["q", "router"]}}, "model.lora.targets[1]: 'router'"),
        ({"lora": {"targets": []}}, "model.lora.targets: none given; q, k, v, o, gate"),
        ({"lora": {"base": "int4"}}, "model.lora.base: 'int4'"),
        ({"lora": {"ranks": 4}}, "model.lora: unknown key 'ranks'; did you mean 'rank'?"),
        ({"lora": {"adapter": "./nowhere"}}, "model.lora.adapter: './nowhere' does not exist; give a folder"),
    ],
    ids=lambda value: str(value)[:50] if isinstance(value, dict) else "",
)
def test_a_configuration_that_cannot_be_is_one_line(model, line, bases, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = {} if "init" in model else {"init": "huggingface", "path": str(bases["plain"])}
    config = write_config(tmp_path / "c.yaml", model=path | model, tokens={"row_length_tokens": 64})
    assert line in one_line(capsys, train, config)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("lora", "line"),
    [
        ({"rank": 8}, "model.lora.rank: 8 given; the adapter '{}' has 4; leave it out"),
        ({"alpha": 4.0}, "model.lora.alpha: 4.0 given; the adapter '{}' has 8.0; leave it out"),
        ({"dora": True}, "model.lora.dora: True given; the adapter '{}' has False; leave it out"),
        (
            {"targets": ["v", "q"]},
            "model.lora.targets: q v given; the adapter '{}' has q k v o gate up down embed head; leave it out",
        ),
    ],
    ids=["rank", "alpha", "dora", "targets"],
)
def test_what_contradicts_the_adapter_is_told(lora, line, runs, bases, tmp_path, capsys):
    adapter = runs["plain"] / "export"
    model = {"init": "huggingface", "path": str(bases["plain"]), "lora": lora | {"adapter": str(adapter)}}
    config = write_config(tmp_path / "c.yaml", model=model, tokens={"row_length_tokens": 64})
    assert one_line(capsys, train, config) == line.format(adapter)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        (
            {"hidden_size": 32},
            "has shape [4, 64], the model asks for [4, 32]; the adapter is of another base",
        ),
        (
            {"num_hidden_layers": 3},
            "has adapters of 2 layers, the model has 3; the adapter is of another base",
        ),
    ],
    ids=["width", "layers"],
)
def test_an_adapter_of_another_base_is_refused_by_every_program(fields, told, runs, bases, tmp_path, capsys):
    adapter, base = runs["plain"] / "export", base_folder(tmp_path / "base", **fields)
    ending = f"it was trained with '{bases['plain']}'; give it its own; nothing was loaded"
    path, out = f"model.path={base}", f"checkpoint.export.folder={tmp_path / 'out'}"
    model = {"init": "huggingface", "path": str(base), "lora": {"adapter": str(adapter)}}
    config = write_config(tmp_path / "c.yaml", model=model, tokens={"row_length_tokens": 64})
    for program, arguments in (
        (checkpoint, ("import", adapter, tmp_path / "run", path)),
        (checkpoint, ("merge", adapter, path, out)),
        (train, (config,)),
    ):
        line = one_line(capsys, program, *arguments)
        assert line.startswith(f"{adapter / WEIGHTS}: ")
        assert told in line
        assert line.endswith(ending)
    assert not (tmp_path / "run").exists()
    assert not (tmp_path / "out").exists()


def test_folders_that_cannot_be_merged_are_told(runs, bases, tmp_path, capsys):
    adapter, out = tmp_path / "adapter", f"checkpoint.export.folder={tmp_path / 'out'}"
    shutil.copytree(runs["plain"] / "export", adapter)
    fields = json.loads((adapter / ADAPTER).read_text())

    def refused(*arguments: object) -> str:
        line = one_line(capsys, checkpoint, *arguments)
        assert not (tmp_path / "out").exists()
        assert not list(tmp_path.glob(".out*"))
        return line

    assert refused("merge", adapter) == (
        f"checkpoint.export.folder: 'auto' given, and '{adapter}' is no run; a new folder is allowed; give one"
    )
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "cat.jpg").write_bytes(b"cat")
    full = f"checkpoint.export.folder={tmp_path / 'full'}"
    for asked in (("merge", adapter), ("merge", runs["plain"]), ("export", runs["plain"])):
        assert "which holds something else ('cat.jpg'); a new folder" in refused(*asked, full)
    assert [path.name for path in (tmp_path / "full").iterdir()] == ["cat.jpg"]

    for folder, told in (
        (
            tmp_path / "full",
            "full: holds no adapter_config.json; a PEFT folder has one; give the folder of an",
        ),
        (bases["plain"], "holds no adapter_config.json; a PEFT folder has one; it is a whole model"),
        (tmp_path / "nowhere", f"model.lora.adapter: '{tmp_path / 'nowhere'}' does not exist; give a folder"),
    ):
        assert told in refused("merge", folder, out)
    for changed, told in (
        ({"modules_to_save": ["lm_head"]}, "field 'modules_to_save': whole modules that were trained beside"),
        ({"rank_pattern": {"q_proj": 8}}, "field 'rank_pattern': modules with a rank of their own"),
    ):
        (adapter / ADAPTER).write_text(json.dumps(fields | changed))
        assert f"{adapter / ADAPTER}: {told}" in refused("merge", adapter, out)
        assert told in refused("import", adapter, tmp_path / "out")
    (adapter / ADAPTER).write_text(json.dumps(fields | {"base_model_name_or_path": None}))
    assert refused("merge", adapter, out) == (
        f"model.path: not given, and '{adapter}' does not name its base; give the base of the adapter"
    )


def test_what_is_read_or_of_another_kind_is_not_written_over(runs, bases, tmp_path, capsys):
    adapter, base = (
        Path(shutil.copytree(folder, tmp_path / name))
        for name, folder in (("adapter", runs["plain"] / "export"), ("base", bases["plain"]))
    )
    (base / "jaxlingua.json").write_text(json.dumps({"files": [path.name for path in base.iterdir()]}))
    before = {path: path.read_bytes() for folder in (adapter, base) for path in folder.iterdir()}
    for names in (("merge", adapter), ("merge", runs["plain"])):
        line = one_line(capsys, checkpoint, *names, f"checkpoint.export.folder={adapter}")
        assert (
            "which is read from" in line
            or "which holds an adapter, and a whole model is to be written" in line
        )
    arguments = ("merge", adapter, f"model.path={base}", f"checkpoint.export.folder={base}")
    assert "which is read from; a new folder is allowed" in one_line(capsys, checkpoint, *arguments)
    assert {path: path.read_bytes() for folder in (adapter, base) for path in folder.iterdir()} == before
    arguments = ("export", runs["plain"], "checkpoint.export.dtype=bfloat16")
    assert one_line(capsys, checkpoint, *arguments) == (
        "checkpoint.export.dtype: 'bfloat16' given; adapters are written in float32, as they are learned; leave "
        "it out"
    )


def test_a_base_that_is_elsewhere_is_named(runs, tmp_path, capsys):
    adapter = Path(shutil.copytree(runs["plain"] / "export", tmp_path / "adapter"))
    fields = json.loads((adapter / ADAPTER).read_text()) | {"base_model_name_or_path": "/no/where"}
    (adapter / ADAPTER).write_text(json.dumps(fields))
    assert one_line(capsys, checkpoint, "merge", adapter, f"checkpoint.export.folder={tmp_path / 'out'}") == (
        f"model.path: not given, and '{adapter}' names its base '/no/where', which is not here; give the base of "
        f"the adapter"
    )


def test_pieces_without_a_row_in_the_base_are_refused():
    sizes = tiny_llama_config(vocab_size=64)
    origin = Origin(Config(), Path(), None, sizes, Lora(4, 8.0, ("q",)))
    with pytest.raises(
        ConfigError, match="384 pieces given; the checkpoint's embedding has 64 rows, which are"
    ):
        origin.vocab_rows(tiny_tokenizer())


def test_a_run_without_adapters_is_not_merged(bases, tmp_path, capsys):
    run = tmp_path / "run"
    checkpoint("import", bases["plain"], run)
    assert one_line(capsys, checkpoint, "merge", run) == (
        f"RUN: '{run}' given, which has no adapters; python -m jaxlingua.checkpoint export {run} writes it whole"
    )
    assert not (run / "merged").exists()
