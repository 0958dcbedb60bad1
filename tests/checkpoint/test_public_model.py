"""A public checkpoint into sharded parameters and out again, against a plain numpy reading of the same files."""

import json
from dataclasses import replace
from pathlib import Path

import jax
import numpy as np
import pytest
from flax.traverse_util import flatten_dict
from safetensors import safe_open

from jaxlingua.checkpoint.huggingface.export import write_weights
from jaxlingua.checkpoint.huggingface.model import load_params, open_model
from jaxlingua.checkpoint.huggingface.safetensors_file import INDEX, StoredTensor
from jaxlingua.errors import CheckpointError
from jaxlingua.model.llama import Llama
from jaxlingua.sharding.rules import padded_vocab_size, param_shardings
from tests.checkpoint.folders import BIASED, DTYPES, LLAMA, QWEN2, QWEN3, draw, write_folder
from tests.train.world import mesh_of

MESHES = {
    "one device": {"data": 1, "fsdp": 1, "tensor": 1},
    "copies": {"data": 8, "fsdp": 1, "tensor": 1},
    "fsdp and tensor": {"data": 1, "fsdp": 4, "tensor": 2},
    "all three": {"data": 2, "fsdp": 2, "tensor": 2},
}
FAMILIES = {"llama": LLAMA, "llama with biases": BIASED, "qwen2": QWEN2, "qwen3, tied": QWEN3}


def model_for(public, rows: int | None = None) -> Llama:
    vocab_size = padded_vocab_size(rows or public.config.vocab_size)
    return Llama(replace(public.config, vocab_size=vocab_size, compute_dtype="float32"))


def expected(fields: dict, tensors: dict[str, np.ndarray], rows: int) -> dict[str, np.ndarray]:
    """Parameters as they should be, written out by hand."""
    d, h, layers = fields["hidden_size"], fields["head_dim"], fields["num_hidden_layers"]
    n, k = fields["num_attention_heads"], fields["num_key_value_heads"]
    tensors = {name: array.astype(np.float32) for name, array in tensors.items()}

    def stack(name, turn=lambda w: w):
        return np.stack([turn(tensors[f"model.layers.{layer}.{name}"]) for layer in range(layers)])

    def padded(matrix):
        mean = matrix.astype(np.float64).mean(0, keepdims=True).astype(np.float32)
        return np.concatenate([matrix, np.repeat(mean, rows - len(matrix), 0)])

    params = {
        "embed/embedding": padded(tensors["model.embed_tokens.weight"]),
        "final_norm/scale": tensors["model.norm.weight"],
        "layers/attention_norm/scale": stack("input_layernorm.weight"),
        "layers/mlp_norm/scale": stack("post_attention_layernorm.weight"),
        "layers/attention/q": stack("self_attn.q_proj.weight", lambda w: w.T.reshape(d, n, h)),
        "layers/attention/k": stack("self_attn.k_proj.weight", lambda w: w.T.reshape(d, k, h)),
        "layers/attention/v": stack("self_attn.v_proj.weight", lambda w: w.T.reshape(d, k, h)),
        "layers/attention/o": stack("self_attn.o_proj.weight", lambda w: w.T.reshape(n, h, d)),
        **{f"layers/mlp/{m}": stack(f"mlp.{m}_proj.weight", np.transpose) for m in ("gate", "up", "down")},
    }
    if "lm_head.weight" in tensors:
        params["head/kernel"] = padded(tensors["lm_head.weight"]).T
    if "model.layers.0.self_attn.q_proj.bias" in tensors:
        params["layers/attention/q_bias"] = stack("self_attn.q_proj.bias", lambda b: b.reshape(n, h))
        for name in "kv":
            bias = stack(f"self_attn.{name}_proj.bias", lambda b: b.reshape(k, h))
            params[f"layers/attention/{name}_bias"] = bias
    if "model.layers.0.self_attn.o_proj.bias" in tensors:
        params["layers/attention/o_bias"] = stack("self_attn.o_proj.bias")
    if "model.layers.0.mlp.up_proj.bias" in tensors:
        params |= {f"layers/mlp/{m}_bias": stack(f"mlp.{m}_proj.bias") for m in ("gate", "up", "down")}
    if "model.layers.0.self_attn.q_norm.weight" in tensors:
        params |= {f"layers/attention/{m}_norm/scale": stack(f"self_attn.{m}_norm.weight") for m in "qk"}
    return params


