"""The figures of a chip agree with each other and with what training takes for MFU."""

import math

import pytest

from jaxlingua.sharding.chips import CHIPS, chip_of
from jaxlingua.tracking.speed import peak_flops


@pytest.mark.parametrize("chip", CHIPS.values(), ids=str)
def test_training_counts_mfu_against_the_same_peak(chip):
    assert peak_flops(chip.device_kind) == chip.peak_tflops * 1e12


@pytest.mark.parametrize("chip", CHIPS.values(), ids=str)
def test_clock_times_flops_per_cycle_is_the_published_peak(chip):
    assert math.isclose(chip.clock_ghz * chip.flops_per_cycle / 1e3, chip.peak_tflops, rel_tol=2e-3)


@pytest.mark.parametrize("name", CHIPS)
def test_a_chip_is_found_by_the_name_that_jax_gives_its_device(name):
    assert CHIPS[name].name == name
    assert chip_of(CHIPS[name].device_kind) is CHIPS[name]
    assert chip_of(f"TPU {name}") is CHIPS[name]


@pytest.mark.parametrize("device_kind", ["TPU v5 lite pod", "TPU v4 lite", "TPU v3", "cpu"])
def test_what_only_resembles_a_known_chip_is_no_known_chip(device_kind):
    """A v4 lite is another chip than a v4, with a quarter of the memory."""
    assert chip_of(device_kind) is None


def test_v5e_gives_a_program_less_than_its_sixteen_gib():
    assert CHIPS["v5e"].hbm_bytes == 15.75 * 2**30
