"""One run of several processes: who is there, JAX between them, and how they end together."""

import hashlib
import socket
import traceback
from collections.abc import Iterator
from contextlib import contextmanager

import jax

from jaxlingua import __version__
from jaxlingua.config import Config, ProcessesConfig
from jaxlingua.errors import JaxlinguaError, MachineError, Stopped, one_line
from jaxlingua.processes.environment import Place, find_processes
from jaxlingua.processes.roll_call import Group, alone, call_roll, end_process

# JAX's own watch over its processes aborts them with a core dump and no name; the roll call ends them within
# seconds, so that this one is only for a roll call that itself has failed.
HEARTBEAT_SECONDS = 600
SHUTDOWN_SECONDS = 30


@contextmanager
def together(config: Config) -> Iterator[Group]:
    """All processes of the run, from the first one that comes to the end of the last.

    Devices of all processes are seen by JAX within. Processes that find no others are alone, without sockets.

    Raises: ConfigError for an environment that cannot be understood; MachineError, in all that came, where
        somebody is missing.
    """
    place = find_processes(config.sharding.processes)
    if place is None:
        yield alone()
        return
    wait_seconds = config.sharding.processes.wait_seconds
    group = call_roll(place, wait_seconds=wait_seconds, configuration=_digest(config), version=__version__)
    try:
        jax.config.update("jax_enable_recoverability", True)  # the death of another is told by the roll call
        jax.config.update("jax_enable_preemption_service", False)  # it would take SIGTERM from us
        _start_jax(place, wait_seconds)
        yield group
    except BaseException as error:
        group.leave(error)
        if isinstance(error, Stopped):  # all are here, and leave JAX together, or it would abort the last
            jax.distributed.shutdown()
        elif isinstance(error, JaxlinguaError):  # the others go now, and JAX would abort this one at its exit
            end_process(one_line(error), error.exit_code)
        elif isinstance(error, Exception):
            traceback.print_exc()
            end_process(f"{type(error).__name__}: {one_line(error)}", 1)
        raise
    group.leave()
    jax.distributed.shutdown()


def _start_jax(place: Place, wait_seconds: float) -> None:
    try:
        if place.index == 0:  # JAX may crash where it finds its port taken, as was seen
            socket.create_server(("", int(place.coordinator.rpartition(":")[2]))).close()
        jax.distributed.initialize(
            place.coordinator,
            place.count,
            place.index,
            initialization_timeout=max(1, round(wait_seconds)),
            heartbeat_timeout_seconds=HEARTBEAT_SECONDS,
            shutdown_timeout_seconds=SHUTDOWN_SECONDS,
        )
    except (jax.errors.JaxRuntimeError, OSError) as error:
        raise MachineError(
            f"sharding.processes.coordinator: JAX cannot start at {place.coordinator} "
            f"({one_line(error)[:200]}); end the program that has the port, or give another"
        ) from None


def _digest(config: Config) -> str:
    """Of all that the processes of one run must share."""
    processes = ProcessesConfig()
    sharding = config.sharding.model_copy(update={"processes": processes})
    return hashlib.sha256(repr(config.model_copy(update={"sharding": sharding})).encode()).hexdigest()[:16]