@pytest.mark.parametrize("mesh", MESHES)
@pytest.mark.parametrize("family", FAMILIES)
def test_every_tensor_of_every_family_comes_to_its_place_on_every_mesh(family, mesh, tmp_path):
    fields, mesh = FAMILIES[family], mesh_of(**MESHES[mesh])
    tensors = draw(fields)
    public = open_model(str(write_folder(tmp_path, fields, tensors, shards=3)))
    model = model_for(public)
    params = flatten_dict(load_params(public, model, mesh), sep="/")
    wanted, shardings = expected(fields, tensors, 384), flatten_dict(param_shardings(model, mesh), sep="/")
    assert params.keys() == wanted.keys()
    for path, value in wanted.items():
        assert params[path].dtype == np.float32
        # So never whole on one device.
        assert params[path].sharding.is_equivalent_to(shardings[path], value.ndim), path
        if path in ("embed/embedding", "head/kernel"):
            np.testing.assert_allclose(params[path], value, atol=1e-6, rtol=0, err_msg=path)
        else:
            np.testing.assert_array_equal(params[path], value, err_msg=path)


@pytest.mark.parametrize("dtype", DTYPES)
def test_each_type_is_read_exactly_and_written_back_bit_by_bit(dtype, tmp_path):
    """Import, export, import: the same tensors, the same bytes; also through several shards."""
    fields = QWEN2 | {"torch_dtype": dtype}
    tensors = draw(fields, dtype)
    first, second = write_folder(tmp_path / "first", fields, tensors, shards=2), tmp_path / "second"
    mesh = mesh_of(fsdp=4, tensor=2)
    public = open_model(str(first))
    assert public.dtype == dtype
    model = model_for(public)
    params = load_params(public, model, mesh)
    second.mkdir()
    write_weights(
        second, params, model.config, public.fields, dtype=dtype, shard_gib=100_000 / 2**30, mesh=mesh
    )
    again = open_model(str(second))
    assert again.fields == public.fields
    assert len(list(second.glob("model-*-of-*.safetensors"))) > 3
    for name, array in tensors.items():
        (back,) = [safe_open(again.tensors[name].file, "np").get_tensor(name)]  # by the library
        assert back.dtype == array.dtype
        assert back.tobytes() == array.tobytes(), name
    for ours, theirs in zip(
        jax.tree.leaves(load_params(again, model, mesh)), jax.tree.leaves(params), strict=True
    ):
        np.testing.assert_array_equal(ours, theirs)


def test_a_file_of_several_types_is_kept_in_the_one_that_holds_all(tmp_path):
    """Norms in float32 beside matrices in bfloat16, and whatever config.json says."""
    tensors = draw(LLAMA, "bfloat16")
    tensors |= {name: array.astype(np.float32) for name, array in tensors.items() if "norm" in name}
    old = {"model.layers.0.self_attn.rotary_emb.inv_freq": np.ones(8, np.float32)}
    assert open_model(str(write_folder(tmp_path / "mixed", LLAMA, tensors))).dtype == "float32"
    assert (
        open_model(str(write_folder(tmp_path / "old", LLAMA, draw(LLAMA, "float16") | old))).dtype
        == "float16"
    )


def test_shards_are_as_large_as_asked_for_and_their_index_is_right(tmp_path):
    public = open_model(str(write_folder(tmp_path / "in", LLAMA)))
    out, mesh, limit = tmp_path / "out", mesh_of(fsdp=8), 50_000
    out.mkdir()
    model = model_for(public)
    write_weights(
        out, load_params(public, model, mesh), model.config, LLAMA, dtype="float32", shard_gib=limit / 2**30, mesh=mesh
    )  # fmt: skip
    index = json.loads((out / INDEX).read_text())
    assert index["metadata"]["total_size"] == sum(array.nbytes for array in draw(LLAMA).values())
    for file in out.glob("*.safetensors"):
        with safe_open(file, "np") as shard:
            names = list(shard.keys())
            assert {index["weight_map"][name] for name in names} == {file.name}
            assert shard.metadata() == {"format": "pt"}
            content = sum(shard.get_tensor(name).nbytes for name in names)
        assert content <= limit or len(names) == 1


def test_new_tokens_begin_with_the_mean_of_the_old_rows_in_and_out(tmp_path):
    """The way of arXiv:2308.04948; rows that only pad the vocabulary have it too."""
    tensors = draw(LLAMA)
    public = open_model(str(write_folder(tmp_path, LLAMA, tensors)))
    params = load_params(public, model_for(public, rows=390), mesh_of(fsdp=4, tensor=2))
    for name, weight in (
        ("model.embed_tokens.weight", params["embed"]["embedding"]),
        ("lm_head.weight", params["head"]["kernel"].T),
    ):
        assert weight.shape == (512, 64)
        np.testing.assert_array_equal(weight[:300], tensors[name])
        mean = np.broadcast_to(tensors[name].mean(0, dtype=np.float64), (212, 64))
        np.testing.assert_allclose(weight[300:], mean, atol=1e-6, rtol=0)


