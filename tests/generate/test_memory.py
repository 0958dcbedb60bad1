"""Memory of decoding: the weights are there once beside the caller's, whatever the loop over tokens does."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxlingua.config import ShardingConfig
from jaxlingua.generate import beams
from jaxlingua.generate.programs import programs
from jaxlingua.generate.sampling import Sampling
from jaxlingua.model.llama import Llama
from jaxlingua.sharding.mesh import make_mesh
from jaxlingua.sharding.rules import MeshFunction, abstract_sharded_params, batch_sharding
from tests.generate.reversing import CONFIG, EOS, PAD, VOCAB

WIDE = replace(CONFIG, embed=128, heads=4, kv_heads=4, head_dim=32, mlp=1024, layers=8)  # 3.7 million weights


def mesh_of(**sizes: int) -> jax.sharding.Mesh:
    config = ShardingConfig.model_validate({"mesh": {"data": 1, "fsdp": 1, "tensor": 1} | sizes})
    return make_mesh(config, jax.devices()[: int(np.prod(list(sizes.values())))])


def abstract_weights(program: MeshFunction, params: Any) -> Any:
    """What `program` makes of the parameters, as shapes that know where they lie."""
    compiled = program.lower(params).compile()

    def placed(shape: Any, sharding: Any) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(shape.shape, shape.dtype, sharding=sharding)

    return jax.tree.map(placed, compiled.out_info, compiled.output_shardings)


def bytes_of(tree: Any) -> int:
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


def greedy(model: Llama, mesh: jax.sharding.Mesh, params: Any, weights: Any) -> Any:
    used = programs(model, mesh, VOCAB, (EOS,), Sampling(0.0, 0, 1.0))
    state, stopped = used.start(4, 32, (0, 0)), np.zeros(4, bool)
    return used.decode.lower(weights, state, np.uint32(0), stopped, np.int32(4), np.int32(64))


def with_beams(model: Llama, mesh: jax.sharding.Mesh, params: Any, weights: Any) -> Any:
    run = beams._searcher(model, mesh, beams.Search(2, 8, (EOS,), VOCAB, PAD))
    rows = (
        jax.ShapeDtypeStruct(shape, jnp.int32, sharding=batch_sharding(mesh))
        for shape in ((4, 8), (4,), (4,))
    )
    return run.lower(params, weights, *rows, np.ones(8, np.float32))


@pytest.mark.parametrize("lowered", [greedy, with_beams])
@pytest.mark.parametrize(("sizes", "share"), [({"data": 1}, 0.25), ({"data": 4}, 0.25), ({"fsdp": 4}, 1.3)])
def test_decoding_holds_no_second_copy_of_the_weights(lowered: Callable, sizes: dict, share: float):
    """Of stacked weights the slices were moved out of the loop over tokens: all parameters once more per device.

    With fsdp every device needs all weights for its rows at every token. The compiler gathers them before
    the loop, so there they are whole on every device for as long as a program runs; no more than that.
    """
    model, mesh = Llama(WIDE), mesh_of(**sizes)
    params = abstract_sharded_params(model, mesh)
    weights = abstract_weights(programs(model, mesh, VOCAB, (EOS,), Sampling(0.0, 0, 1.0)).weights, params)
    assert bytes_of(weights) == bytes_of(params)
    memory = lowered(model, mesh, params, weights).compile().memory_analysis()
    assert memory.temp_size_in_bytes < share * bytes_of(params)


def test_weights_are_cast_once_and_lie_where_the_parameters_do():
    model, mesh = Llama(replace(WIDE, compute_dtype="bfloat16")), mesh_of(fsdp=4)
    params = abstract_sharded_params(model, mesh)
    weights = abstract_weights(programs(model, mesh, VOCAB, (EOS,), Sampling(0.0, 0, 1.0)).weights, params)
    assert len(weights["layers"]) == 8
    for layer in weights["layers"]:
        for name, leaf in layer["mlp"].items():
            stacked = params["layers"]["mlp"][name]
            assert leaf.shape == stacked.shape[1:]
            assert leaf.sharding.shard_shape(leaf.shape) == stacked.sharding.shard_shape(stacked.shape)[1:]
            assert leaf.dtype == jnp.bfloat16
        assert layer["mlp_norm"]["scale"].dtype == jnp.float32
