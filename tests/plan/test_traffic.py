"""Bytes between a chip and its HBM, by hand."""

from jaxlingua.plan.hlo import parse
from jaxlingua.plan.traffic import bytes_moved, matmul_flops
from tests.plan.schedules import schedule_text

LAYERS = "f32[32,1024]{1,0:T(8,128)}"  # 4,096 bytes per layer
LAYER = "f32[1,1024]{1,0:T(8,128)}"
INDEX = "%index = s32[]{:T(128)} constant(3)"


def moved(instruction: str, *before: str, **computations: tuple[str, ...]) -> float:
    """Bytes that the last instruction of a program moves."""
    schedule = parse(schedule_text(*before, instruction, **computations))
    within = schedule.computations["main"]
    return bytes_moved(within.instructions[-1], within, schedule)


def test_an_operation_reads_its_operands_and_writes_its_result():
    operands = (f"%a = {LAYER} parameter(0)", f"%b = {LAYER} parameter(1)")
    assert moved(f"%sum = {LAYER} add(%a, %b)", *operands) == 3 * 4096
    in_vmem = LAYER.replace(")}", ")S(1)}")
    assert moved(f"%sum = {in_vmem} add(%a, %b)", *operands) == 2 * 4096


def test_slicing_moves_the_slice_and_not_what_it_is_cut_from():
    operands = (f"%all = {LAYERS} parameter(0)", f"%one = {LAYER} parameter(1)", INDEX)
    assert moved(f"%cut = {LAYER} dynamic-slice(%all, %index)", *operands) == 2 * 4096
    assert moved(f"%put = {LAYERS} dynamic-update-slice(%all, %one, %index)", *operands) == 2 * 4096


def test_a_fusion_that_slices_an_operand_reads_the_slice():
    """The weights of all layers are an operand in the loop over layers; one layer is read per trip."""
    called = (
        f"%weights = {LAYERS} parameter(0)",
        "%at = s32[]{:T(128)} parameter(1)",
        f"%layer = {LAYER} dynamic-slice(%weights, %at)",
        f"%twice = {LAYER} add(%layer, %layer)",
    )
    operands = (f"%all = {LAYERS} parameter(0)", INDEX)
    assert (
        moved(f"%f = {LAYER} fusion(%all, %index), calls=%called", *operands, called=called) == 2 * 4096 + 4
    )


def test_a_fusion_that_slices_within_a_fusion_reads_the_slice_as_well():
    inner = (
        f"%weights = {LAYERS} parameter(0)",
        "%at = s32[]{:T(128)} parameter(1)",
        f"%layer = {LAYER} dynamic-slice(%weights, %at)",
    )
    called = (
        f"%weights = {LAYERS} parameter(0)",
        "%at = s32[]{:T(128)} parameter(1)",
        f"%layer = {LAYER} fusion(%weights, %at), calls=%inner",
    )
    operands = (f"%all = {LAYERS} parameter(0)", INDEX)
    fusion = f"%f = {LAYER} fusion(%all, %index), calls=%called"
    assert moved(fusion, *operands, called=called, inner=inner) == 2 * 4096 + 4


def test_a_fusion_that_slices_what_another_lays_out_anew_in_place_reads_the_slice():
    """So codes of four bits are read."""
    anew = (f"%weights = {LAYERS} parameter(0)", f"%copied = {LAYERS} copy(%weights)")
    called = (
        f"%weights = {LAYERS} parameter(0)",
        "%at = s32[]{:T(128)} parameter(1)",
        f"%renamed = {LAYERS} fusion(%weights), calls=%anew, output_to_operand_aliasing={{{{}}: (0, {{}})}}",
        f"%layer = {LAYER} dynamic-slice(%renamed, %at)",
    )
    operands = (f"%all = {LAYERS} parameter(0)", INDEX)
    fusion = f"%f = {LAYER} fusion(%all, %index), calls=%called"
    assert moved(fusion, *operands, called=called, anew=anew) == 2 * 4096 + 4
    whole = (*called[:2], called[2].partition(", output")[0], called[3])
    assert moved(fusion, *operands, called=whole, anew=anew) == 33 * 4096 + 4


