"""How many bytes an instruction moves between the chip and its HBM, and how many products it forms."""

import math
import re

from jaxlingua.plan.hlo import Computation, Instruction, Schedule

_SLICES = ("dynamic-slice", "slice", "gather")
_RENAMES = ("bitcast", "copy", "reshape")


def bytes_moved(instruction: Instruction, computation: Computation, schedule: Schedule) -> int:
    """HBM bytes that one execution reads and writes.

    A fusion that slices an operand reads only the slice, and one that updates part of its operand in place
    writes only that part: in a loop over layers the operand is all layers, of which one is touched.
    """
    if instruction.opcode == "fusion":
        called = schedule.computations.get(instruction.named("calls"), Computation(()))
        read = sum(_read(parameter, called, schedule) for parameter in called.parameters.values())
        return read + _written(instruction, called)
    operands = [computation.by_name.get(name) for name in instruction.operands]
    if instruction.opcode == "dynamic-update-slice":
        return 2 * operands[1].hbm_bytes if operands[1] else 0
    if instruction.opcode in _SLICES:
        return 2 * instruction.hbm_bytes
    return instruction.hbm_bytes + sum(operand.hbm_bytes for operand in operands if operand)


def _read(parameter: Instruction, called: Computation, schedule: Schedule) -> int:
    """What a fusion reads of one operand, through the fusions within it."""
    users = _users(parameter, called, schedule)
    if not users or not parameter.hbm_bytes:
        return parameter.hbm_bytes
    if all(user.opcode in _SLICES for user in users):
        return min(parameter.hbm_bytes, sum(user.bytes for user in users))
    if all(_updates_in_place(user, parameter) for user in users):
        return 0
    if all(user.opcode == "fusion" for user in users):
        return min(parameter.hbm_bytes, sum(_read_by(user, parameter, schedule) for user in users))
    return parameter.hbm_bytes


def _users(array: Instruction, called: Computation, schedule: Schedule) -> list[Instruction]:
    """What takes an array within a fusion, also where a fusion within only lays it out anew in place.

    Codes of four bits are read like this: all layers in another layout, of which one is sliced.
    """
    users = []
    for user in called.users[array.name]:
        is_renamed = user.opcode == "fusion" and "output_to_operand_aliasing" in user.attributes
        users += _users(user, called, schedule) if is_renamed and len(user.operands) == 1 else [user]
    return users


def _read_by(fusion: Instruction, operand: Instruction, schedule: Schedule) -> int:
    called = schedule.computations.get(fusion.named("calls"), Computation(()))
    numbers = [number for number, name in enumerate(fusion.operands) if name == operand.name]
    inner = [called.parameters[number] for number in numbers if number in called.parameters]
    return sum(_read(parameter, called, schedule) for parameter in inner)


def _written(fusion: Instruction, called: Computation) -> int:
    root = _renamed(called.root, called, _RENAMES)
    if root is None:
        return fusion.hbm_bytes
    if root.opcode == "dynamic-update-slice":
        return _update_bytes(root, called) if fusion.hbm_bytes else 0
    if root.opcode != "tuple":
        return fusion.hbm_bytes
    written = 0
    for name in root.operands:
        result = called.by_name.get(name)
        source = _renamed(result, called, ("bitcast",))
        if source is None or source.opcode == "parameter":  # handed through, as it was
            continue
        updates = source.opcode == "dynamic-update-slice"
        written += _update_bytes(source, called) if updates else result.hbm_bytes
    return written


def _updates_in_place(user: Instruction, parameter: Instruction) -> bool:
    return user.opcode == "dynamic-update-slice" and user.operands[0] == parameter.name


def _update_bytes(update_slice: Instruction, called: Computation) -> int:
    update = called.by_name.get(update_slice.operands[1])
    return update.bytes if update else 0


def _renamed(
    instruction: Instruction | None, called: Computation, opcodes: tuple[str, ...]
) -> Instruction | None:
    """What `instruction` is before operations that only rename or lay out anew."""
    while instruction is not None and instruction.opcode in opcodes:
        instruction = called.by_name.get(instruction.operands[0])
    return instruction


def matmul_flops(instruction: Instruction, within: Computation, schedule: Schedule) -> int:
    """Floating-point operations of a matrix product, or of all those in a fusion.

    The compiler writes them as convolutions. A window with padding only spreads a batch over it and adds
    no products.
    """
    if instruction.opcode == "convolution":
        return _convolution_flops(instruction, within)
    if instruction.opcode != "fusion":
        return 0
    called = schedule.computations.get(instruction.named("calls"), Computation(()))
    return sum(matmul_flops(each, called, schedule) for each in called.instructions)


def _convolution_flops(convolution: Instruction, within: Computation) -> int:
    labels = re.search(r"dim_labels=\w+_(\w+)->", convolution.attributes)
    if not labels:
        return 0
    kernel = within.by_name[convolution.operands[1]].arrays[0]
    contracted = kernel.sizes[labels.group(1).index("i")]
    window = re.search(r"window=\{size=([\dx]+)([^}]*)\}", convolution.attributes)
    if window and "pad" not in window.group(2):
        contracted *= math.prod(int(size) for size in window.group(1).split("x"))
    return 2 * convolution.arrays[0].elements * contracted
