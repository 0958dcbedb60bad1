"""What a profiler's trace holds: operations of devices, what the host did, where operations come from.

The file is an XSpace of XLA's profiler. `jax.profiler.ProfileData` reads it too, but hands out neither the
statistics of an operation's name, where a TPU tells its kind, nor the programs, which tell its path in the
model on any device. So it is read here, by the numbers of the few fields that are needed.
"""

import functools
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.message import DecodeError

from jaxlingua.errors import DataError

# Message: field, number, type; "*" is repeated. Public definitions: tsl/profiler/protobuf/xplane.proto,
# xla/service/hlo.proto and xla/xla_data.proto of openxla/xla.
_MESSAGES = """
Space: planes 1 *Plane
Plane: name 2 string, lines 3 *Line, event_metadata 4 *NamedEntry, stat_metadata 5 *NamedEntry
NamedEntry: key 1 int64, value 2 Named
Named: name 2 string, stats 5 *Stat
Line: name 2 string, timestamp_ns 3 int64, events 4 *Event
Event: metadata_id 1 int64, offset_ps 2 int64, duration_ps 3 int64, stats 4 *Stat
Stat: metadata_id 1 int64, number 3 uint64, integer 4 int64, text 5 string, data 6 bytes, name_id 7 uint64
Program: module 1 Module
Module: name 1 string, computations 3 *Computation, id 5 int64, frames 17 Frames
Computation: instructions 2 *Instruction, id 5 int64
Instruction: name 1 string, opcode 2 string, metadata 7 Origin, called 38 *int64
Origin: op_name 2 string, file 3 string, line 4 int32, frame 15 int32
Frames: files 1 *string, places 3 *Place, frames 4 *Frame
Place: file 1 int32, line 3 int32
Frame: place 1 int32, parent 2 int32
"""
_CONTROL = ("while", "conditional", "call", "async-start", "async-update")
_NAME = re.compile(r"^%?([\w.\-]+)")


@dataclass(frozen=True)
class Operation:
    """One operation of a program, as the trace tells it.

    Args:
        opcode: of XLA, such as "fusion"; "" if it is not known.
        inner: opcodes of what a fusion holds.
        path: where it comes from in the model, such as "jit(train_step)/layers/mlp/dot_general".
        source: file and line, such as "llama.py:201"; "" if it is not known.
        category: what a TPU calls its kind, such as "convolution fusion"; "" elsewhere.
    """

    name: str
    opcode: str = ""
    inner: frozenset[str] = frozenset()
    path: str = ""
    source: str = ""
    category: str = ""

    @property
    def is_control(self) -> bool:
        """Whether it only runs other operations, which are told themselves."""
        return (self.opcode or self.name.rstrip("0123456789").rstrip(".")) in _CONTROL


@dataclass
class Trace:
    """Times are seconds on one clock, each interval (start, end).

    Args:
        operations: of each device, (operation, start, end), in any order.
        host: annotations of the host by name, (start, end, number); the number is the step's, or None.
    """

    operations: dict[str, list[tuple[Operation, float, float]]] = field(default_factory=dict)
    host: dict[str, list[tuple[float, float, int | None]]] = field(default_factory=dict)


def read_trace(path: Path, annotations: frozenset[str]) -> Trace:
    """Read an .xplane.pb file.

    Args:
        annotations: names of the host's annotations that are wanted.
    Raises: DataError if it is no trace.
    Cost: some seconds per million operations.
    """
    return parse_trace(path.read_bytes(), annotations, str(path))


def parse_trace(content: bytes, annotations: frozenset[str], where: str) -> Trace:
    """As `read_trace`, of the file's content."""
    try:
        space = _messages()["Space"].FromString(content)
    except DecodeError as error:
        raise DataError(f"{where}: damaged ({error}); a trace is an XSpace; trace the steps again") from None
    origins: dict[tuple[str, str], Operation] = {}
    for plane in space.planes:
        if plane.name == "/host:metadata":
            origins |= _origins(plane)
    trace = Trace()
    for plane in space.planes:
        if re.match(r"/device:[A-Z]+:\d+", plane.name):
            _read_device(_Plane(plane, origins), trace)
        elif plane.name == "/host:CPU":
            _read_host(_Plane(plane, origins), annotations, trace)
    return trace


def _read_device(plane: "_Plane", trace: Trace) -> None:
    """A TPU has a line of operations that run one after another; a GPU has a line for each stream."""
    lines = [line for line in plane.lines if line.name == "XLA Ops"]
    for line in lines or [line for line in plane.lines if line.name.startswith("Stream")]:
        for event in line.events:
            operation = plane.operation(event)
            if not operation.is_control:
                found = trace.operations.setdefault(plane.name.removeprefix("/device:"), [])
                found.append((operation, *_span(line, event)))


def _read_host(plane: "_Plane", annotations: frozenset[str], trace: Trace) -> None:
    """Annotations, and of a CPU the operations, which say on which of its devices they ran."""
    for line in plane.lines:
        for event in line.events:
            name = plane.names.get(event.metadata_id, "")
            if name in annotations:
                number = plane.stats(event.stats).get("step_num")
                trace.host.setdefault(name, []).append(
                    (*_span(line, event), None if number is None else int(number))
                )
            elif len(event.stats) > 2 and "hlo_op" in (stats := plane.stats(event.stats)):
                operation = plane.operation(event)
                if not operation.is_control:
                    found = trace.operations.setdefault(f"CPU:{stats.get('device_ordinal', 0)}", [])
                    found.append((operation, *_span(line, event)))


