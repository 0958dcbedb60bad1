"""PEFT folders made up on disk: every tensor in its place and back, and what is refused, each in one line."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flax.traverse_util import flatten_dict
from safetensors.numpy import load_file, save_file

from jaxlingua.checkpoint.huggingface.adapter import (
    check_base,
    is_adapter,
    load_adapter,
    open_adapter,
    write_adapter,
)
from jaxlingua.checkpoint.huggingface.model import open_model
from jaxlingua.errors import CheckpointError
from jaxlingua.model.llama import Llama
from jaxlingua.model.lora import Lora
from jaxlingua.sharding.rules import param_shardings
from tests.checkpoint.folders import DTYPES, LLAMA, QWEN3, draw, write_folder
from tests.train.world import mesh_of

MESHES = {"one device": {}, "fsdp and tensor": {"fsdp": 4, "tensor": 2}}
RANK, ROWS, PADDED, LAYERS = 8, LLAMA["vocab_size"], 384, LLAMA["num_hidden_layers"]
# Module, outputs and inputs, as in transformers' LLaMA with the sizes of LLAMA.
MODULES = {
    "q": ("model.layers.{}.self_attn.q_proj", 128, 64),
    "k": ("model.layers.{}.self_attn.k_proj", 32, 64),
    "v": ("model.layers.{}.self_attn.v_proj", 32, 64),
    "o": ("model.layers.{}.self_attn.o_proj", 64, 128),
    "gate": ("model.layers.{}.mlp.gate_proj", 96, 64),
    "up": ("model.layers.{}.mlp.up_proj", 96, 64),
    "down": ("model.layers.{}.mlp.down_proj", 64, 96),
    "embed": ("model.embed_tokens", 64, ROWS),
    "head": ("lm_head", ROWS, 64),
}
PROJECTIONS = tuple(MODULES)[:7]
CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"


def name_of(target: str) -> str:
    return MODULES[target][0].rpartition(".")[2]


def fields_for(targets: tuple[str, ...], **changes: Any) -> dict[str, Any]:
    return {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": "owner/base",
        "r": RANK,
        "lora_alpha": 4,
        "target_modules": [name_of(target) for target in targets],
        **changes,
    }


def tensors_for(
    targets: tuple[str, ...], dora: bool = False, dtype: str = "float32"
) -> dict[str, np.ndarray]:
    shapes: dict[str, tuple[int, ...]] = {}
    for target in targets:
        module, outputs, inputs = MODULES[target]
        a, b = ("embedding_A", "embedding_B") if target == "embed" else (f"{part}.weight" for part in "AB")
        for layer in range(LAYERS if "{}" in module else 1):
            home = f"base_model.model.{module.format(layer)}.lora_"
            shapes |= {f"{home}{a}": (RANK, inputs), f"{home}{b}": (outputs, RANK)}
            if dora:
                shapes[f"{home}magnitude_vector"] = (outputs,)
    rng = np.random.default_rng(0)
    return {
        name: rng.standard_normal(shape, np.float32).astype(DTYPES[dtype]) for name, shape in shapes.items()
    }


def write_peft(folder: Path, fields: dict[str, Any], tensors: dict[str, np.ndarray]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / CONFIG).write_text(json.dumps(fields), "utf-8")
    save_file(tensors, folder / WEIGHTS, {"format": "pt"})
    return folder


def small(folder: Path, **changes: Any) -> Path:
    """The adapter that tests of refusals change: of queries and of what comes down."""
    return write_peft(folder, fields_for(("q", "down"), **changes), tensors_for(("q", "down")))


def model_for(folder: Path, lora: Lora) -> Llama:
    """Of a base that is not there; only its sizes are."""
    public = open_model(str(write_folder(folder, LLAMA)))
    return Llama(replace(public.config, vocab_size=PADDED, lora=lora))


def expected(tensors: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Adapters as they should be, written out by hand."""
    tensors = {name: array.astype(np.float32) for name, array in tensors.items()}
    d, n, k, h, f, r = 64, 8, 2, 16, 96, RANK

    def stack(part, turn):
        return np.stack([turn(tensors[f"base_model.model.model.layers.{i}.{part}"]) for i in range(LAYERS)])

    def vocab(array, axis):
        return np.pad(array, [(0, PADDED - ROWS if at == axis else 0) for at in range(array.ndim)])

    leaves: dict[str, np.ndarray] = {}
    for target, heads in {"q": n, "k": k, "v": k}.items():
        module, home = f"self_attn.{target}_proj.lora_", f"layers/attention/{target}_"
        leaves[f"{home}a"] = stack(f"{module}A.weight", np.transpose)
        leaves[f"{home}b"] = stack(f"{module}B.weight", lambda b, heads=heads: b.T.reshape(r, heads, h))
        leaves[f"{home}magnitude"] = stack(
            f"{module}magnitude_vector", lambda m, heads=heads: m.reshape(heads, h)
        )
    leaves["layers/attention/o_a"] = stack("self_attn.o_proj.lora_A.weight", lambda a: a.T.reshape(n, h, r))
    leaves["layers/attention/o_b"] = stack("self_attn.o_proj.lora_B.weight", np.transpose)
    leaves["layers/attention/o_magnitude"] = stack("self_attn.o_proj.lora_magnitude_vector", np.asarray)
    for target in ("gate", "up", "down"):
        module, home = f"mlp.{target}_proj.lora_", f"layers/mlp/{target}_"
        leaves[f"{home}a"] = stack(f"{module}A.weight", np.transpose)
        leaves[f"{home}b"] = stack(f"{module}B.weight", np.transpose)
        leaves[f"{home}magnitude"] = stack(f"{module}magnitude_vector", np.asarray)
    assert leaves["layers/mlp/down_a"].shape == (LAYERS, f, r)
    embed, head = ("base_model.model.model.embed_tokens.lora_", "base_model.model.lm_head.lora_")
    leaves["embed/embedding_a"] = vocab(tensors[f"{embed}embedding_A"].T, 0)
    leaves["embed/embedding_b"] = tensors[f"{embed}embedding_B"].T
    leaves["embed/embedding_magnitude"] = tensors[f"{embed}magnitude_vector"]
    leaves["head/kernel_a"] = tensors[f"{head}A.weight"].T
    leaves["head/kernel_b"] = vocab(tensors[f"{head}B.weight"].T, 1)
    leaves["head/kernel_magnitude"] = vocab(tensors[f"{head}magnitude_vector"], 0)
    assert leaves["head/kernel_a"].shape == (d, r)
    return leaves


