"""The name of a model by its weights."""

import jax
import jax.numpy as jnp
import numpy as np

from jaxlingua.config import ShardingConfig
from jaxlingua.eval.fingerprint import fingerprint_of
from jaxlingua.model.llama import Llama
from jaxlingua.sharding.mesh import make_mesh
from jaxlingua.sharding.rules import init_params
from tests.generate.reversing import CONFIG


def params_on(**mesh):
    devices = jax.devices()[: 8 if mesh else 1]
    return init_params(
        Llama(CONFIG), jax.random.key(7), make_mesh(ShardingConfig.model_validate({"mesh": mesh}), devices)
    )


def test_a_model_has_one_fingerprint_on_every_mesh():
    one = params_on()
    named = fingerprint_of(one)
    for mesh in ({"data": 2, "fsdp": 2, "tensor": 2}, {"fsdp": 8}):
        spread = params_on(**mesh)
        same = jax.tree.map(lambda array, like: jax.device_put(np.asarray(array), like.sharding), one, spread)
        assert fingerprint_of(same) == named


def test_any_change_of_a_weight_is_another_fingerprint():
    weight = np.linspace(-1, 1, 24, dtype=np.float32).reshape(2, 3, 4)
    named = fingerprint_of({"a": weight})
    seen = {named}
    for place in np.ndindex(weight.shape):
        changed = weight.copy()
        changed[place] = np.nextafter(changed[place], np.float32(2))
        seen.add(fingerprint_of({"a": changed}))
    swapped = weight.copy()
    swapped[0, 0, 0], swapped[1, 2, 3] = weight[1, 2, 3], weight[0, 0, 0]
    seen.add(fingerprint_of({"a": swapped}))
    seen.add(fingerprint_of({"a": weight.reshape(3, 2, 4)}))
    seen.add(fingerprint_of({"b": weight}))
    seen.add(fingerprint_of({"a": weight.astype(jnp.bfloat16)}))
    assert len(seen) == weight.size + 5


def test_the_fingerprint_is_that_of_plain_arithmetic():
    """Against numpy: hashes of bits and place, summed modulo 2^32."""
    from jaxlingua.eval import fingerprint

    weight = np.random.default_rng(1).standard_normal((5, 7)).astype(np.float32)
    place = np.arange(35, dtype=np.uint64)

    def mixed(x):
        x = ((x ^ (x >> 16)) * 0x7FEB352D) % 2**32
        x = ((x ^ (x >> 15)) * 0x846CA68B) % 2**32
        return x ^ (x >> 16)

    bits = weight.view(np.uint32).ravel().astype(np.uint64)
    wanted = [int(mixed(bits ^ mixed((place + start) % 2**32)).sum() % 2**32) for start in (1, 0x9E3779B9)]
    assert np.asarray(fingerprint._sums(weight)).tolist() == wanted
