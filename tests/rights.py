"""A process that file permissions stop, as they do everybody but root."""

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager

CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH = 1, 2
VERSION_3 = 0x20080522


class _Header(ctypes.Structure):
    _fields_ = (("version", ctypes.c_uint32), ("pid", ctypes.c_int))


class _Half(ctypes.Structure):
    _fields_ = tuple((name, ctypes.c_uint32) for name in ("effective", "permitted", "inheritable"))


@contextmanager
def stopped_by_permissions() -> Iterator[None]:
    """Within, this thread and those that it starts may only do what the permissions of a file allow.

    Root keeps its name, so that it still reads what only root may, such as its own packages.
    """
    if os.geteuid() != 0:
        yield
        return
    libc = ctypes.CDLL(None, use_errno=True)
    header, before = _Header(VERSION_3, 0), (_Half * 2)()
    assert libc.capget(ctypes.byref(header), before) == 0, os.strerror(ctypes.get_errno())
    less = (_Half * 2)()
    ctypes.memmove(less, before, ctypes.sizeof(before))
    less[0].effective &= ~(1 << CAP_DAC_OVERRIDE | 1 << CAP_DAC_READ_SEARCH)
    assert libc.capset(ctypes.byref(header), less) == 0, os.strerror(ctypes.get_errno())
    try:
        yield
    finally:
        assert libc.capset(ctypes.byref(header), before) == 0, os.strerror(ctypes.get_errno())