# ── reading and writing ───────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("mesh", MESHES)
def test_every_tensor_comes_to_its_place_on_every_mesh_and_back_bit_by_bit(mesh, tmp_path):
    mesh, targets = mesh_of(**MESHES[mesh]), tuple(MODULES)
    tensors = tensors_for(targets, dora=True)
    fields = fields_for(targets, use_dora=True, use_rslora=True, lora_alpha=2.5)
    public = open_adapter(str(write_peft(tmp_path / "in", fields, tensors)))
    assert public.lora == Lora(RANK, 2.5, targets, rank_stabilized=True, dora=True)
    model, told = model_for(tmp_path / "base", public.lora), []
    adapters = load_adapter(public, model, mesh, lambda done, total: told.append((done, total)))
    flat, wanted = flatten_dict(adapters, sep="/"), expected(tensors)
    shardings = flatten_dict(param_shardings(model, mesh)["lora"], sep="/")
    assert flat.keys() == wanted.keys() == shardings.keys()
    for path, value in wanted.items():
        assert flat[path].dtype == np.float32
        assert flat[path].sharding.is_equivalent_to(shardings[path], value.ndim), path
        np.testing.assert_array_equal(flat[path], value, err_msg=path)
    size = sum(array.nbytes for array in tensors.values())
    assert told[-1] == (size, size)

    (out := tmp_path / "out").mkdir()
    write_adapter(
        out, adapters, model.config, vocab_rows=ROWS, base_model=public.base_model, mesh=mesh,
        on_progress=lambda done, total: told.append((done, total)),
    )  # fmt: skip
    assert told[-1] == (size, size)
    assert (out / WEIGHTS).read_bytes() == (tmp_path / "in" / WEIGHTS).read_bytes()
    again = open_adapter(str(out))
    assert (again.lora, again.base_model) == (public.lora, "owner/base")


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_files_of_sixteen_bits_are_read_exactly(dtype, tmp_path):
    tensors = tensors_for(("down", "embed"), dtype=dtype)
    public = open_adapter(str(write_peft(tmp_path / "in", fields_for(("down", "embed")), tensors)))
    adapters = load_adapter(public, model_for(tmp_path / "base", public.lora), mesh_of())
    stored = [
        tensors[f"base_model.model.model.layers.{i}.mlp.down_proj.lora_B.weight"] for i in range(LAYERS)
    ]
    assert adapters["embed"]["embedding_a"].dtype == adapters["layers"]["mlp"]["down_b"].dtype == np.float32
    np.testing.assert_array_equal(
        adapters["layers"]["mlp"]["down_b"], np.stack([b.T for b in stored]).astype(np.float32)
    )


