"""Adapters of peft, live: read and computed here, written again and read by peft, and trained on here."""

import json
import warnings
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
import transformers
from jax.sharding import Mesh
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file

from jaxlingua.checkpoint.huggingface.adapter import check_base, load_adapter, open_adapter, write_adapter
from jaxlingua.checkpoint.huggingface.model import PublicModel, load_params, open_model
from jaxlingua.model.llama import Llama
from jaxlingua.model.lora import collections
from jaxlingua.sharding.rules import MeshFunction, padded_vocab_size
from tests.train.world import mesh_of

PEFT = 1e-5  # of logits and losses, absolute
ROWS = 200  # no multiple of 128
PROJECTIONS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
VOCABULARIES = ["embed_tokens", "lm_head"]
# Whether the head is tied, fields of peft's LoraConfig, and type of the file.
CASES: dict[str, tuple[bool, dict[str, Any], torch.dtype]] = {
    "lora": (False, {"target_modules": PROJECTIONS}, torch.float32),
    "rslora in a file of bf16": (
        True,
        {"target_modules": ["q_proj", "v_proj"], "use_rslora": True},
        torch.bfloat16,
    ),
    "dora by a pattern": (
        True,
        {"target_modules": r".*\.(k_proj|o_proj|gate_proj|down_proj)", "use_dora": True},
        torch.float32,
    ),
    "lora of vocabularies, tied": (True, {"target_modules": ["up_proj", *VOCABULARIES]}, torch.float32),
    "rslora and dora of all": (
        False,
        {"target_modules": [*PROJECTIONS, *VOCABULARIES], "use_rslora": True, "use_dora": True},
        torch.float32,
    ),
}
COMPILED_FAST = {"xla_backend_optimization_level": 0}  # the programs are tiny and run once
ADAPTER, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"


@pytest.fixture(autouse=True)
def _one_thread():
    """The models are tiny; threads would wait for each other."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def bases(tmp_path_factory) -> dict[bool, Path]:
    """A model of transformers with heads in groups, on disk, by whether its head is tied."""
    folders = {}
    for is_tied in (False, True):
        torch.manual_seed(0)
        config = transformers.LlamaConfig(
            vocab_size=ROWS,
            hidden_size=32,
            intermediate_size=48,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            max_position_embeddings=64,
            initializer_range=0.15,  # wide, so that mistakes show
            tie_word_embeddings=is_tied,
        )
        folders[is_tied] = tmp_path_factory.mktemp("base") / "model"
        transformers.LlamaForCausalLM(config).save_pretrained(folders[is_tied])
    return folders


def of_transformers(base: Path) -> transformers.PreTrainedModel:
    return transformers.LlamaForCausalLM.from_pretrained(base, dtype=torch.float32)


def adapted(base: Path, **fields: Any) -> PeftModel:
    """A model of peft whose adapters are far from the zeros that they begin with."""
    torch.manual_seed(1)
    model = get_peft_model(
        of_transformers(base), LoraConfig(r=4, lora_alpha=6, task_type="CAUSAL_LM", **fields)
    )
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "lora_magnitude" in name:
                weight.mul_(torch.empty_like(weight).uniform_(0.6, 1.4))
            elif "lora_" in name:
                weight.normal_(std=0.2)
    return model


@cache
def rows() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    tokens = np.random.default_rng(0).integers(0, ROWS, (3, 12), np.int32)
    positions = np.tile(np.arange(12, dtype=np.int32), (3, 1))
    return tokens, positions, np.ones_like(tokens)


@torch.no_grad()
def logits_of(model: torch.nn.Module) -> np.ndarray:
    return model.eval()(torch.tensor(rows()[0]).long()).logits.numpy()


def loaded(base: Path, adapter: Path, mesh: Mesh) -> tuple[Llama, dict, PublicModel]:
    """Our model and its weights."""
    public, ours = open_model(str(base)), open_adapter(str(adapter))
    check_base(ours, public)
    model = Llama(replace(public.config, vocab_size=padded_vocab_size(ROWS), lora=ours.lora))
    adapters = load_adapter(ours, model, mesh)
    return model, {**load_params(public, model, mesh), "lora": adapters}, public


def written(folder: Path, model: Llama, weights: dict, base: Path, mesh: Mesh) -> Path:
    folder.mkdir()
    write_adapter(folder, weights["lora"], model.config, vocab_rows=ROWS, base_model=str(base), mesh=mesh)
    return folder


def adapters_in(folder: Path) -> dict[str, torch.Tensor]:
    """Without the copies of the base's embedding and head that peft writes beside its adapters."""
    return {name: it for name, it in load_file(folder / WEIGHTS).items() if ".base_layer." not in name}


