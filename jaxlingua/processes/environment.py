"""Which processes train together: from the configuration, from JAX's variables, from GKE or a TPU VM.

What is read and what it means is as in JAX's own detection of TPU clusters, so that a command that JAX runs
on several hosts runs here; but what is wrong or missing is told in one line, and nothing is asked over the
network unless TPU chips are attached.
"""

import http.client
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from jaxlingua.errors import ConfigError, MachineError

if TYPE_CHECKING:
    from jaxlingua.config import ProcessesConfig

PORT = 8482  # where JAX has the coordinator of a TPU cluster listen
PCI_DEVICES = Path("/sys/bus/pci/devices")
GOOGLE = "0x1ae0"
TPU_DEVICES = (
    *("0x0027", "0x0056", "0x005e", "0x0062", "0x0063"),
    *("0x006f", "0x0076", "0x007c", "0x0083"),
)
METADATA_ADDRESS = "169.254.169.254"  # metadata.google.internal, where no name server is at hand as well
METADATA_SECONDS = 2.0
METADATA_TRIES = 3
OPTION = "sharding.processes"
JAX_NAMES = {
    "coordinator": "JAX_COORDINATOR_ADDRESS",
    "count": "JAX_NUM_PROCESSES",
    "index": "JAX_PROCESS_ID",
}


@dataclass(frozen=True)
class Place:
    """This process among those that train together."""

    coordinator: str  # host:port for jax.distributed; the roll call uses the port after it
    count: int
    index: int
    found_in: str
    names: tuple[str, ...] = ()  # the host of each process, where they are known


@dataclass(frozen=True)
class Slice:
    """The processes of one slice of TPU chips, and this one among them."""

    hosts: tuple[str, ...]
    index: int
    found_in: str
    index_from: str


@dataclass(frozen=True)
class MetadataServer:
    """What a machine of Google Cloud asks about itself. Never goes through a proxy."""

    address: str = METADATA_ADDRESS

    def ask(self, path: str, seconds: float) -> tuple[int, str, str | None]:
        """Status, text and ETag of `path` under /computeMetadata/v1/instance/.

        Raises: OSError or http.client.HTTPException where there is no answer within `seconds`.
        """
        connection = http.client.HTTPConnection(self.address, timeout=seconds)
        try:
            connection.request(
                "GET", f"/computeMetadata/v1/instance/{path}", headers={"Metadata-Flavor": "Google"}
            )
            answer = connection.getresponse()
            return answer.status, answer.read().decode("utf-8", "replace"), answer.getheader("ETag")
        finally:
            connection.close()

    def attribute(self, key: str) -> str | None:
        """One attribute of the machine; None if it has none of that name or nobody answers."""
        for attempt in range(METADATA_TRIES):
            if attempt:
                time.sleep(0.3)
            try:
                status, text, _ = self.ask(f"attributes/{key}", METADATA_SECONDS)
            except (OSError, http.client.HTTPException):
                continue
            if status == 200:
                return text
            if status < 500:
                return None
        return None


def find_processes(config: "ProcessesConfig", environ: Mapping[str, str] = os.environ) -> Place | None:
    """This process and how many there are; None for one process alone.

    The first of these that says something: the configuration (what it leaves out is taken from JAX's
    variables), JAX's variables (what they leave out is taken from the TPU's), the variables of a GKE JobSet,
    the metadata of a TPU VM. A single process is a group of one only where the configuration asks for it.

    Raises: ConfigError for what is missing, no number or out of range; MachineError where the metadata
        server stops answering halfway.
    Same as: GkeTpuCluster and GceTpuCluster in jax/_src/clusters/cloud_tpu_cluster.py.
    """
    given = {key: getattr(config, key) for key in JAX_NAMES if getattr(config, key) != "auto"}
    if given.get("coordinator") == "none":
        return _refuse_others_than_one(given)
    variables = {}
    for key, name in JAX_NAMES.items():
        if environ.get(name):
            variables[key] = environ[name] if key == "coordinator" else _number(name, environ[name])
    if given:
        return _from_configuration(given, variables)
    is_enough = len(variables) == len(JAX_NAMES) or variables.get("count") == 1
    tpu = None if is_enough else _from_tpu(environ)
    if variables:
        return _from_variables(variables, tpu)
    return tpu if tpu and tpu.count > 1 else None


def metadata_server(environ: Mapping[str, str] = os.environ) -> MetadataServer | None:
    """The metadata server that tells of a pre-emption: of a TPU VM, or the one named in GCE_METADATA_HOST."""
    is_named = environ.get("GCE_METADATA_HOST") or environ.get("GCE_METADATA_IP")
    return _metadata_at(environ) if is_named or _may_ask(environ) else None