def test_files_without_the_prefix_and_of_older_versions_are_the_same_adapter(tmp_path):
    tensors, fields = tensors_for(("q", "head"), dora=True), fields_for(("q", "head"), use_dora=True)
    renamed = {
        name.removeprefix("base_model.model.").replace("_vector", "_vector.weight"): array
        for name, array in tensors.items()
    }
    public, older = (
        open_adapter(str(write_peft(tmp_path / folder, fields, of)))
        for folder, of in {"new": tensors, "old": renamed}.items()
    )
    assert older.tensors.keys() == public.tensors.keys()
    assert older.lora == public.lora
    for name, tensor in older.tensors.items():
        np.testing.assert_array_equal(tensor.read_rows(0, tensor.shape[0]), tensors[name])


@pytest.mark.parametrize(
    ("given", "targets"),
    [
        (None, ("v", "o")),
        ("all-linear", PROJECTIONS),
        (r".*\.(q|down)_proj", ("q", "down")),
        (["self_attn.q_proj", "lm_head", "c_attn"], ("q", "head")),
        ([f"model.layers.{layer}.mlp.up_proj" for layer in range(LAYERS)], ("up",)),
    ],
)
def test_targets_are_what_peft_would_take(given, targets, tmp_path):
    folder = write_peft(tmp_path, fields_for((), target_modules=given), tensors_for(targets))
    assert open_adapter(str(folder)).lora.targets == targets


@pytest.mark.parametrize(
    ("given", "excluded"),
    [
        ("all-linear", ["o_proj", "mlp.gate_proj"]),
        ([name_of(target) for target in MODULES], r".*o_proj|.*gate.*|lm_head|model\.embed_tokens"),
    ],
)
def test_excluded_modules_are_no_targets(given, excluded, tmp_path):
    fields = fields_for((), target_modules=given, exclude_modules=excluded)
    targets = ("q", "k", "v", "up", "down")
    assert open_adapter(str(write_peft(tmp_path, fields, tensors_for(targets)))).lora.targets == targets


def test_what_concerns_training_alone_is_accepted_and_dropout_is_told(tmp_path):
    folder = small(
        tmp_path, lora_dropout=0.05, init_lora_weights="Gaussian", inference_mode=False, revision="main",
        auto_mapping={"base_model_class": "LlamaForCausalLM"}, peft_version="0.21.2", eva_config={"rho": 2.0},
        loftq_config={}, runtime_config={"ephemeral_gpu_offload": False}, modules_to_save=None,
        rank_pattern={}, layer_replication=None, something_new=None, merge_weights=False,
    )  # fmt: skip
    public = open_adapter(str(folder))
    assert (public.dropout, public.base_model, public.lora.alpha) == (0.05, "owner/base", 4.0)
    assert open_adapter(str(small(tmp_path / "plain"))).dropout == 0.0