@pytest.mark.parametrize("case", CASES)
def test_an_adapter_of_peft_computes_the_same_here_and_is_read_by_peft_again(case, bases, tmp_path):
    is_tied, fields, dtype = CASES[case]
    base, theirs = bases[is_tied], tmp_path / "theirs"
    adapted(base, **fields).to(dtype).save_pretrained(theirs)
    expected = logits_of(PeftModel.from_pretrained(of_transformers(base), theirs))
    assert np.abs(expected - logits_of(of_transformers(base))).max() > 0.5

    mesh = mesh_of(fsdp=2, tensor=2)
    model, weights, _ = loaded(base, theirs, mesh)

    def logits(weights: dict, *row: jax.Array) -> jax.Array:
        return model.apply(collections(weights), *row)

    tokens, positions, segments = (np.concatenate([part, part[:1]]) for part in rows())  # rows divide by two
    ours = MeshFunction(jax.jit(logits, compiler_options=COMPILED_FAST), mesh)
    ours = ours(weights, tokens, positions, segments)[:3, :, :ROWS]
    np.testing.assert_allclose(ours, expected, atol=PEFT, rtol=0)

    again, before = written(tmp_path / "ours", model, weights, base, mesh), adapters_in(theirs)
    after = adapters_in(again)
    assert after.keys() == before.keys()
    assert all(torch.equal(after[name], before[name].float()) for name in before)
    check_config(again, theirs)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        read = PeftModel.from_pretrained(of_transformers(base), again)
    assert not [str(it.message) for it in told if "adapter keys" in str(it.message)]
    np.testing.assert_array_equal(logits_of(read), expected)
    result = read.load_adapter(again, adapter_name="once more")
    assert (result.missing_keys, result.unexpected_keys) == ([], [])


def check_config(ours: Path, theirs: Path) -> None:
    """peft understands what we wrote as what it wrote itself, but for a pattern, which becomes names."""
    ours, theirs = (LoraConfig.from_pretrained(folder).to_dict() for folder in (ours, theirs))
    if isinstance(theirs["target_modules"], str):
        theirs["target_modules"] = {"k_proj", "o_proj", "gate_proj", "down_proj"}
    assert ours == theirs


def test_an_adapter_that_peft_trained_three_steps_goes_on_here(bases, tmp_path):
    """The fourth step of peft and ours: the loss before it, that after it, and every number that it made."""
    base, rate = bases[False], 0.5
    torch.manual_seed(2)
    fields = {"target_modules": [*PROJECTIONS, *VOCABULARIES], "use_dora": True, "use_rslora": True}
    theirs = get_peft_model(
        of_transformers(base), LoraConfig(r=4, lora_alpha=4, task_type="CAUSAL_LM", **fields)
    )
    tokens = torch.tensor(rows()[0]).long()
    optimizer = torch.optim.SGD([p for p in theirs.parameters() if p.requires_grad], rate)

    def step() -> float:
        optimizer.zero_grad()
        loss = theirs(tokens, labels=tokens).loss
        loss.backward()
        optimizer.step()
        return loss.item()

    losses = [step() for _ in range(3)]
    theirs.save_pretrained(tmp_path / "three")
    losses += [step(), theirs(tokens, labels=tokens).loss.item()]
    theirs.save_pretrained(tmp_path / "four")
    assert losses == sorted(losses, reverse=True)
    assert losses[0] - losses[3] > 0.2

    mesh = mesh_of()
    model, weights, _ = loaded(base, tmp_path / "three", mesh)

    def loss(adapters: dict, base: dict) -> jax.Array:
        tokens, positions, segments = rows()
        out = model.apply(collections({**base, "lora": adapters}), tokens, positions, segments)[:, :-1, :ROWS]
        chosen = jnp.take_along_axis(jax.nn.log_softmax(out), tokens[:, 1:, None], -1)
        return -chosen.mean()

    def fourth_step(adapters: dict, base: dict) -> tuple[jax.Array, jax.Array, dict]:
        before, gradients = jax.value_and_grad(loss)(adapters, base)
        adapters = jax.tree.map(lambda value, gradient: value - rate * gradient, adapters, gradients)
        return before, loss(adapters, base), adapters

    frozen = {name: tree for name, tree in weights.items() if name != "lora"}
    fourth_step = jax.jit(fourth_step, compiler_options=COMPILED_FAST)
    before, after, weights["lora"] = fourth_step(weights["lora"], frozen)
    np.testing.assert_allclose([before, after], losses[3:], atol=PEFT, rtol=0)
    ours, fourth = (
        adapters_in(written(tmp_path / "ours", model, weights, base, mesh)),
        adapters_in(tmp_path / "four"),
    )
    assert ours.keys() == fourth.keys()
    for name, tensor in fourth.items():
        np.testing.assert_allclose(ours[name], tensor, atol=PEFT, rtol=0, err_msg=name)
    assert json.loads((tmp_path / "ours" / ADAPTER).read_text())["base_model_name_or_path"] == str(base)