def tpu_chips_attached(devices: Path | None = None) -> bool:
    """Whether JAX would find TPU chips: by the ids of the devices on the PCI bus."""
    for vendor in (devices or PCI_DEVICES).glob("*/vendor"):
        try:
            is_google = vendor.read_text().strip() == GOOGLE
            if is_google and (vendor.parent / "device").read_text().strip() in TPU_DEVICES:
                return True
        except OSError:  # a device that has just gone
            continue
    return False


# ── given ────────────────────────────────────────────────────────────────────

Values = dict[str, str | int]  # some of coordinator, count and index


def _refuse_others_than_one(given: Values) -> None:
    if given.get("count", 1) != 1 or given.get("index", 0) != 0:
        others = " and ".join(f"{key}={value}" for key, value in given.items() if key != "coordinator")
        raise ConfigError(
            f"{OPTION}: coordinator=none with {others}; none is one process alone; give the coordinator as "
            f"host:port or leave out {others}"
        )


def _from_configuration(given: Values, variables: Values) -> Place | None:
    values = variables | given
    if values.get("count") == 1:
        values.setdefault("index", 0)
        if "coordinator" not in values:
            _check_index(values["index"], 1, f"{OPTION}.index")
            return None
    _refuse_missing(values, OPTION, OPTION + ".{key} or {name}")
    where = {key: f"{OPTION}.{key}" if key in given else name for key, name in JAX_NAMES.items()}
    return _place(values, where, "the configuration")


def _from_variables(variables: Values, tpu: Place | None) -> Place | None:
    values = ({key: getattr(tpu, key) for key in JAX_NAMES} if tpu else {}) | variables
    said_by = [JAX_NAMES[key] for key in variables]
    if values.get("count") == 1:
        _check_index(values.get("index", 0), 1, JAX_NAMES["index"])
        return None
    _refuse_missing(values, " and ".join(said_by), "{name}")
    names = tpu.names if tpu and tpu.count == values["count"] else ()
    return _place(values, JAX_NAMES, said_by[0], names)


def _refuse_missing(values: Values, where: str, remedy: str) -> None:
    missing = [key for key in JAX_NAMES if key not in values]
    if missing:
        remedies = ", ".join(remedy.format(key=key, name=JAX_NAMES[key]) for key in missing)
        raise ConfigError(
            f"{where}: given without {' and '.join(missing)}; several processes need coordinator, count and "
            f"index; set {remedies}"
        )


def _place(values: Values, where: Mapping[str, str], found_in: str, names: tuple[str, ...] = ()) -> Place:
    _check_coordinator(values["coordinator"], where["coordinator"])
    if values["count"] < 1:
        raise ConfigError(f"{where['count']}: {values['count']} processes; give 1 or more")
    _check_index(values["index"], values["count"], where["index"])
    return Place(values["coordinator"], values["count"], values["index"], found_in, names)


# ── TPU ──────────────────────────────────────────────────────────────────────


def _from_tpu(environ: Mapping[str, str]) -> Place | None:
    """The processes of one or several slices; None where this is neither a GKE JobSet nor a TPU VM."""
    server = _metadata_at(environ) if _may_ask(environ) else None
    slice_ = _gke_slice(environ) or (server and _tpu_vm_slice(server))
    if not slice_:
        return None
    between = _megascale(environ, server)
    slices = _number_or("MEGASCALE_NUM_SLICES", between, 1)
    if slices > 1:
        for name in ("MEGASCALE_COORDINATOR_ADDRESS", "MEGASCALE_SLICE_ID"):
            if not between.get(name):
                raise ConfigError(
                    f"{name}: not set, with {slices} slices; each slice needs it; set it, or "
                    f"{OPTION} to coordinator, count and index"
                )
    slice_index = _number_or("MEGASCALE_SLICE_ID", between, 0)
    _check_index(slice_index, slices, "MEGASCALE_SLICE_ID", of="slices")
    _check_index(slice_.index, len(slice_.hosts), slice_.index_from)
    first = between.get("MEGASCALE_COORDINATOR_ADDRESS") or slice_.hosts[0]
    port = environ.get("JAX_COORDINATOR_PORT") or str(PORT)
    coordinator = f"{first.split(':')[0]}:{port}"
    if slices * len(slice_.hosts) > 1:
        _check_coordinator(coordinator, f"{slice_.found_in} with port {port}")
    return Place(
        coordinator,
        count=slices * len(slice_.hosts),
        index=slice_index * len(slice_.hosts) + slice_.index,
        found_in=slice_.found_in,
        names=slice_.hosts if slices == 1 else (),
    )


