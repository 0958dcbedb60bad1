"""Cycles of attention kernels from their block sizes; of Pallas kernels the schedule says nothing."""

import math
import re
from dataclasses import dataclass

from jaxlingua.plan.hlo import Array, Instruction, Schedule, arrays
from jaxlingua.sharding.chips import CHIPS, Chip

# The forward share is from a static schedule of the splash kernel (v5e, blocks of 512 x 512, head_dim 128):
# 1,206 instruction words for a block whose matrix products need 1,024. The backward share is a guess on the
# safe side. Some 300 cycles of pipelining per block and 610 per row of blocks were read by eye from the same
# schedule. So trust which of two block sizes is faster, not by how much.
_FORWARD_SHARE, _BACKWARD_SHARE = 0.80, 0.75
_CYCLES_PER_BLOCK, _CYCLES_PER_BLOCK_ROW = 300, 610
# What matrix units of 256 x 256 gain over those of 128 x 128; head_dim 128 fills a half of them at best.
# In static schedules of blocks of 1,024 x 1,024 (libtpu 0.0.51) a forward block is 4,633 instruction words on
# v5e and 3,808 on v6e, a fused backward one 9,247 and 5,983.
_FORWARD_GAIN, _BACKWARD_GAIN = 4633 / 3808, 9247 / 5983
_DEFAULT_BLOCK = 512
_LANES = 128


@dataclass(frozen=True)
class AttentionShape:
    """What one call of an attention kernel does: causal attention, in blocks of which half are skipped.

    Args:
        heads: query heads times rows of the batch.
        products: matrix products per block: 2 forward, 5 backward, or 3 for dq and 4 for dk and dv apart.
    """

    heads: int
    tokens: int
    head_dim: int
    block_q: int
    block_kv: int
    products: int

    @property
    def blocks(self) -> int:
        return (self.tokens // self.block_q) * (self.tokens // self.block_kv)

    @property
    def active_blocks(self) -> int:
        """Those that hold a key no later than a query."""
        across = self.tokens // self.block_kv
        rows = range(1, self.tokens // self.block_q + 1)
        return sum(min(math.ceil(row * self.block_q / self.block_kv), across) for row in rows)

    def describe(self) -> str:
        return (
            f"{self.heads} heads x {self.tokens} tokens x {self.head_dim}, blocks {self.block_q} x "
            f"{self.block_kv}, {self.active_blocks} of {self.blocks} active, {self.products} products"
        )


def attention_shape(kernel: Instruction, *, fused_backward: bool) -> AttentionShape | None:
    """What an attention kernel does; None for any other kernel.

    Args:
        fused_backward: dq comes from the kernel of dk and dv.
    """
    path = f"{kernel.name} {kernel.op_name}"
    if not re.search(r"splash|flash_attention|flash_mha|ragged_paged", path):
        return None
    suffix, products = "", 2
    if "dkv" in path:
        suffix, products = "_dkv", 5 if fused_backward else 4
    elif "dq" in path:
        suffix, products = "_dq", 3
    blocks = dict(re.findall(r'\\"(block_\w+)\\": (\d+)', kernel.attributes))
    told = blocks.get(f"block_q{suffix}")
    queries = _queries(kernel, int(told) if told else None)
    if queries is None:
        return None
    *leading, tokens, head_dim = queries.sizes
    return AttentionShape(
        heads=math.prod(leading),
        tokens=tokens,
        head_dim=head_dim,
        block_q=min(int(told or _DEFAULT_BLOCK), tokens),
        block_kv=min(int(blocks.get(f"block_kv{suffix}", _DEFAULT_BLOCK)), tokens),
        products=products,
    )


def has_dq_kernel(schedule: Schedule) -> bool:
    """Whether a kernel of its own gives the gradient of the queries."""
    instructions = (each for found in schedule.computations.values() for each in found.instructions)
    return any(re.search("splash_m[hq]a_dq", f"{each.name} {each.op_name}") for each in instructions)


def attention_cycles(shape: AttentionShape, chip: Chip) -> float:
    """Cycles of one call: the products at a share of the peak, and what blocks cost beside them.

    A head_dim that is no multiple of 128 leaves lanes empty, and takes as long as the next one that is.
    """
    forward = shape.products == 2
    lanes = math.ceil(shape.head_dim / _LANES) * _LANES
    block = 2 * shape.block_q * shape.block_kv * lanes * shape.products
    per_cycle = chip.flops_per_cycle * (_FORWARD_SHARE if forward else _BACKWARD_SHARE)
    if chip.name == "v6e":
        gain = _FORWARD_GAIN if forward else _BACKWARD_GAIN
        per_cycle *= gain * CHIPS["v5e"].flops_per_cycle / chip.flops_per_cycle
    rows = shape.tokens // shape.block_q
    beside = shape.blocks * _CYCLES_PER_BLOCK + rows * _CYCLES_PER_BLOCK_ROW
    return shape.heads * (shape.active_blocks * block / per_cycle + beside)


def _queries(kernel: Instruction, block: int | None) -> Array | None:
    """The operand that holds the queries: the first with heads, tokens and a head_dim.

    Args:
        block: queries of a block where that is told. Tokens are a multiple of it, which tells the queries
            from the statistics of the softmax, [heads 8 tokens], whatever head_dim is.
    """
    found = re.search(
        r"operand_layout_constraints=\{(.*?)\}, frontend|operand_layout_constraints=\{(.*)", kernel.attributes
    )
    text = (found.group(1) or found.group(2) or "") if found else ""
    for array in arrays(text[:3000]):
        if len(array.sizes) >= 3 and array.dtype in ("bf16", "f32"):
            tokens = array.sizes[-2]
            if tokens % (block or min(_DEFAULT_BLOCK, tokens)) == 0:
                return array
    return None
