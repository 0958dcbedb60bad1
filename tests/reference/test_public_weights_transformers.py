"""Whole checkpoints of transformers, live: read by us, computed, written again, and read by transformers."""

import json
from dataclasses import dataclass, replace
from pathlib import Path

import jax
import numpy as np
import pytest
import torch
from jax.sharding import Mesh
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from jaxlingua.checkpoint.huggingface.export import write_weights
from jaxlingua.checkpoint.huggingface.model import PublicModel, load_params, open_model
from jaxlingua.model.llama import Llama
from jaxlingua.sharding.rules import MeshFunction, padded_vocab_size
from tests.train.world import mesh_of

FP32_LAYER = 1e-5
FP32_MODEL = 1e-4
ROWS = 300  # no multiple of 128
SIZES = {
    "vocab_size": ROWS,
    "hidden_size": 48,
    "intermediate_size": 56,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
    "initializer_range": 0.2,  # wide, so that mistakes show
}
LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 500_000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}
YARN = {"rope_type": "yarn", "rope_theta": 1e6, "factor": 4.0, "original_max_position_embeddings": 64}
WINDOW = {"use_sliding_window": True, "sliding_window": 5}

# Family, type of the file, largest file, and fields beside the sizes.
CASES = {
    "llama in fp32": ("llama", "float32", "1GB", {}),
    "llama in bf16 with biases, in shards": (
        "llama",
        "bfloat16",
        "20KB",
        {"attention_bias": True, "mlp_bias": True, "rope_parameters": LLAMA3},
    ),
    "llama in fp16 with a tied head and wide heads": (
        "llama",
        "float16",
        "1GB",
        {"tie_word_embeddings": True, "num_key_value_heads": 4, "head_dim": 64},
    ),
    "mistral in bf16, in shards": ("mistral", "bfloat16", "30KB", {"sliding_window": 6, "head_dim": 16}),
    "qwen2 in bf16": ("qwen2", "bfloat16", "1GB", {"rope_parameters": YARN}),
    "qwen2 in fp16 whose last layer slides, in shards": (
        "qwen2",
        "float16",
        "10KB",
        {**WINDOW, "max_window_layers": 1, "tie_word_embeddings": True},
    ),
    "qwen3 in bf16 with a tied head": ("qwen3", "bfloat16", "1GB", {"tie_word_embeddings": True}),
    "qwen3 in fp32 with biases, in shards": (
        "qwen3",
        "float32",
        "40KB",
        {"attention_bias": True, "head_dim": 16, "num_attention_heads": 8},
    ),
}
COMPILED_FAST = {"xla_backend_optimization_level": 0}  # the programs are tiny and run once
EIGHT = {"fsdp": 4, "tensor": 2}
SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"


@dataclass(frozen=True)
class Published:
    """A model that transformers drew and wrote, and what we understood of it."""

    theirs: PreTrainedModel  # in the type of the file
    folder: Path
    public: PublicModel
    model: Llama

    def largest_file(self) -> int:
        return max(path.stat().st_size for path in self.folder.glob("*.safetensors"))


@pytest.fixture(autouse=True)
def _one_thread():
    """The models are tiny; threads would wait for each other."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(params=CASES)
def published(request, tmp_path) -> Published:
    family, dtype, shard, fields = CASES[request.param]
    folder = tmp_path / "public"
    torch.manual_seed(0)
    config = AutoConfig.for_model(family, **{**SIZES, **fields}, dtype=dtype)
    theirs = AutoModelForCausalLM.from_config(config).eval()
    with torch.no_grad():
        for name, weight in theirs.named_parameters():
            if "norm" in name:
                weight.uniform_(0.5, 1.5)  # ones would hide a norm that forgets its scale
            elif name.endswith("bias"):
                weight.normal_(std=0.2)
    theirs.save_pretrained(folder, max_shard_size=shard)
    assert (folder / INDEX).is_file() == (shard != "1GB")
    public = open_model(str(folder))
    model = Llama(replace(public.config, vocab_size=padded_vocab_size(ROWS)))
    return Published(theirs, folder, public, model)


def tensors(folder: Path) -> dict[str, torch.Tensor]:
    return {name: it for path in folder.glob("*.safetensors") for name, it in load_file(path).items()}


def same_bits(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(
        one[name].dtype == other[name].dtype and torch.equal(one[name], other[name]) for name in one
    )


def rows(batch: int = 4, length: int = 20) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    tokens = np.random.default_rng(0).integers(0, ROWS, (batch, length), np.int32)
    positions = np.tile(np.arange(length, dtype=np.int32), (batch, 1))
    return tokens, positions, np.ones_like(tokens)


@torch.no_grad()
def logits_of_transformers(folder: Path) -> np.ndarray:
    """In float32. Casting a model of bfloat16 would not do: that keeps its rounded rotary frequencies."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    return model(torch.tensor(rows()[0]).long()).logits.numpy()