def test_the_fingerprint_follows_fields_and_values(tmp_path):
    one = open_adapter(str(small(tmp_path / "one"))).fingerprint
    assert open_adapter(str(small(tmp_path / "same"))).fingerprint == one
    assert open_adapter(str(small(tmp_path / "alpha", lora_alpha=5))).fingerprint != one
    tensors = tensors_for(("q", "down"))
    tensors["base_model.model.model.layers.2.mlp.down_proj.lora_B.weight"][0, 0] += 1
    other = write_peft(tmp_path / "other", fields_for(("q", "down")), tensors)
    assert open_adapter(str(other)).fingerprint != one


def test_a_folder_is_an_adapter_where_it_says_so(tmp_path):
    assert not is_adapter(tmp_path)
    assert is_adapter(small(tmp_path))


# ── fields that are refused ───────────────────────────────────────────────────────────────────────────────


def refusal(folder: Path) -> str:
    with pytest.raises(CheckpointError) as caught:
        open_adapter(str(folder))
    assert "\n" not in str(caught.value)
    return str(caught.value)


REFUSED = {
    "modules_to_save": ["lm_head"],
    "rank_pattern": {"q_proj": 4},
    "alpha_pattern": {"q_proj": 4},
    "layers_to_transform": 0,
    "layers_pattern": "layers",
    "layer_replication": [[0, 2], [1, 3]],
    "target_parameters": ["mlp.experts.up"],
    "trainable_token_indices": [0, 1],
    "ensure_weight_tying": True,
    "fan_in_fan_out": True,
    "lora_bias": True,
    "alora_invocation_tokens": [3],
    "use_qalora": True,
    "use_bdlora": {"nblocks": 2},
    "arrow_config": {"top_k": 3},
    "kasa_config": {"beta": 1e-4},
    "monteclora_config": {"num_samples": 8},
    "velora_config": {"num_groups": 64},
    "megatron_config": {"hidden_size": 64},
    "enable_lora": [True, False, True],
}


@pytest.mark.parametrize("field", REFUSED)
def test_a_feature_that_we_lack_is_refused_by_name(field, tmp_path):
    line = refusal(small(tmp_path, **{field: REFUSED[field]}))
    assert line.startswith(f"{tmp_path / CONFIG}: field '{field}': ")
    assert line.endswith("; nothing was loaded")


@pytest.mark.parametrize("value", [3, 0, True, "on", {"a": 1}])
def test_a_field_that_is_not_known_is_refused_unless_it_is_empty(value, tmp_path):
    assert refusal(small(tmp_path, rank_patterns=value)) == (
        f"{tmp_path / CONFIG}: field 'rank_patterns' is not understood; did you mean 'rank_pattern'?; nothing "
        f"was loaded; remove it only if it changes nothing of the function"
    )


@pytest.mark.parametrize(
    ("field", "value", "told"),
    [
        ("peft_type", "LOHA", "peft_type='LOHA' is not supported (LORA)"),
        ("peft_type", None, "peft_type=null is not supported (LORA)"),
        ("task_type", "SEQ_CLS", "task_type='SEQ_CLS' is not supported (CAUSAL_LM)"),
        ("bias", "lora_only", "bias='lora_only' is not supported (none)"),
        ("bias", ["none"], 'bias=["none"] is not supported (none)'),
        ("r", 0, "r=0 is not a whole number above 0"),
        ("r", 4.0, "r=4.0 is not a whole number above 0"),
        ("lora_alpha", 0, "lora_alpha=0 is not a number above 0"),
        ("lora_alpha", float("inf"), "lora_alpha=Infinity is not a number above 0"),
        ("lora_dropout", 1.0, "lora_dropout=1.0 is not a number from 0 to below 1"),
        ("use_rslora", 1, "use_rslora=1 is not true or false"),
        ("use_dora", None, "use_dora=null is not true or false"),
        ("target_modules", [1], "target_modules=[1] is not a list of names, a pattern or null"),
        ("exclude_modules", {}, "exclude_modules={} is not a list of names, a pattern or null"),
        ("base_model_name_or_path", 3, "base_model_name_or_path=3 is not a text or null"),
    ],
)
def test_a_value_that_cannot_be_is_told_with_what_can(field, value, told, tmp_path):
    assert refusal(small(tmp_path, **{field: value})) == f"{tmp_path / CONFIG}: {told}; nothing was loaded"


