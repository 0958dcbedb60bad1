"""The estimate of a step that the TPU compiler scheduled, against a script of its own."""

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

from jaxlingua.config import Config
from jaxlingua.plan.estimate import estimate
from jaxlingua.plan.program import lower_step
from jaxlingua.plan.topology import topology_of
from jaxlingua.sharding.chips import CHIPS
from tests.plan.conftest import compiler_environment

V5E = CHIPS["v5e"]


@pytest.fixture(scope="module")
def reference() -> ModuleType:
    """The script that the estimate began as, which is not part of the repository."""
    path = Path(__file__).parents[3] / "shared" / "tools" / "tpu_cost.py"
    if not path.is_file():
        pytest.skip(f"{path} is absent")
    spec = importlib.util.spec_from_file_location("tpu_cost", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def compiled(head_dim: int) -> str:
    """A small training step with splash attention, scheduled for eight v5e chips."""
    model = {"init": "scratch", "preset": "llama2-7b", "layers": 2, "embed": 256, "heads": 2, "kv_heads": 2}
    config = Config.model_validate(
        {
            "model": model | {"mlp": 512, "head_dim": head_dim, "compute_dtype": "bfloat16"},
            "data": {"sources": {"cldr": {"kind": "cldr", "languages": ["eng_Latn", "deu_Latn"]}}},
            "tokens": {"kind": "learned", "vocab_size": 512, "row_length_tokens": 1024},
            "stages": [{"name": "one", "mixture": {"cldr": {}}, "steps": 10}],
            "train": {"batch_rows": 16},
        }
    )
    with compiler_environment():
        return lower_step(config, topology_of("v5e:2x4")).lowered.compile().as_text()


@pytest.fixture(scope="module")
def compiled_text() -> str:
    """With the head_dim of most models."""
    return compiled(head_dim=128)


@pytest.mark.xdist_group("plan")
def test_the_figures_of_a_compiled_step_are_those_of_the_reference_script(reference, compiled_text):
    """Same as: tpu_cost.py, unmodified."""
    told = reference.run(compiled_text, "v5e", [2, 4])["summary"]
    found = estimate(compiled_text, V5E, (2, 4))
    assert told["matmul_s"] > 0
    assert told["kernel_s"] > 0
    assert told["exposed_s"] > 0
    for name, cal, xla in (
        ("matmul_s", found.cal.matmul_seconds, found.xla.matmul_seconds),
        ("kernel_s", found.cal.kernel_seconds, found.xla.kernel_seconds),
        ("coll_s", found.cal.collective_seconds, found.xla.collective_seconds),
        ("exposed_s", found.cal.exposed_seconds, found.xla.exposed_seconds),
    ):
        assert cal == xla == pytest.approx(told[name], rel=1e-9), name
    assert found.cal.compute_seconds == pytest.approx(told["cal_s"], rel=1e-9)
    assert found.xla.compute_seconds == pytest.approx(told["xla_s"], rel=1e-9)
    assert found.cal.seconds == pytest.approx(told["total_s"], rel=1e-9)
    assert found.xla.seconds == pytest.approx(told["total_xla_s"], rel=1e-9)


@pytest.mark.xdist_group("plan")
def test_the_reference_script_knows_no_attention_of_another_head_dim_and_the_estimate_does(
    reference, compiled_text
):
    """Lanes that head_dim 80 leaves empty cost what they do full: the script's seconds for head_dim 128."""
    text = compiled(head_dim=80)
    told = reference.run(text, "v5e", [2, 4])["summary"]
    full = reference.run(compiled_text, "v5e", [2, 4])["summary"]
    found = estimate(text, V5E, (2, 4))
    assert (told["kernel_s"], found.unknown_kernels) == (0, ())
    assert found.cal.kernel_seconds == pytest.approx(full["kernel_s"], rel=1e-9)
    assert found.cal.compute_seconds == pytest.approx(told["cal_s"], rel=1e-9)
    assert found.xla.compute_seconds == pytest.approx(told["xla_s"], rel=1e-9)
    assert found.cal.collective_seconds == pytest.approx(told["coll_s"], rel=1e-9)


@pytest.mark.xdist_group("plan")
def test_every_loop_and_kernel_of_a_compiled_step_is_known(compiled_text):
    found = estimate(compiled_text, V5E, (2, 4))
    assert found.unknown_loops == ()
    assert found.unknown_kernels == ()
    assert {each.calls for each in found.kernels} == {2, 4}, "two layers, whose forward pass is repeated"
    assert sum(each.ideal_seconds for each in found.operations) < found.cal.matmul_seconds