def _gke_slice(environ: Mapping[str, str]) -> Slice | None:
    path = environ.get("TPU_PROCESS_ADDRESSES_PATH")
    if path:
        name, listed = "TPU_PROCESS_ADDRESSES_PATH", _read_addresses(path)
    else:
        name = "TPU_PROCESS_ADDRESSES" if "TPU_PROCESS_ADDRESSES" in environ else "TPU_WORKER_HOSTNAMES"
        if name not in environ:
            return None
        listed = environ[name]
    hosts = tuple(entry.strip().split(":")[0] for entry in listed.split(","))
    if len(hosts) > 1:
        if not all(hosts):
            raise ConfigError(
                f"{name}: entry {hosts.index('') + 1} of {len(hosts)} in '{listed}' names no host; "
                "host names are separated by one comma each; name every host"
            )
        if not environ.get("TPU_WORKER_ID"):
            raise ConfigError(
                f"TPU_WORKER_ID: not set, with {len(hosts)} hosts in {name}; set it to the place of this "
                "host in the list, from 0"
            )
    index = _number_or("TPU_WORKER_ID", environ, 0)
    return Slice(hosts, index, f"GKE ({name})", "TPU_WORKER_ID")


def _read_addresses(path: str) -> str:
    try:
        listed, problem = Path(path).read_text(encoding="utf-8").strip(), "is empty"
    except (OSError, UnicodeDecodeError) as error:
        listed, problem = "", f"cannot be read ({getattr(error, 'strerror', 'no UTF-8')})"
    if not listed:
        raise ConfigError(
            f"TPU_PROCESS_ADDRESSES_PATH: '{path}' {problem}; it lists the hosts, separated by commas; "
            "mend it or unset the variable"
        )
    return listed


def _tpu_vm_slice(server: MetadataServer) -> Slice | None:
    worker = server.attribute("agent-worker-number")
    if worker is None:
        return None
    endpoints = server.attribute("worker-network-endpoints")
    if endpoints is None:
        raise MachineError(
            "TPU VM metadata: agent-worker-number without worker-network-endpoints; both are needed; run "
            f"again, or give {OPTION}.coordinator, count and index"
        )
    index = _number("TPU VM metadata agent-worker-number", worker)
    hosts = tuple(_endpoint(entry, endpoints) for entry in endpoints.strip().split(","))
    return Slice(hosts, index, "TPU VM metadata", "TPU VM metadata agent-worker-number")


def _endpoint(entry: str, endpoints: str) -> str:
    """The host of an entry, which is either a host name or name:id:address.

    >>> _endpoint("t1v-n-0", ""), _endpoint("unknown:unknown:10.0.0.2", "")
    ('t1v-n-0', '10.0.0.2')
    """
    parts = entry.strip().split(":")
    if len(parts) not in (1, 3) or not parts[-1]:
        raise ConfigError(
            f"TPU VM metadata worker-network-endpoints: '{entry}' in '{endpoints.strip()}' is neither a host "
            f"nor name:id:address; give {OPTION} coordinator, count and index"
        )
    return parts[-1]


def _megascale(environ: Mapping[str, str], server: MetadataServer | None) -> dict[str, str]:
    """What several slices are told of one another: each value of the environment, else of the metadata."""
    names = ("MEGASCALE_COORDINATOR_ADDRESS", "MEGASCALE_NUM_SLICES", "MEGASCALE_SLICE_ID")
    values = {name: environ[name] for name in names if name in environ}
    if len(values) < len(names) and server:
        for line in (server.attribute("tpu-env") or "").splitlines():
            name, colon, value = line.partition(":")
            if colon and name.strip() in names:
                values.setdefault(name.strip(), value.strip().strip("'"))
    return values


def _may_ask(environ: Mapping[str, str]) -> bool:
    return "TPU_SKIP_MDS_QUERY" not in environ and tpu_chips_attached()


def _metadata_at(environ: Mapping[str, str]) -> MetadataServer:
    named = environ.get("GCE_METADATA_IP") or environ.get("GCE_METADATA_HOST")
    return MetadataServer(named) if named else MetadataServer()


# ── checks ───────────────────────────────────────────────────────────────────


def _number_or(name: str, values: Mapping[str, str], default: int) -> int:
    return _number(name, values[name]) if values.get(name) else default


def _number(name: str, text: str) -> int:
    try:
        number = int(text)
    except ValueError:
        number = -1
    if number < 0:
        raise ConfigError(f"{name}: '{text}' is no whole number from 0; give a number or leave it out")
    return number


def _check_index(index: int, count: int, where: str, of: str = "processes") -> None:
    if not 0 <= index < count:
        raise ConfigError(
            f"{where}: {index} with {count} {of}; they count from 0 to {count - 1}; give each its own number"
        )


def _check_coordinator(coordinator: str, where: str) -> None:
    host, colon, port = coordinator.rpartition(":")
    # The roll call listens on the port after it.
    if not (colon and host and port.isascii() and port.isdigit() and 1 <= int(port) <= 65534):
        raise ConfigError(
            f"{where}: '{coordinator}' is not host:port with a port from 1 to 65534; write it such as "
            f"host-0:{PORT}"
        )
