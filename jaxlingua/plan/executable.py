"""The schedule of a compiled program as text, also where JAX cannot print it.

On v5p and v6e the compiler hands the lookup of embedding rows to a SparseCore, in an `async-update` of three
operands (libtpu 0.0.51). The jaxlib of JAX 0.10 allows it one and refuses to read the whole program; that of
JAX 0.12 reads it, but needs Python 3.12. The schedule is all there in the serialized executable: a header,
then records in blocks (Riegeli, a format of Google's), one of which holds the program as a protocol buffer.
From that the operands which jaxlib does not expect are taken away, and nothing else; the estimate does not
look at them.
"""

from collections.abc import Callable, Iterator
from typing import Any

import jax

_BLOCK_BYTES, _BLOCK_HEADER_BYTES, _CHUNK_HEADER_BYTES = 1 << 16, 24, 40
_RECORDS, _UNCOMPRESSED = ord("r"), 0

# Field numbers of xla/service/hlo.proto.
_COMPUTATIONS, _OPCODE, _OPERANDS = 3, 2, 36
_INSTRUCTIONS = 2
_OF_A_SCHEDULED_MODULE = {1, _COMPUTATIONS, 6, 7}  # name, computations, entry, schedule
_DEPTH = 4  # in a record the module lies two messages deep

# Wire types of protocol buffers, and how many bytes follow those of fixed length.
_VARINT, _DELIMITED = 0, 2
_FIXED = {1: 8, 5: 4}


def schedule_text(compiled: Any) -> str:
    """What `as_text` of a `jax.stages.Compiled` gives, or should give.

    Raises: jax.errors.JaxRuntimeError as `as_text` does, if the executable does not help either.
    """
    try:
        return compiled.as_text()
    except jax.errors.JaxRuntimeError as error:
        try:
            return _text_of_executable(compiled.runtime_executable().serialize())
        # The format is nobody's promise: with another libtpu anything may be missing or mean something else.
        except (ImportError, AttributeError, IndexError, ValueError, jax.errors.JaxRuntimeError):
            raise error from None


def _text_of_executable(serialized: bytes) -> str:
    from jaxlib._hlo import HloModule  # not in every jaxlib

    records = [record for record in _records(serialized) if b'"estimated_cycles"' in record]
    modules = [module for record in records[-1:] for module in _scheduled_modules(record, _DEPTH)]
    return HloModule.from_serialized_hlo_module_proto(_readable(modules[-1])).to_string()


def _records(serialized: bytes) -> Iterator[bytes]:
    """What a file of records holds, after a header of its own length. Checksums are not looked at."""
    header_bytes, start = _varint(serialized, 0)
    blocks = memoryview(serialized)[start + header_bytes :]
    steps = range(0, len(blocks), _BLOCK_BYTES)
    chunks = b"".join(blocks[at + _BLOCK_HEADER_BYTES : at + _BLOCK_BYTES] for at in steps)
    at = 0
    while at + _CHUNK_HEADER_BYTES <= len(chunks):
        body = at + _CHUNK_HEADER_BYTES
        end = body + int.from_bytes(chunks[at + 8 : at + 16], "little")
        if end > len(chunks):
            raise ValueError("the last records are cut off")
        if chunks[at + 24] == _RECORDS and chunks[body] == _UNCOMPRESSED:
            yield from _records_of_chunk(chunks[body + 1 : end])
        at = end


def _records_of_chunk(chunk: bytes) -> Iterator[bytes]:
    """First the lengths of all records, then the records."""
    lengths_bytes, at = _varint(chunk, 0)
    start = lengths_end = at + lengths_bytes
    while at < lengths_end:
        length, at = _varint(chunk, at)
        yield chunk[start : start + length]
        start += length


def _scheduled_modules(message: bytes, depth: int) -> Iterator[bytes]:
    """Programs with a schedule within a message, wherever they lie."""
    try:
        fields = list(_fields(message))
    except (IndexError, ValueError):  # no message, but text or numbers
        return
    if {number for number, _, _ in fields} >= _OF_A_SCHEDULED_MODULE:
        yield message
    elif depth:
        for _, wire_type, value in fields:
            if wire_type == _DELIMITED:
                yield from _scheduled_modules(value, depth - 1)


def _readable(module: bytes) -> bytes:
    """The program without the operands that jaxlib does not expect."""

    def first(numbers: bytes) -> bytes:
        return numbers[: _varint(numbers, 0)[1]]

    def instruction(message: bytes) -> bytes:
        is_update = (_OPCODE, _DELIMITED, b"async-update") in _fields(message)
        return _changed(message, _OPERANDS, first) if is_update else message

    def computation(message: bytes) -> bytes:
        return _changed(message, _INSTRUCTIONS, instruction)

    return _changed(module, _COMPUTATIONS, computation)


# ── protocol buffers ───────────────────────────────────────────────────────────────────────────────────────


def _fields(message: bytes) -> Iterator[tuple[int, int, bytes]]:
    """Number, wire type and bytes of each field. Raises: ValueError or IndexError for what is no message."""
    at = 0
    while at < len(message):
        key, at = _varint(message, at)
        wire_type, end = key & 7, at
        if wire_type == _VARINT:
            end = _varint(message, at)[1]
        elif wire_type == _DELIMITED:
            length, at = _varint(message, at)
            end = at + length
        elif wire_type in _FIXED:
            end = at + _FIXED[wire_type]
        else:
            raise ValueError(f"no field has wire type {wire_type}")
        if end > len(message) or key < 8:
            raise ValueError(f"no field begins with {key}")
        yield key >> 3, wire_type, message[at:end]
        at = end


def _changed(message: bytes, number: int, change: Callable[[bytes], bytes]) -> bytes:
    """A message in which the bytes of every field of a number are changed."""
    parts = []
    for found, wire_type, value in _fields(message):
        if wire_type == _DELIMITED:
            value = change(value) if found == number else value
            value = _as_varint(len(value)) + value
        parts.append(_as_varint(found << 3 | wire_type) + value)
    return b"".join(parts)


def _varint(message: bytes, at: int) -> tuple[int, int]:
    """A number of seven bits per byte, the lowest first, and where it ends."""
    number = shift = 0
    while True:
        byte = message[at]
        number |= (byte & 127) << shift
        at, shift = at + 1, shift + 7
        if byte < 128:
            return number, at


def _as_varint(number: int) -> bytes:
    parts = []
    while number > 127:
        parts.append(number & 127 | 128)
        number >>= 7
    return bytes([*parts, number])