@pytest.mark.parametrize(
    ("value", "told"),
    [
        (
            "pissa",
            "its base is not the public one but what was left of it; save it with peft's save_pretrained(",
        ),
        ("pissa_niter_16", "its base is not the public one"),
        ("olora", "its base is not the public one"),
        ("corda", "its base is not the public one"),
        ("lora_ga", "its base is not the public one"),
        ("loftq", "its base is not the public one but LoftQ's, which it fits alone"),
        ("mica", "adapters whose B stays as it was drawn (MiCA) are not supported"),
        ("zeros", "true, false, gaussian, eva and orthogonal are supported"),
        (1, "true, false, gaussian, eva and orthogonal are supported"),
    ],
)
def test_first_values_that_were_taken_from_the_base_are_refused(value, told, tmp_path):
    assert f"{CONFIG}: init_lora_weights={value!r}: {told}" in refusal(
        small(tmp_path, init_lora_weights=value)
    )


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (
            ["fc1"],
            'target_modules=["fc1"] names no module of this family; q_proj, k_proj, v_proj, o_proj, gate',
        ),
        ([], "target_modules=[] names no module of this family"),
        (
            "(",
            "target_modules='(' or exclude_modules=[] is no pattern (missing ), unterminated subpattern at pos",
        ),
        (
            r"model\.layers\.[01]\.mlp\.up_proj",
            "names 'up' in 2 of 3 layers; adapters in some layers only are not",
        ),
    ],
)
def test_targets_that_are_none_are_told(given, told, tmp_path):
    assert f"{tmp_path / CONFIG}: " in (line := refusal(small(tmp_path, target_modules=given)))
    assert told in line


# ── files that are refused ────────────────────────────────────────────────────────────────────────────────


def test_a_folder_without_adapter_config_json_is_told_what_it_is(tmp_path):
    (small(tmp_path / "cut") / CONFIG).unlink()
    assert refusal(tmp_path / "cut") == (
        f"{tmp_path / 'cut'}: holds no adapter_config.json; a PEFT folder has one; give the folder of an adapter"
    )
    base = write_folder(tmp_path / "base", LLAMA)
    assert refusal(base).endswith("a PEFT folder has one; it is a whole model: give it as model.path")


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe", b"[1]"])
def test_a_damaged_adapter_config_json_is_one_line(content, tmp_path):
    (small(tmp_path) / CONFIG).write_bytes(content)
    assert refusal(tmp_path).startswith(f"{tmp_path / CONFIG}: ")
    assert refusal(tmp_path).endswith("; download it again")


def test_pickled_weights_are_not_read(tmp_path):
    file = small(tmp_path) / WEIGHTS
    shutil.move(file, tmp_path / "adapter_model.bin")
    assert refusal(tmp_path) == (
        f"{tmp_path}: holds no {WEIGHTS}; its weights are a PyTorch file, which can run code when it is read; "
        f"write it with peft's save_pretrained; nothing was loaded"
    )
    (tmp_path / "adapter_model.bin").unlink()
    assert refusal(tmp_path).startswith(f"{tmp_path}: holds no {WEIGHTS}; write it with peft's")


@pytest.mark.parametrize("kept", [0, 7, 200, 9000])
def test_weights_that_are_cut_short_are_named(kept, tmp_path):
    file = small(tmp_path) / WEIGHTS
    file.write_bytes(file.read_bytes()[:kept])
    assert refusal(tmp_path).startswith(f"{file}: cut short or damaged ({kept:,} bytes; ")


def test_a_missing_tensor_is_named(tmp_path):
    """peft would draw it at random and go on."""
    tensors = tensors_for(("q", "down"))
    del tensors["base_model.model.model.layers.1.mlp.down_proj.lora_B.weight"]
    write_peft(tmp_path, fields_for(("q", "down")), tensors)
    assert refusal(tmp_path) == (
        f"{tmp_path / WEIGHTS}: tensor 'base_model.model.model.layers.1.mlp.down_proj.lora_B.weight' not there, 1 "
        f"of 12 that {CONFIG} asks for; each target is needed in all layers; save the adapter again; nothing was "
        f"loaded"
    )


