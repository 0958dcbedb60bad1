"""A public checkpoint as the frozen base of adapters: matrices in fewer bits, everything else as it was."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict

from jaxlingua.checkpoint.huggingface.model import load_params, open_model
from jaxlingua.model.llama import Llama
from jaxlingua.model.lora import TARGETS, Lora
from jaxlingua.model.quantized import dequantize, quantize
from jaxlingua.sharding.rules import padded_vocab_size, param_shardings
from tests.checkpoint.folders import BIASED, QWEN3, draw, write_folder
from tests.checkpoint.test_public_model import expected
from tests.train.world import mesh_of

PROJECTIONS = ("attention/q", "attention/k", "attention/v", "attention/o", "mlp/gate", "mlp/up", "mlp/down")
ROWS = BIASED["vocab_size"]
quantized = jax.jit(quantize, static_argnums=(1, 2))
numbers_of = jax.jit(dequantize, static_argnums=(2, 3))


@pytest.mark.parametrize(
    ("base", "fields", "dtype", "mesh"),
    [
        ("bfloat16", BIASED, "float32", {"fsdp": 4, "tensor": 2}),
        ("int8", BIASED, "float32", {"fsdp": 4, "tensor": 2}),
        ("nf4", BIASED, "float32", {"fsdp": 4, "tensor": 2}),
        ("int8", QWEN3, "bfloat16", {}),
        ("nf4", QWEN3, "bfloat16", {}),
    ],
    ids=["bfloat16", "int8", "nf4", "int8, tied, one device", "nf4, tied, one device"],
)
def test_a_base_in_fewer_bits_is_that_of_its_tensors_bit_by_bit(base, fields, dtype, mesh, tmp_path):
    tensors, mesh = draw(fields, dtype), mesh_of(**mesh)
    public = open_model(str(write_folder(tmp_path, fields, tensors, shards=2)))
    lora = Lora(4, 8.0, TARGETS, dora=True, base=base)
    model = Llama(replace(public.config, vocab_size=padded_vocab_size(ROWS), lora=lora))
    found = flatten_dict(load_params(public, model, mesh), sep="/")
    shardings = flatten_dict(param_shardings(model, mesh), sep="/")
    wanted = expected(fields, tensors, padded_vocab_size(ROWS))
    if base in ("int8", "nf4"):
        for path in (f"layers/{name}" for name in PROJECTIONS):
            # Along the last input: head_dim of o, which sums over heads too.
            axis = 2 if path.endswith("/o") else 1
            numbers = wanted[path]
            wanted[path], wanted[f"{path}_scale"] = quantized(jnp.asarray(numbers), base, axis)
            error = np.abs(numbers_of(wanted[path], wanted[f"{path}_scale"], jnp.float32, axis) - numbers)
            assert 0 < error.max() < {"int8": 0.03, "nf4": 0.8}[base], path  # numbers up to some 4.5
    assert found.keys() == wanted.keys()
    for path, value in wanted.items():
        in_bfloat16 = (
            path in ("embed/embedding", "head/kernel") or path.removeprefix("layers/") in PROJECTIONS
        )
        if in_bfloat16 and value.dtype == np.float32:
            value = value.astype(jnp.bfloat16)
        leaf = found[path]
        assert leaf.dtype == value.dtype, path
        assert leaf.sharding.is_equivalent_to(shardings[path], leaf.ndim), path
        if path == "head/kernel":
            leaf, value = leaf[:, :ROWS], value[:, :ROWS]  # further ones are the mean, rounded in its own way
        if path == "embed/embedding":
            assert not np.any(leaf[ROWS:])  # else they would count in DoRA's norm
            leaf, value = leaf[:ROWS], value[:ROWS]
        np.testing.assert_array_equal(jax.device_get(leaf), value, err_msg=path)