def _span(line: Any, event: Any) -> tuple[float, float]:
    start = line.timestamp_ns * 1e-9 + event.offset_ps * 1e-12
    return start, start + event.duration_ps * 1e-12


class _Plane:
    """A plane with its names resolved."""

    def __init__(self, plane: Any, origins: Mapping[tuple[str, str], Operation]):
        self.name, self.lines = plane.name, plane.lines
        self.names = {entry.key: entry.value.name for entry in plane.event_metadata}
        self._metadata = {entry.key: entry.value for entry in plane.event_metadata}
        self._stat_names = {entry.key: entry.value.name for entry in plane.stat_metadata}
        self._origins = origins
        self._found: dict[tuple, Operation] = {}

    def stats(self, stats: Any) -> dict[str, Any]:
        """Their values by name."""
        return {self._stat_names.get(stat.metadata_id, ""): self._value(stat) for stat in stats}

    def operation(self, event: Any) -> Operation:
        """What an event is: a TPU tells it of the name, other devices of each event."""
        own = self.stats(event.stats)
        key = (event.metadata_id, own.get("hlo_op"), own.get("hlo_module"), own.get("program_id"))
        if key not in self._found:
            metadata = self._metadata.get(event.metadata_id)
            told = (self.stats(metadata.stats) if metadata is not None else {}) | own
            name = _NAME.match(str(told.get("hlo_op") or self.names.get(event.metadata_id, "")))
            name = name[1] if name else ""
            programs = str(told.get("program_id", "")), str(told.get("hlo_module", ""))
            known = next(
                (self._origins[each, name] for each in programs if (each, name) in self._origins),
                Operation(name),
            )
            self._found[key] = replace(
                known,
                path=known.path or str(told.get("tf_op", "")).rstrip(":"),
                source=known.source or Path(str(told.get("source", ""))).name,
                category=str(told.get("hlo_category", "")),
            )
        return self._found[key]

    def _value(self, stat: Any) -> Any:
        if stat.HasField("name_id"):
            return self._stat_names.get(stat.name_id, "")
        given = [value for kind, value in stat.ListFields() if kind.name != "metadata_id"]
        return given[0] if given else 0


def _origins(plane: Any) -> dict[tuple[str, str], Operation]:
    """(program, name) → operation, of the programs that the trace keeps; theirs are called "jit_f(4)".

    A program that came from the persistent cache still has the number that it had there, so it is found under
    "jit_f" too; of several of this name the newest counts.
    """
    found = {}
    programs = []
    for entry in plane.event_metadata:
        title = re.fullmatch(r"(.*?)(?:\((\d+)\))?", entry.value.name)
        programs += [(int(title[2] or 0), title[1], stat.data) for stat in entry.value.stats if stat.data]
    for number, title, content in sorted(programs):
        module = _messages()["Program"].FromString(content).module
        bodies = {body.id: body.instructions for body in module.computations}
        for one in (one for body in module.computations for one in body.instructions):
            inner = [each for body in one.called for each in bodies.get(body, ())]
            paths = [each.metadata.op_name for each in [*inner, one] if each.metadata.op_name]
            operation = Operation(
                one.name,
                one.opcode,
                frozenset(each.opcode for each in inner) if one.opcode == "fusion" else frozenset(),
                paths[-1] if paths else "",
                _source(one.metadata, module.frames),
            )
            found[str(number), one.name] = found[title, one.name] = operation
    return found


def _source(origin: Any, frames: Any) -> str:
    """File and line; of the frames that led there the innermost of jaxlingua, or else the innermost."""
    if origin.file or not origin.frame:
        return f"{Path(origin.file).name}:{origin.line}" if origin.file else ""
    innermost, number = "", origin.frame
    while 0 < number <= len(frames.frames):
        frame = frames.frames[number - 1]
        place = frames.places[frame.place - 1]
        file = frames.files[place.file - 1]
        told = f"{Path(file).name}:{place.line}"
        if "jaxlingua" in Path(file).parts[-4:-1]:
            return told
        innermost, number = innermost or told, frame.parent
    return innermost


@functools.cache
def _messages() -> dict[str, Any]:
    """The classes of the messages above."""
    kinds = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(name="jaxlingua/trace.proto", package="jaxlingua.trace")
    for line in _MESSAGES.strip().splitlines():
        name, fields = line.split(": ")
        message = file.message_type.add(name=name)
        for field_name, number, kind in (one.split() for one in fields.split(", ")):
            added = message.field.add(name=field_name, number=int(number))
            added.label = kinds.LABEL_REPEATED if kind.startswith("*") else kinds.LABEL_OPTIONAL
            kind = kind.removeprefix("*")
            if kind[0].isupper():
                added.type, added.type_name = kinds.TYPE_MESSAGE, f".jaxlingua.trace.{kind}"
            else:
                added.type = kinds.Type.Value(f"TYPE_{kind.upper()}")
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    names = [message.name for message in file.message_type]
    found = [pool.FindMessageTypeByName(f"{file.package}.{name}") for name in names]
    return {name: message_factory.GetMessageClass(one) for name, one in zip(names, found, strict=True)}
