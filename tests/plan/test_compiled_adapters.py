"""A step with adapters that the TPU compiler scheduled: how the frozen base lies in memory."""

import json
from pathlib import Path

import pytest

from jaxlingua.command_line import check_config
from jaxlingua.plan.hlo import Instruction, Schedule, parse
from jaxlingua.plan.program import compile_step, lower_step
from jaxlingua.plan.topology import topology_of
from jaxlingua.sharding.memory import bytes_per_device
from tests.plan.conftest import TINY

LAYERS, EMBED, MLP = 6, 512, 1536
FIELDS = {
    "model_type": "llama", "vocab_size": 512, "hidden_size": EMBED, "intermediate_size": MLP,
    "num_hidden_layers": LAYERS, "num_attention_heads": 4, "num_key_value_heads": 2, "rms_norm_eps": 1e-5,
}  # fmt: skip


def made_of_all_layers(schedule: Schedule) -> list[tuple[Instruction, str]]:
    """What writes an array into HBM as large as a matrix of every layer, with the type of its numbers."""
    matrices = {LAYERS * EMBED * width for width in (EMBED, MLP)}
    hands_on = ("parameter", "tuple", "get-tuple-element", "bitcast", "while")
    return [
        (each, array.dtype)
        for computation in schedule.computations.values()
        for each in computation.instructions
        if each.opcode not in hands_on
        for array in each.arrays
        if array.in_hbm and array.elements in matrices
    ]


@pytest.mark.parametrize("base", ["nf4", pytest.param("bfloat16", marks=pytest.mark.slow)])
@pytest.mark.xdist_group("plan")
def test_the_base_lies_there_once_and_codes_become_numbers_one_layer_at_a_time(base: str, tmp_path: Path):
    (tmp_path / "config.json").write_text(json.dumps(FIELDS), "utf-8")
    model = {"init": "huggingface", "path": str(tmp_path), "lora": {"rank": 8, "base": base}}
    given = {**TINY, "model": model, "tokens": {"row_length_tokens": 128}, "generate": {"batch_rows": 8}}
    lowered = lower_step(check_config(given, "adapters.yaml"), topology_of("v5e:1x1"))
    compiled = compile_step(lowered.lowered)
    assert "splash_mha" in compiled.text
    base_bytes = bytes_per_device(lowered.state.frozen)
    trained = bytes_per_device((lowered.state.params, lowered.state.opt_state))
    others = compiled.arguments - base_bytes - trained  # the batch, and what tiles of 8 x 128 leave empty
    assert 0 <= others < 0.1 * base_bytes, (compiled.arguments, base_bytes, trained)
    # Only the fusions that slice a layer take all of them, and those write one.
    numbers = [each.name for each, dtype in made_of_all_layers(parse(compiled.text)) if dtype != "u4"]
    assert numbers == []