def test_a_process_reads_each_tensor_once_and_no_more_rows_than_the_file_has(tmp_path, monkeypatch):
    public = open_model(str(write_folder(tmp_path, LLAMA)))
    read = []
    real = StoredTensor.read_rows

    def noted(self, first, stop):
        read.append((self.start, stop - first, self.shape[0]))
        return real(self, first, stop)

    monkeypatch.setattr(StoredTensor, "read_rows", noted)
    load_params(public, model_for(public), mesh_of(fsdp=4, tensor=2))
    assert [rows for _, rows, _ in read] == [rows for _, _, rows in read]
    assert sorted(start for start, _, _ in read) == sorted({t.start for t in public.tensors.values()})


def test_progress_is_told_in_bytes_up_to_all_of_them(tmp_path):
    public = open_model(str(write_folder(tmp_path, LLAMA)))
    told = []
    load_params(public, model_for(public), mesh_of(fsdp=8), lambda done, total: told.append((done, total)))
    assert told[-1][0] == told[-1][1] == public.file_bytes
    assert [done for done, _ in told] == sorted(done for done, _ in told)


def test_a_derived_tensor_of_old_conversions_is_left_alone(tmp_path):
    """OpenLLaMA and LLaMA 1 files hold inv_freq, which config.json determines."""
    old = {f"model.layers.{i}.self_attn.rotary_emb.inv_freq": np.ones(8, np.float32) for i in range(3)}
    public = open_model(str(write_folder(tmp_path, LLAMA, draw(LLAMA) | old)))
    load_params(public, model_for(public), mesh_of(fsdp=8))


def test_a_tied_head_that_is_written_a_second_time_is_accepted(tmp_path):
    tensors = draw(QWEN3)
    tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"].copy()
    params = load_params(
        public := open_model(str(write_folder(tmp_path, QWEN3, tensors))), model_for(public), mesh_of(fsdp=8)
    )
    assert "head" not in params


def test_a_weight_too_large_for_float16_is_refused_by_name(tmp_path):
    tensors = draw(LLAMA)
    tensors["model.layers.1.mlp.up_proj.weight"][0, 0] = 1e6
    public = open_model(str(write_folder(tmp_path / "in", LLAMA, tensors)))
    model, mesh = model_for(public), mesh_of(fsdp=8)
    params = load_params(public, model, mesh)
    with pytest.raises(
        CheckpointError, match=r"model.layers.1.mlp.up_proj.weight: a weight is too large for"
    ):
        write_weights(tmp_path, params, model.config, LLAMA, dtype="float16", shard_gib=1.0, mesh=mesh)


# ── what is refused ───────────────────────────────────────────────────────────────────────────────────────


def refusal(folder: Path) -> str:
    with pytest.raises(CheckpointError) as caught:
        open_model(str(folder))
    return str(caught.value)


def test_a_missing_shard_is_named(tmp_path):
    (write_folder(tmp_path, LLAMA, shards=4) / "model-00003-of-00004.safetensors").unlink()
    assert refusal(tmp_path) == (
        f"{tmp_path}: 'model-00003-of-00004.safetensors' of {INDEX} missing, of 4 shards; all are needed; download "
        f"the rest; nothing was loaded"
    )


@pytest.mark.parametrize("kept", [0, 7, 200, 100_000])
def test_a_file_cut_short_is_named_before_anything_is_loaded(kept, tmp_path):
    file = write_folder(tmp_path, LLAMA) / "model.safetensors"
    file.write_bytes(file.read_bytes()[:kept])
    line = refusal(tmp_path)
    assert line.startswith(f"{file}: cut short or damaged ({kept:,} bytes; ")
    assert line.endswith("; download it again; nothing was loaded")
    assert "\n" not in line


def test_a_file_that_is_something_else_is_named(tmp_path):
    file = write_folder(tmp_path, LLAMA) / "model.safetensors"
    file.write_text("<html>Please log in to see this page.</html>")
    assert refusal(tmp_path).startswith(f"{file}: cut short or damaged (")
    file.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 123\n")
    assert refusal(tmp_path) == (
        f"{file}: a pointer of git LFS given, not the weights; run 'git lfs pull' there; nothing was loaded"
    )


def test_a_file_that_becomes_shorter_while_it_is_read_is_told(tmp_path):
    public = open_model(str(write_folder(tmp_path, LLAMA)))
    file = tmp_path / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-1000])
    with pytest.raises(CheckpointError, match=r"model.safetensors: became shorter while it was read"):
        load_params(public, model_for(public), mesh_of(fsdp=8))


def test_a_tensor_of_another_shape_is_named_with_both(tmp_path):
    tensors = draw(LLAMA)
    tensors["model.layers.1.mlp.up_proj.weight"] = np.zeros((95, 64), np.float32)
    write_folder(tmp_path, LLAMA, tensors)
    assert refusal(tmp_path) == (
        f"{tmp_path / 'model.safetensors'}: tensor 'model.layers.1.mlp.up_proj.weight' has shape [95, 64], "
        f"config.json asks for [96, 64]; one of them is of another model; nothing was loaded"
    )


