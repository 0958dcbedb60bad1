"""What is read from a scheduled program's text."""

from jaxlingua.plan.hlo import arrays, parse
from tests.plan.schedules import cycles, matmul, schedule_text

PARAMETER = "%p = f32[4096,4096]{1,0:T(8,128)} parameter(0)"


def test_the_parts_of_an_instruction_are_told_apart():
    text = schedule_text(
        PARAMETER,
        "%sum.1 = (f32[8]{0:T(128)}, s32[]{:T(128)}) fusion(%p, /*index=1*/%q.2), kind=kLoop, calls=%added.3, "
        f'metadata={{op_name="jit(step)/add" stack_frame_id=1}}, {cycles(77)}',
    )
    parameter, fusion = parse(text).computations["main"].instructions
    assert (parameter.opcode, parameter.argument, parameter.operands) == ("parameter", "0", ())
    assert (fusion.name, fusion.opcode, fusion.operands) == ("sum.1", "fusion", ("p", "q.2"))
    assert fusion.named("calls") == "added.3"
    assert (fusion.cycles, fusion.op_name, fusion.is_root) == (77, "jit(step)/add", True)
    assert (parameter.cycles, parameter.op_name, parameter.is_root) == (0, "", False)
    assert [array.sizes for array in fusion.arrays] == [(8,), ()]


def test_attributes_that_go_on_over_several_lines_end_neither_instruction_nor_computation():
    """As of a splash kernel; the lines after it were lost once, half a step with them."""
    text = schedule_text(
        PARAMETER,
        '%kernel = f32[8]{0} custom-call(%p), custom_call_target="tpu_custom_call", frontend_attributes={meta={\n'
        '"block_q": 1024\n'
        f"}}}}, {cycles(5)}",
        matmul("after", 3),
    )
    _, kernel, after = parse(text).computations["main"].instructions
    assert kernel.is_kernel
    assert kernel.cycles == 5
    assert (after.name, after.cycles) == ("after", 3)


def test_the_entry_is_what_runs_wherever_it_stands():
    entry_last = schedule_text(PARAMETER, other=(PARAMETER,))
    head, other, entry = entry_last.strip().split("\n\n")
    for text in (entry_last, "\n\n".join((head, entry, other))):
        assert parse(text).entry == "main"
        assert set(parse(text).computations) == {"main", "other"}


def test_only_what_lies_in_hbm_counts_as_hbm():
    """S(1) is the chip's vector memory, which costs no bandwidth."""
    here, there = arrays("(bf16[2,8]{1,0:T(8,128)(2,1)}, bf16[4,8]{1,0:T(8,128)(2,1)S(1)})")
    assert (here.bytes, here.in_hbm) == (32, True)
    assert (there.bytes, there.in_hbm) == (64, False)
    (instruction,) = parse(schedule_text("%a = (s8[4]{0}, s4[4]{0}, f32[9]{0:S(1)}) tuple(%x)")).instructions(
        "main"
    )
    assert (instruction.bytes, instruction.hbm_bytes) == (4 + 2 + 36, 4 + 2)


def test_a_matmul_is_found_however_deep_it_is_fused():
    text = schedule_text(
        "%outer = f32[4]{0} fusion(%p), calls=%middle",
        "%plain = f32[4]{0} fusion(%p), calls=%elementwise",
        middle=("%inner = f32[4]{0} fusion(%p), calls=%deepest",),
        deepest=(matmul("product", 1),),
        elementwise=("%add = f32[4]{0} add(%p, %p)",),
    )
    schedule = parse(text)
    found = {each.name: schedule.holds_matmul(each) for each in schedule.instructions("main")}
    assert found == {"outer": True, "plain": False}


def test_a_collective_is_found_in_the_fusions_of_a_fusion():
    schedule = parse(
        schedule_text(
            PARAMETER,
            outer=("%f = f32[4]{0} fusion(%p), calls=%inner",),
            inner=(PARAMETER, "%gather.5 = f32[4]{0} all-gather(%p), channel_id=7"),
        )
    )
    assert schedule.collective_in("outer").name == "gather.5"
    assert schedule.collective_in("main") is None


def test_kernels_are_found_in_the_fusions_of_a_fusion():
    kernel = '%kernel.2 = f32[4]{0} custom-call(%p), custom_call_target="tpu_custom_call"'
    schedule = parse(
        schedule_text(
            PARAMETER,
            outer=(PARAMETER, "%f = f32[4]{0} fusion(%p), calls=%inner"),
            inner=(kernel, kernel.replace("tpu_custom_call", "AllocateBuffer")),
        )
    )
    assert [each.name for each in schedule.kernels_in("outer")] == ["kernel.2"]
    assert list(schedule.kernels_in("main")) == []


def loop(condition: tuple[str, ...], attributes: str = "", **computations: tuple[str, ...]) -> int | None:
    text = schedule_text(
        f"%loop = (s32[]) while(%p), condition=%condition, body=%body{attributes}",
        condition=condition,
        body=(PARAMETER,),
        **computations,
    )
    schedule = parse(text)
    return schedule.trips(schedule.instructions("main")[0])


COUNTER = "%counter = s32[]{:T(128)} get-tuple-element(%p), index=0"
LIMIT = "%limit = s32[]{:T(128)} constant(32)"
COMPARE = "%less = pred[]{:T(512)} compare(%counter, %limit), direction=LT"


def test_trips_are_those_that_the_compiler_wrote_or_else_the_bound_of_the_condition():
    assert loop((COUNTER, LIMIT, COMPARE)) == 32
    assert loop((COUNTER, LIMIT, "%one = s32[]{:T(128)} constant(1)", COMPARE)) == 32
    assert loop((COUNTER, LIMIT, COMPARE), ', backend_config={"known_trip_count":{"n":"7"}}') == 7
    fused = ("%less = pred[]{:T(512)} fusion(%p), kind=kLoop, calls=%compared",)
    assert loop(fused, compared=(COUNTER, LIMIT, COMPARE)) == 32


def test_trips_that_depend_on_data_are_unknown():
    bound = "%limit = s32[]{:T(128)} get-tuple-element(%p), index=4"
    assert loop((COUNTER, bound, COMPARE)) is None