def test_a_target_without_any_tensor_is_missed(tmp_path):
    write_peft(tmp_path, fields_for(("q", "head")), tensors_for(("head",)))
    assert "layers.0.self_attn.q_proj.lora_A.weight'" in refusal(tmp_path)


@pytest.mark.parametrize(
    "extra",
    [
        "model.layers.0.self_attn.v_proj.lora_A.weight",  # not named by target_modules, so peft leaves it out
        "model.layers.0.self_attn.q_proj.lora_magnitude_vector",  # use_dora is off
        "model.layers.0.self_attn.q_proj.lora_B.bias",
        "model.layers.0.self_attn.q_proj.base_layer.weight",
        "model.embed_tokens.weight",  # of a vocabulary that was made larger
        "lm_head.base_layer.weight",  # not a target
    ],
)
def test_a_tensor_that_nobody_asked_for_is_named(extra, tmp_path):
    extra = f"base_model.model.{extra}"
    tensors = tensors_for(("q", "down")) | {extra: np.zeros((RANK, 64), np.float32)}
    write_peft(tmp_path, fields_for(("q", "down")), tensors)
    assert refusal(tmp_path) == (
        f"{tmp_path / WEIGHTS}: tensor '{extra}' there, which {CONFIG} does not ask for; an adapter with parts "
        f"that are not known would be another function; nothing was loaded"
    )


def test_a_tensor_under_two_names_is_refused(tmp_path):
    tensors = tensors_for(("q", "down"))
    name = "model.layers.0.self_attn.q_proj.lora_A.weight"
    write_peft(tmp_path, fields_for(("q", "down")), tensors | {name: tensors[f"base_model.model.{name}"] + 1})
    assert "is there under two names" in refusal(tmp_path)


@pytest.mark.parametrize("shape", [(RANK + 1, 64), (RANK,), (64, RANK)])
def test_a_rank_that_is_not_that_of_the_fields_is_told(shape, tmp_path):
    tensors, name = (
        tensors_for(("q", "down")),
        "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight",
    )
    tensors[name] = np.zeros(shape, np.float32)
    write_peft(tmp_path, fields_for(("q", "down")), tensors)
    assert refusal(tmp_path) == (
        f"{tmp_path / WEIGHTS}: tensor '{name}' has shape {list(shape)}, which is none of r={RANK} in {CONFIG}; "
        f"files of one adapter belong together; save it again; nothing was loaded"
    )


def test_a_type_that_is_no_float_of_16_or_32_bits_is_named(tmp_path):
    tensors = tensors_for(("q", "down"))
    name = next(iter(tensors))
    tensors[name] = tensors[name].astype(np.float64)
    write_peft(tmp_path, fields_for(("q", "down")), tensors)
    assert f"tensor '{name}' has type F64; F32, F16, BF16 are allowed" in refusal(tmp_path)


# ── another base ──────────────────────────────────────────────────────────────────────────────────────────


def other_base(folder: Path, adapter: Path, **fields: Any) -> str:
    base = open_model(str(write_folder(folder, LLAMA | fields)))
    with pytest.raises(CheckpointError) as caught:
        check_base(open_adapter(str(adapter)), base)
    assert "\n" not in str(caught.value)
    return str(caught.value)


OTHER = (
    "; the adapter is of another base; it was trained with 'owner/base'; give it its own; nothing was loaded"
)


