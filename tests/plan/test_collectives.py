"""What a collective sends over the links, and how long that takes, by hand."""

import pytest

from jaxlingua.plan.collectives import group_size, spanned_axes, transfer
from jaxlingua.plan.hlo import Instruction, parse
from jaxlingua.sharding.chips import CHIPS
from tests.plan.schedules import GROUP_64, schedule_text

V5E = CHIPS["v5e"]  # 45 GB/s per link; an axis is a ring from 16 chips on
MIB = 2**20


def collective(
    opcode: str, shape: str = "bf16[1024,1024]{1,0:T(8,128)(2,1)}", groups: str = GROUP_64
) -> Instruction:
    (instruction,) = parse(schedule_text(f"%it = {shape} {opcode}(%p), channel_id=1, {groups}")).instructions(
        "main"
    )
    return instruction


@pytest.mark.parametrize(
    ("groups", "size"),
    [
        ("replica_groups=mesh['axis_0'=64] {'axis_0'}", 64),
        ("replica_groups=mesh['axis_0'=4,'axis_1'=16] {'axis_1'}", 16),
        ("replica_groups=mesh['axis_0'=4,'axis_1'=2,'axis_2'=8] {'axis_0','axis_2'}", 32),
        ("replica_groups=[8,4]<=[32]", 4),
        ("replica_groups={{0,1,2},{3,4,5}}", 3),
        ("dimensions={0}", 64),
    ],
)
def test_the_group_is_read_in_each_notation_and_is_everybody_without_one(groups, size):
    assert group_size(collective("all-gather", groups=groups), chips=64) == size


@pytest.mark.parametrize(
    ("opcode", "links_mib"),
    [
        ("all-gather", 2 * 63 / 64),  # everything but what it has
        ("all-reduce", 2 * 2 * 63 / 64),  # scattered sums, then gathered
        ("reduce-scatter", 2 * 63),  # the result is one part of 64
        ("all-to-all", 2 * 63 / 64 / 2),
    ],
)
def test_seconds_are_bytes_over_the_links_of_the_axes_that_are_spanned(opcode, links_mib):
    """2 MiB over 8 x 8 chips without rings: one link per axis, two axes."""
    moved = transfer(collective(opcode), V5E, (8, 8), scattered=False)
    assert (moved.kind, moved.group, moved.bytes) == (opcode, 64, 2 * MIB)
    assert moved.seconds == pytest.approx(links_mib * MIB / 90e9)


def test_a_permutation_goes_over_one_link():
    moved = transfer(collective("collective-permute"), V5E, (8, 8), scattered=False)
    assert moved.seconds == pytest.approx(2 * MIB / 45e9)


def test_a_collective_begun_apart_counts_its_result_and_not_its_operand():
    shape = "(bf16[16,1024]{1,0}, bf16[1024,1024]{1,0}, u32[]{:S(2)}, u32[]{:S(2)})"
    moved = transfer(collective("all-gather-start", shape), V5E, (8, 8), scattered=False)
    assert (moved.kind, moved.bytes) == ("all-gather", 2 * MIB)


def test_an_all_reduce_of_which_each_keeps_its_part_is_half_the_work():
    whole = transfer(collective("all-reduce"), V5E, (8, 8), scattered=False)
    part = transfer(collective("all-reduce"), V5E, (8, 8), scattered=True)
    assert part.kind == "reduce-scatter"
    assert part.seconds == pytest.approx(whole.seconds / 2)


def test_axes_that_close_to_rings_have_two_links():
    everybody = collective("all-gather", groups="dimensions={0}")
    flat = transfer(everybody, V5E, (16, 16), scattered=False)
    assert flat.seconds == pytest.approx(2 * MIB * 255 / 256 / (4 * 45e9))
    cube = transfer(everybody, CHIPS["v5p"], (4, 4, 4), scattered=False)
    assert cube.seconds == pytest.approx(2 * MIB * 63 / 64 / (6 * 90e9))


@pytest.mark.parametrize(
    ("group", "torus", "axes"),
    [
        (64, (8, 8), (8, 8)),
        (8, (8, 8), (8,)),
        (16, (4, 4, 8), (4, 4)),
        (8, (2, 4, 8), (8,)),  # one axis sooner than two
        (32, (8, 8), (32,)),
    ],
)
def test_a_group_spans_the_fewest_axes_whose_product_it_is(group, torus, axes):
    assert spanned_axes(group, torus) == axes
