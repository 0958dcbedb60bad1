"""Attention kernels, by hand, and what is not one."""

import re

import pytest

from jaxlingua.plan.hlo import Instruction, parse
from jaxlingua.plan.kernels import attention_cycles, attention_shape, has_dq_kernel
from jaxlingua.sharding.chips import CHIPS
from tests.plan.schedules import schedule_text

BLOCKS = '\\"block_q\\": 1024, \\"block_kv\\": 512, \\"block_q_dkv\\": 512, \\"block_kv_dkv\\": 1024'


def kernel(name: str, queries: str = "bf16[2,8,2048,128]{3,2,1,0}", blocks: str = BLOCKS) -> Instruction:
    """A Pallas kernel that takes segment ids, queries, keys and values."""
    text = schedule_text(
        f'%{name} = {queries} custom-call(%s, %q, %k, %v), custom_call_target="tpu_custom_call", '
        f"operand_layout_constraints={{s32[2,2048]{{1,0}}, {queries}, {queries}, {queries}}}, "
        f'frontend_attributes={{kernel_metadata={{\n"xprof_metadata":"{{{blocks}}}"\n}}}}, '
        f'metadata={{op_name="jit(step)/{name}/pallas_call"}}'
    )
    return parse(text).instructions("main")[0]


def test_blocks_and_queries_are_read_from_the_kernel():
    shape = attention_shape(kernel("splash_mha_fwd.1"), fused_backward=True)
    assert (shape.heads, shape.tokens, shape.head_dim) == (16, 2048, 128)
    assert (shape.block_q, shape.block_kv, shape.products) == (1024, 512, 2)
    shape = attention_shape(kernel("splash_mha_dkv.1"), fused_backward=True)
    assert (shape.block_q, shape.block_kv, shape.products) == (512, 1024, 5)
    assert attention_shape(kernel("splash_mha_dkv.1"), fused_backward=False).products == 4
    assert attention_shape(kernel("splash_mha_dq.1"), fused_backward=False).products == 3


def test_blocks_are_512_where_none_are_told_and_never_longer_than_the_row():
    shape = attention_shape(kernel("splash_mha_dq.1"), fused_backward=False)
    assert (shape.block_q, shape.block_kv) == (512, 512)
    short = kernel("splash_mha_fwd.1", queries="bf16[2,8,256,128]{3,2,1,0}", blocks="")
    shape = attention_shape(short, fused_backward=False)
    assert (shape.block_q, shape.block_kv) == (256, 256)


def test_blocks_that_lie_wholly_after_the_queries_are_skipped():
    """Rows of 1,024 queries see 2 and 4 blocks of 512 keys."""
    shape = attention_shape(kernel("splash_mha_fwd.1"), fused_backward=True)
    assert (shape.active_blocks, shape.blocks) == (6, 8)
    shape = attention_shape(kernel("splash_mha_dkv.1"), fused_backward=True)
    assert (shape.active_blocks, shape.blocks) == (1 + 1 + 2 + 2, 8)


def test_cycles_are_products_at_a_share_of_the_peak_and_what_blocks_cost():
    shape = attention_shape(kernel("splash_mha_fwd.1"), fused_backward=True)
    products = 6 * 2 * (2 * 1024 * 512 * 128)
    assert attention_cycles(shape, CHIPS["v5e"]) == pytest.approx(
        16 * (products / (4 * 128 * 128 * 2) / 0.80 + 8 * 300 + 2 * 610)
    )
    shape = attention_shape(kernel("splash_mha_dkv.1"), fused_backward=True)
    products = 6 * 5 * (2 * 512 * 1024 * 128)
    assert attention_cycles(shape, CHIPS["v5e"]) == pytest.approx(
        16 * (products / (4 * 128 * 128 * 2) / 0.75 + 8 * 300 + 4 * 610)
    )


@pytest.mark.parametrize(
    ("name", "words"), [("splash_mha_fwd.1", (4633, 3808)), ("splash_mha_dkv.1", (9247, 5983))]
)
def test_wider_matrix_units_gain_what_static_schedules_of_a_block_say(name, words):
    """They are four times as large, and head_dim 128 fills no more than half of them."""
    large = kernel(name, blocks=BLOCKS.replace("512", "1024"))
    shape = attention_shape(large, fused_backward=True)
    beside = shape.heads * (shape.blocks * 300 + 2 * 610)
    v5e, v6e = (attention_cycles(shape, CHIPS[chip]) - beside for chip in ("v5e", "v6e"))
    assert v5e / v6e == pytest.approx(words[0] / words[1])


def test_a_head_dim_of_64_takes_as_long_as_one_of_128():
    half = kernel("splash_mha_fwd.1", queries="bf16[2,8,2048,64]{3,2,1,0}")
    narrow = attention_shape(half, fused_backward=True)
    wide = attention_shape(kernel("splash_mha_fwd.1"), fused_backward=True)
    assert attention_cycles(narrow, CHIPS["v5e"]) == pytest.approx(attention_cycles(wide, CHIPS["v5e"]))


@pytest.mark.parametrize("head_dim", [32, 80, 100, 128, 160])
def test_the_queries_are_found_whatever_their_head_dim_is(head_dim: int):
    """As the compiler writes a fused backward kernel: statistics of [heads 8 tokens] follow them."""
    wanted = f"bf16[8,4,256,{head_dim}]{{3,2,1,0}}"
    statistics = "f32[8,4,8,256]{3,2,1,0}"
    blocks = '\\"block_q_dkv\\": 256, \\"block_kv_dkv\\": 256'
    for operands in (f"{wanted}, {statistics}", f"{statistics}, {wanted}"):
        found = attention_shape(
            kernel("splash_mha_dkv.1", queries=operands, blocks=blocks), fused_backward=True
        )
        assert (found.heads, found.tokens, found.head_dim) == (32, 256, head_dim)
        assert (found.block_q, found.block_kv) == (256, 256)
    only = kernel("splash_mha_dkv.1", queries=statistics, blocks=blocks)
    assert attention_shape(only, fused_backward=True) is None


def test_a_head_dim_takes_as_long_as_the_next_multiple_of_128():
    def cycles(head_dim: int) -> float:
        wide = kernel("splash_mha_fwd.1", queries=f"bf16[2,8,2048,{head_dim}]{{3,2,1,0}}")
        return attention_cycles(attention_shape(wide, fused_backward=True), CHIPS["v5e"])

    assert cycles(32) == cycles(80) == cycles(100) == cycles(128)
    assert cycles(160) == cycles(256) > cycles(128)


def test_a_kernel_of_which_nothing_is_known_is_no_attention():
    assert attention_shape(kernel("ragged_dot.1"), fused_backward=True) is None
    flat = kernel("splash_mha_fwd.1", queries="s32[2048]{0}")
    assert attention_shape(flat, fused_backward=True) is None


def test_the_backward_pass_is_fused_where_no_kernel_gives_dq_alone():
    line = '%splash_mqa_dq.3 = f32[4]{0} custom-call(%p), custom_call_target="tpu_custom_call"'
    assert has_dq_kernel(parse(schedule_text(line)))
    assert not has_dq_kernel(parse(schedule_text(re.sub("dq", "dkv", line))))