def vocabularies(params: dict) -> dict[str, np.ndarray]:
    """What has a row for each token."""
    kernels = {"embed": params["embed"]["embedding"]}
    if "head" in params:
        kernels["head"] = params["head"]["kernel"].T
    return {name: np.asarray(kernel) for name, kernel in kernels.items()}


def check_logits(published: Published, params: dict, mesh: Mesh, expected: np.ndarray) -> None:
    def logits(params: dict, *row: jax.Array) -> jax.Array:
        return published.model.apply({"params": params}, *row)

    ours = MeshFunction(jax.jit(logits, compiler_options=COMPILED_FAST), mesh)(params, *rows())
    np.testing.assert_allclose(ours[..., :ROWS], expected, atol=FP32_MODEL, rtol=FP32_MODEL)


def check_same_parameters(one: dict, eight: dict) -> None:
    """Bit by bit, but for rows beyond those of the file: the mesh says in which order their mean is summed."""
    for part in ("layers", "final_norm"):
        jax.tree.map(np.testing.assert_array_equal, one[part], eight[part])
    for name, kernel in vocabularies(one).items():
        mean, of_eight = kernel[:ROWS].mean(0, dtype=np.float64), vocabularies(eight)[name]
        np.testing.assert_array_equal(kernel[:ROWS], of_eight[:ROWS])
        for beyond in (kernel[ROWS:], of_eight[ROWS:]):
            assert len(beyond) == padded_vocab_size(ROWS) - ROWS > 0
            np.testing.assert_allclose(beyond - mean, 0, atol=FP32_LAYER)


def check_files(ours: Path, theirs: Path) -> None:
    """Tensors are the same bits; and the file the very same bytes, where all lie in one."""
    assert same_bits(tensors(ours), tensors(theirs))
    if (theirs / INDEX).is_file():
        assert len(list(ours.glob("*.safetensors"))) > 2
        index, of_theirs = (json.loads((folder / INDEX).read_text()) for folder in (ours, theirs))
        assert index["weight_map"].keys() == of_theirs["weight_map"].keys()
        assert index["metadata"]["total_size"] == of_theirs["metadata"]["total_size"]
    else:
        assert (ours / SINGLE).read_bytes() == (theirs / SINGLE).read_bytes()


def test_what_is_read_computes_the_same_and_is_written_again_as_the_same_model(published, tmp_path):
    """On one device and on a mesh: read, computed and written here, read and computed by transformers."""
    public, model, export = published.public, published.model, tmp_path / "export"
    expected = logits_of_transformers(published.folder)
    assert expected.std() > 0.5
    params = {}
    for mesh in (mesh_of(), mesh_of(**EIGHT)):
        params[mesh.size] = load_params(public, model, mesh)
        check_logits(published, params[mesh.size], mesh, expected)
    assert params[8]["layers"]["mlp"]["up"].sharding.shard_shape((2, 48, 56)) == (2, 12, 28)
    check_same_parameters(params[1], params[8])

    export.mkdir()
    gib = published.largest_file() / 2**30
    write_weights(
        export, params[8], model.config, public.fields, dtype=public.dtype, shard_gib=gib, mesh=mesh
    )
    assert json.loads((export / "config.json").read_text()) == public.fields
    check_files(export, published.folder)

    again, told = AutoModelForCausalLM.from_pretrained(export, dtype="auto", output_loading_info=True)
    assert not any(told.values())
    assert same_bits(again.state_dict(), published.theirs.state_dict())
    np.testing.assert_array_equal(logits_of_transformers(export), expected)


def test_a_tied_head_that_was_written_a_second_time_is_the_same_model(tmp_path):
    config = AutoConfig.for_model("llama", **SIZES, tie_word_embeddings=True, dtype="bfloat16")
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path / "once")
    (tmp_path / "twice").mkdir()
    (tmp_path / "twice" / "config.json").write_bytes((tmp_path / "once" / "config.json").read_bytes())
    head = {"lm_head.weight": tensors(tmp_path / "once")["model.embed_tokens.weight"].clone()}
    save_file(tensors(tmp_path / "once") | head, tmp_path / "twice" / "model.safetensors", {"format": "pt"})
    once, twice = (open_model(str(tmp_path / name)) for name in ("once", "twice"))
    assert once.tensors.keys() | head.keys() == twice.tensors.keys() != once.tensors.keys()
    model = Llama(once.config)
    params = [load_params(public, model, mesh_of()) for public in (once, twice)]
    jax.tree.map(np.testing.assert_array_equal, *params)