def test_a_fusion_that_reads_an_operand_whole_beside_its_slice_reads_it_whole():
    called = (
        f"%weights = {LAYERS} parameter(0)",
        "%at = s32[]{:T(128)} parameter(1)",
        f"%layer = {LAYER} dynamic-slice(%weights, %at)",
        "%sum = f32[1024]{0:T(1024)} reduce(%weights, %layer)",
    )
    operands = (f"%all = {LAYERS} parameter(0)", INDEX)
    fusion = "%f = f32[1024]{0:T(1024)} fusion(%all, %index), calls=%called"
    assert moved(fusion, *operands, called=called) == 32 * 4096 + 4 + 4096


UPDATE = (
    f"%kept = {LAYERS} parameter(0)",
    f"%new = {LAYER} parameter(1)",
    "%at = s32[]{:T(128)} parameter(2)",
    f"%half = {LAYER} multiply(%new, %new)",
    f"%put = {LAYERS} dynamic-update-slice(%kept, %half, %at)",
)
UPDATED = (f"%all = {LAYERS} parameter(0)", f"%one = {LAYER} parameter(1)", INDEX)


def test_a_fusion_that_updates_an_operand_in_place_writes_the_update():
    """What the forward pass keeps of each layer is written into one array of all layers."""
    fusion = f"%f = {LAYERS} fusion(%all, %one, %index), calls=%called"
    assert moved(fusion, *UPDATED, called=UPDATE) == 2 * 4096 + 4
    renamed = (*UPDATE, f"%same = {LAYERS} bitcast(%put)")
    assert moved(fusion, *UPDATED, called=renamed) == 2 * 4096 + 4


def test_a_fusion_with_several_results_writes_each_that_it_made():
    called = (*UPDATE, f"%results = ({LAYERS}, {LAYER}, {LAYER}) tuple(%put, %half, %new)")
    fusion = f"%f = ({LAYERS}, {LAYER}, {LAYER}) fusion(%all, %one, %index), calls=%called"
    assert moved(fusion, *UPDATED, called=called) == 3 * 4096 + 4, (
        "read one; written: the update and its half"
    )


def flops(*called: str, **computations: tuple[str, ...]) -> int:
    text = schedule_text("%f = bf16[64,256]{1,0} fusion(%p), calls=%called", called=called, **computations)
    schedule = parse(text)
    within = schedule.computations["main"]
    return matmul_flops(within.instructions[0], within, schedule)


A, B = "%a = bf16[64,128]{1,0} parameter(0)", "%b = bf16[128,256]{1,0} parameter(1)"


def test_a_product_of_64_by_128_and_128_by_256_takes_two_operations_per_pair():
    product = "%product = bf16[64,256]{1,0} convolution(%a, %b), dim_labels=bf_io->bf"
    assert flops(A, B, product) == 2 * 64 * 128 * 256
    assert (
        flops("%g = bf16[64,256]{1,0} fusion(%p), calls=%inner", inner=(A, B, product)) == 2 * 64 * 128 * 256
    )


def test_a_window_that_is_padded_adds_no_products():
    """The compiler writes a batch of products as a window that moves over padding."""
    tall = "%b = bf16[4,128,256]{2,1,0} parameter(1)"
    product = "%product = bf16[64,256]{1,0} convolution(%a, %b), window={size=4 %s}, dim_labels=0bf_0io->0bf"
    assert flops(A, tall, product.replace("%s", "stride=1")) == 4 * 2 * 64 * 128 * 256
    assert flops(A, tall, product.replace("%s", "pad=3_3")) == 2 * 64 * 128 * 256