@pytest.mark.parametrize(
    ("targets", "fields", "told"),
    [
        (("q",), {"hidden_size": 32}, "q_proj.lora_A.weight' has shape [8, 64], the model asks for [8, 32]"),
        (
            ("q",),
            {"num_attention_heads": 4},
            "q_proj.lora_B.weight' has shape [128, 8], the model asks for [64, 8]",
        ),
        (("q",), {"num_hidden_layers": 4}, "has adapters of 3 layers, the model has 4"),
        (("q",), {"num_hidden_layers": 2}, "has adapters of 3 layers, the model has 2"),
        (
            ("embed",),
            {"vocab_size": 310},
            "embed_tokens.lora_embedding_A' has shape [8, 300], the model asks for [8, 310]",
        ),
    ],
)
def test_an_adapter_of_another_base_is_refused_with_both_sizes(targets, fields, told, tmp_path):
    adapter = write_peft(tmp_path / "adapter", fields_for(targets), tensors_for(targets))
    line = other_base(tmp_path / "base", adapter, **fields)
    assert line.endswith(f"{told}{OTHER}")


def test_an_adapter_of_a_larger_vocabulary_is_refused_where_it_is_loaded(tmp_path):
    targets = ("head",)
    public = open_adapter(str(write_peft(tmp_path / "in", fields_for(targets), tensors_for(targets))))
    model = model_for(tmp_path / "base", public.lora)
    model = model.clone(config=replace(model.config, vocab_size=256))
    with pytest.raises(CheckpointError, match=r"has shape \[300, 8\], the model asks for \[256, 8\]"):
        load_adapter(public, model, mesh_of())


def test_a_rank_larger_than_the_matrix_is_told_with_its_size(tmp_path):
    rank, rng = 33, np.random.default_rng(0)
    tensors = {
        name: rng.standard_normal([rank if size == RANK else size for size in array.shape], np.float32)
        for name, array in tensors_for(("q", "v")).items()
    }
    adapter = write_peft(tmp_path / "adapter", fields_for(("q", "v"), r=rank), tensors)
    assert other_base(tmp_path / "base", adapter) == (
        f"{adapter / CONFIG}: r=33 is larger than the matrix of target 'v' [32, 64]; 32 at most is allowed; lower "
        f"the rank; nothing was loaded"
    )


@pytest.mark.parametrize("fields", [LLAMA, QWEN3], ids=["untied", "tied"])
def test_copies_of_the_base_must_be_those_of_the_base(fields, tmp_path):
    """peft writes embedding and head beside their adapters, and reads them over those of the base."""
    base_tensors, targets = draw(fields), ("embed", "head")
    base = open_model(str(write_folder(tmp_path / "base", fields, base_tensors)))
    head = base_tensors.get("lm_head.weight", base_tensors["model.embed_tokens.weight"]).copy()
    copies = {
        "base_model.model.model.embed_tokens.base_layer.weight": base_tensors["model.embed_tokens.weight"],
        "base_model.model.lm_head.base_layer.weight": head.astype(DTYPES["bfloat16"]),  # as it was trained
    }
    tensors = tensors_for(targets) | copies
    adapter = write_peft(tmp_path / "in", fields_for(targets), tensors)
    check_base(open_adapter(str(adapter)), base)
    copies["base_model.model.lm_head.base_layer.weight"][ROWS - 1, 0] += 1
    adapter = write_peft(tmp_path / "in", fields_for(targets), tensors_for(targets) | copies)
    with pytest.raises(CheckpointError) as caught:
        check_base(open_adapter(str(adapter)), base)
    assert str(caught.value) == (
        f"{adapter / WEIGHTS}: its copy of 'lm_head.weight' is not that of {tmp_path / 'base'}{OTHER}"
    )


def test_what_is_written_is_what_safetensors_reads(tmp_path):
    """Without rows of padding, in float32, with the names of modules as targets."""
    tensors = tensors_for(("o", "embed"))
    public = open_adapter(str(write_peft(tmp_path / "in", fields_for(("o", "embed")), tensors)))
    model, mesh = model_for(tmp_path / "base", public.lora), mesh_of()
    write_adapter(
        tmp_path, load_adapter(public, model, mesh), model.config, vocab_rows=ROWS, base_model="", mesh=mesh
    )
    fields = json.loads((tmp_path / CONFIG).read_text())
    assert (fields["target_modules"], fields["lora_alpha"]) == (["o_proj", "embed_tokens"], 4)
    assert fields["base_model_name_or_path"] is None
    assert load_file(tmp_path / WEIGHTS).keys() == tensors.keys()
