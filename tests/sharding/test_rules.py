"""One table decides where every parameter lies, and refuses by name what it cannot split."""

import math

import jax
import pytest
from jax.sharding import PartitionSpec

from jaxlingua.config import OptimizerConfig
from jaxlingua.errors import ShardingError
from jaxlingua.model.llama import Llama
from jaxlingua.model.presets import PRESETS
from jaxlingua.sharding import rules
from jaxlingua.sharding.rules import mesh_spec, padded_vocab_size, param_shardings
from jaxlingua.train.optimizer import make_optimizer
from jaxlingua.train.state import abstract_state, initial_state
from tests.model.families import EVERY_FEATURE
from tests.train.world import flat, mesh_of, tiny_model


def named(tree):
    return {
        jax.tree_util.keystr(path, simple=True, separator="/"): leaf
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
    }


def test_every_matrix_is_split_over_all_devices_but_data_copies():
    specs = {
        name: sharding.spec
        for name, sharding in named(
            param_shardings(tiny_model(tie_embeddings=False), mesh_of(data=2, fsdp=2, tensor=2))
        ).items()
    }
    assert specs == {
        "embed/embedding": PartitionSpec("tensor", "fsdp"),
        "head/kernel": PartitionSpec("fsdp", "tensor"),
        "layers/attention/q": PartitionSpec(None, "fsdp", "tensor", None),
        "layers/attention/k": PartitionSpec(None, "fsdp", "tensor", None),
        "layers/attention/v": PartitionSpec(None, "fsdp", "tensor", None),
        "layers/attention/o": PartitionSpec(None, "tensor", None, "fsdp"),
        "layers/mlp/gate": PartitionSpec(None, "fsdp", "tensor"),
        "layers/mlp/up": PartitionSpec(None, "fsdp", "tensor"),
        "layers/mlp/down": PartitionSpec(None, "tensor", "fsdp"),
        "layers/attention_norm/scale": PartitionSpec(None, None),
        "layers/mlp_norm/scale": PartitionSpec(None, None),
        "final_norm/scale": PartitionSpec(None),
    }


def test_biases_are_split_like_the_heads_and_columns_they_belong_to():
    """Those of the residual stream and the scales of head norms lie on every device."""
    shardings = named(param_shardings(tiny_model(**EVERY_FEATURE), mesh_of(fsdp=4, tensor=2)))
    heads, columns = PartitionSpec(None, "tensor", None), PartitionSpec(None, "tensor")
    for name, spec in {
        "attention/q_bias": heads, "attention/k_bias": heads, "attention/v_bias": heads,
        "mlp/gate_bias": columns, "mlp/up_bias": columns,
        "attention/o_bias": PartitionSpec(None, None), "mlp/down_bias": PartitionSpec(None, None),
        "attention/q_norm/scale": PartitionSpec(None, None), "attention/k_norm/scale": PartitionSpec(None, None),
    }.items():  # fmt: skip
        assert shardings[f"layers/{name}"].spec == spec, name


@pytest.mark.parametrize("kind", ["adamw", "adafactor", "lion"])
def test_a_70b_state_is_split_without_being_made(kind):
    """Every large array of parameters and optimizer lies in eighths; shapes alone, in milliseconds."""
    optimizer, _ = make_optimizer(OptimizerConfig(kind=kind), 100)
    state = abstract_state(Llama(PRESETS["llama3-70b"]), optimizer, mesh_of(fsdp=4, tensor=2))
    for name, leaf in named(state).items():
        whole, own = math.prod(leaf.shape), math.prod(leaf.sharding.shard_shape(leaf.shape))
        assert own == whole // 8 or whole < 100_000_000, name


@pytest.mark.parametrize("axes", [{"fsdp": 8}, {"data": 2, "fsdp": 2, "tensor": 2}])
def test_the_state_is_created_in_its_shards_with_the_values_of_one_device(axes):
    optimizer, _ = make_optimizer(OptimizerConfig(), 100)
    state = initial_state(tiny_model(), optimizer, mesh_of(**axes), seed=0)
    embedding = state.params["embed"]["embedding"]
    copies = axes.get("data", 1)
    assert {shard.data.size for shard in embedding.addressable_shards} == {embedding.size * copies // 8}
    assert state.opt_state[1].mu["embed"]["embedding"].sharding == embedding.sharding
    alone = initial_state(tiny_model(), optimizer, mesh_of(), seed=0)
    assert (flat(state.params) == flat(alone.params)).all()
    other = initial_state(tiny_model(), optimizer, mesh_of(), seed=1)
    assert (flat(other.params) != flat(alone.params)).any()


def test_an_axis_that_cannot_be_split_is_refused_by_the_parameter_s_name():
    with pytest.raises(ShardingError) as error:
        mesh_spec("layers/attention/q", (4096, 30, 128), ("embed", "heads", "head_dim"), mesh_of(tensor=8))
    assert str(error.value) == (
        "sharding: parameter 'layers/attention/q' (4096, 30, 128), axis 'heads' = 30 cannot be split over "
        "mesh axis 'tensor' = 8; use a divisor of 30"
    )


def test_fewer_key_heads_than_tensor_devices_are_refused():
    with pytest.raises(ShardingError) as error:
        param_shardings(tiny_model(), mesh_of(tensor=4))
    assert str(error.value) == (
        "sharding: parameter 'layers/attention/k' (2, 64, 2, 16), axis 'kv_heads' = 2 cannot be split over "
        "mesh axis 'tensor' = 4; use a divisor of 2"
    )


def test_two_axes_of_one_parameter_on_one_mesh_axis_are_refused():
    with pytest.raises(ShardingError) as error:
        mesh_spec("x", (8, 8), ("heads", "mlp"), mesh_of())
    assert str(error.value) == (
        "sharding: parameter 'x' (8, 8), axes 'heads' and 'mlp' both lie on mesh axis 'tensor'; "
        "give one of them another rule"
    )


def test_an_axis_without_a_rule_is_refused(monkeypatch):
    monkeypatch.setattr(rules, "RULES", (("embed", "fsdp"), ("norm", None)))
    with pytest.raises(ShardingError) as error:
        mesh_spec("x", (8, 8), ("embed", "rank"), mesh_of())
    assert str(error.value) == (
        "sharding: parameter 'x' (8, 8), axis 'rank' has no rule; known: embed, norm; add it to RULES"
    )
    with pytest.raises(ShardingError) as error:
        mesh_spec("x", (8, 8), ("embed",), mesh_of())
    assert str(error.value) == (
        "sharding: parameter 'x' (8, 8) has logical axes ('embed',); name every one of its 2 axes"
    )


def test_vocabularies_are_padded_without_looking_at_the_mesh():
    assert [padded_vocab_size(size) for size in (1, 768, 769, 32_000, 128_256)] == [
        128, 768, 896, 32_000, 128_256,
    ]  # fmt: skip