def test_missing_tensors_are_named_and_counted(tmp_path):
    tensors = {name: array for name, array in draw(LLAMA).items() if ".2." not in name}
    write_folder(tmp_path, LLAMA, tensors)
    line = refusal(tmp_path)
    assert "tensor 'model.layers.2.input_layernorm.weight', 'model.layers.2.self_attn.q_proj.weight'" in line
    assert "and 4 more not there, 9 of 30 that config.json asks for; all are needed" in line


@pytest.mark.parametrize(
    "extra",
    [
        "score.weight",
        "model.layers.3.mlp.up_proj.weight",
        "model.layers.0.self_attn.q_proj.bias",
        "lm_head.bias",
    ],
)
def test_a_tensor_that_config_json_does_not_ask_for_is_named(extra, tmp_path):
    write_folder(tmp_path, LLAMA, draw(LLAMA) | {extra: np.zeros(8, np.float32)})
    assert refusal(tmp_path) == (
        f"{tmp_path}: tensor '{extra}' there, which config.json does not ask for; a model with parts that are not "
        f"known would be another function; nothing was loaded"
    )


def test_a_type_that_is_no_float_of_16_or_32_bits_is_named(tmp_path):
    tensors = draw(LLAMA)
    tensors["model.norm.weight"] = tensors["model.norm.weight"].astype(np.float64)
    write_folder(tmp_path, LLAMA, tensors)
    assert "tensor 'model.norm.weight' has type F64; F32, F16, BF16 are allowed" in refusal(tmp_path)


def test_a_head_that_is_said_to_be_tied_but_is_not_is_refused(tmp_path):
    tensors = draw(QWEN3)
    tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"].copy()
    tensors["lm_head.weight"][299, 63] += 1
    assert "tie_word_embeddings=true, but 'lm_head.weight' is not the embedding" in refusal(
        write_folder(tmp_path, QWEN3, tensors)
    )


def test_an_untied_head_that_is_missing_is_not_made_up(tmp_path):
    """transformers would draw it at random and go on."""
    tensors = {name: array for name, array in draw(LLAMA).items() if name != "lm_head.weight"}
    assert "tensor 'lm_head.weight' not there, 1 of 30" in refusal(write_folder(tmp_path, LLAMA, tensors))


def test_an_index_that_disagrees_with_its_shards_is_refused(tmp_path):
    index = write_folder(tmp_path, LLAMA, shards=2) / INDEX
    content = json.loads(index.read_text())
    content["weight_map"]["model.norm.weight"] = "model-00001-of-00002.safetensors"
    index.write_text(json.dumps(content))
    assert "model-00001-of-00002.safetensors: disagrees with model.safetensors.index.json on 'model.norm" in (
        refusal(tmp_path)
    )


@pytest.mark.parametrize("content", ["", "{", "[]", '{"weight_map": 3}', '{"weight_map": {"a": []}}'])
def test_a_damaged_index_is_one_line(content, tmp_path):
    (write_folder(tmp_path, LLAMA, shards=2) / INDEX).write_text(content)
    assert refusal(tmp_path).startswith(
        f"{tmp_path / INDEX}: damaged; a map of tensors to shards is expected"
    )


def test_an_index_cannot_lead_out_of_its_folder(tmp_path):
    (write_folder(tmp_path, LLAMA, shards=2) / INDEX).write_text(
        '{"weight_map": {"a": "../secret.safetensors"}}'
    )
    assert "'../secret.safetensors' given as a shard; file names of its folder are allowed" in refusal(
        tmp_path
    )


@pytest.mark.parametrize(
    ("file", "hint"),
    [
        ("pytorch_model.bin", "PyTorch files, which can run code when they are read; write safetensors with"),
        ("consolidated.00.pth", "it is an original download of Meta's; convert it first"),
        ("model-00001-of-00002.safetensors", "shards need their index; download it too"),
        ("notes.txt", "give a whole checkpoint with safetensors; PyTorch's .bin files are not read"),
    ],
)
def test_a_folder_without_weights_tells_what_to_do(file, hint, tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(LLAMA))
    (tmp_path / file).write_bytes(b"x")
    assert hint in refusal(tmp_path)


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe", b"[1]", b'"text"'])
def test_a_damaged_config_json_is_one_line(content, tmp_path):
    (write_folder(tmp_path, LLAMA) / "config.json").write_bytes(content)
    line = refusal(tmp_path)
    assert line.startswith(f"{tmp_path / 'config.json'}: ")
    assert line.endswith("download it again")


def test_a_folder_without_config_json_is_told(tmp_path):
    assert refusal(tmp_path) == (
        f"{tmp_path}: holds no config.json; a Hugging Face folder has one; give such a folder"
    )
