"""Who takes part: the same place as JAX finds from the same variables and the same metadata, else one line."""

import http.server
import itertools
import os
import socket
import threading
import time

import jax
import pytest
from jax._src import hardware_utils
from jax._src.clusters import cloud_tpu_cluster

from jaxlingua.config import ProcessesConfig
from jaxlingua.errors import ConfigError, MachineError
from jaxlingua.processes import environment
from jaxlingua.processes.environment import Place, find_processes, metadata_server, tpu_chips_attached

AUTO = ProcessesConfig()
READ = (
    *("JAX_COORDINATOR_ADDRESS", "JAX_COORDINATOR_PORT", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID"),
    *("TPU_PROCESS_ADDRESSES_PATH", "TPU_PROCESS_ADDRESSES", "TPU_WORKER_HOSTNAMES"),
    *("TPU_WORKER_ID", "TPU_SKIP_MDS_QUERY"),
    *("MEGASCALE_COORDINATOR_ADDRESS", "MEGASCALE_NUM_SLICES", "MEGASCALE_SLICE_ID"),
    *("GCE_METADATA_IP", "GCE_METADATA_HOST"),
)


class Metadata(http.server.ThreadingHTTPServer):
    """A metadata server on loopback that answers with `attributes`, and 404 for what it does not know."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Answer)
        self.attributes: dict[str, str] = {}
        self.asked: list[str] = []
        self.broken = 0  # so many requests are answered with 503
        self.address = f"127.0.0.1:{self.server_port}"
        threading.Thread(target=self.serve_forever, daemon=True).start()


class Answer(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        key = self.path.removeprefix("/computeMetadata/v1/instance/attributes/")
        self.server.asked.append(key)
        if self.server.broken:
            self.server.broken -= 1
            status = 503
        elif self.headers["Metadata-Flavor"] != "Google":
            status = 403
        else:
            status = 200 if key in self.server.attributes else 404
        body = self.server.attributes.get(key, "<html>no</html>").encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments):
        pass


@pytest.fixture
def metadata():
    server = Metadata()
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture
def on_tpu(monkeypatch):
    """As if TPU chips were attached, for JAX and for us."""
    monkeypatch.setattr(environment, "tpu_chips_attached", lambda: True)
    monkeypatch.setattr(cloud_tpu_cluster, "running_in_cloud_tpu_vm", True)


@pytest.fixture
def without_chips(monkeypatch):
    """Whoever asks the network where there is no chip fails."""
    monkeypatch.setattr(environment, "tpu_chips_attached", lambda: False)
    monkeypatch.setattr(environment.MetadataServer, "ask", lambda *_: pytest.fail("asked the network"))


def found_by_jax(variables: dict[str, str], monkeypatch) -> tuple[str, int, int]:
    """Coordinator, count and index as jax.distributed.initialize would have them."""
    for name in READ:
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(socket, "gethostbyname", lambda name: "127.0.0.1")
    clusters = (cloud_tpu_cluster.GkeTpuCluster, cloud_tpu_cluster.GceTpuCluster)
    cluster = next(cluster for cluster in clusters if cluster.is_env_present())
    port = os.environ.get("JAX_COORDINATOR_PORT")
    coordinator = cluster.get_coordinator_address(timeout_secs=5, override_coordinator_port=port)
    return coordinator, cluster.get_process_count(), cluster.get_process_id()


# ── as JAX finds it ──────────────────────────────────────────────────────────

TWO_SLICES = {
    "MEGASCALE_COORDINATOR_ADDRESS": "job-slice-0-0.job:8080",
    "MEGASCALE_NUM_SLICES": "2",
    "MEGASCALE_SLICE_ID": "1",
}
GKE = {
    "hostnames": {"TPU_WORKER_HOSTNAMES": "job-0.svc,job-1.svc,job-2.svc,job-3.svc", "TPU_WORKER_ID": "2"},
    "addresses": {
        "TPU_PROCESS_ADDRESSES": "10.0.0.1:8476,10.0.0.1:8477",
        "TPU_WORKER_HOSTNAMES": "job-0.svc",
        "TPU_WORKER_ID": "1",
    },
    "slices": {"TPU_WORKER_HOSTNAMES": "job-1-0.job,job-1-1.job", "TPU_WORKER_ID": "0", **TWO_SLICES},
    "slices of one host": {"TPU_WORKER_HOSTNAMES": "job-1-0.job", "TPU_WORKER_ID": "0", **TWO_SLICES},
    "one slice that is told so": {
        "TPU_WORKER_HOSTNAMES": "a,b",
        "TPU_WORKER_ID": "1",
        "MEGASCALE_COORDINATOR_ADDRESS": "c",
        "MEGASCALE_NUM_SLICES": "",
    },
    "other port": {"TPU_WORKER_HOSTNAMES": "a,b", "TPU_WORKER_ID": "1", "JAX_COORDINATOR_PORT": "1234"},
}


@pytest.mark.parametrize("name", GKE)
def test_a_gke_jobset_gives_the_place_that_jax_finds(name, metadata, on_tpu, monkeypatch):
    metadata.attributes["tpu-env"] = ""
    variables = {"GCE_METADATA_IP": metadata.address, **GKE[name]}
    place = find_processes(AUTO, variables)
    assert (place.coordinator, place.count, place.index) == found_by_jax(variables, monkeypatch)
    assert place.found_in == f"GKE ({next(iter(GKE[name]))})"


def test_addresses_may_lie_in_a_file(tmp_path, metadata, on_tpu, monkeypatch):
    """As JAX has it since 0.12."""
    metadata.attributes["tpu-env"] = ""
    listed = tmp_path / "addresses"
    listed.write_text("10.0.0.1:8476,10.0.0.2:8476\n")
    variables = {
        "TPU_PROCESS_ADDRESSES_PATH": str(listed),
        "TPU_PROCESS_ADDRESSES": "other",
        "TPU_WORKER_ID": "1",
        "GCE_METADATA_IP": metadata.address,
    }
    place = find_processes(AUTO, variables)
    hosts = ("10.0.0.1", "10.0.0.2")
    assert place == Place("10.0.0.1:8482", 2, 1, "GKE (TPU_PROCESS_ADDRESSES_PATH)", hosts)
    if jax.__version_info__ >= (0, 12):
        assert (place.coordinator, place.count, place.index) == found_by_jax(variables, monkeypatch)


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (None, "cannot be read (No such file or directory)"),
        (b"\n", "is empty"),
        (b"\xff", "cannot be read (no UTF-8)"),
    ],
)
def test_addresses_that_cannot_be_read_are_told(content, problem, tmp_path, without_chips):
    path = tmp_path / "addresses"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigError) as error:
        find_processes(AUTO, {"TPU_PROCESS_ADDRESSES_PATH": str(path)})
    assert str(error.value) == (
        f"TPU_PROCESS_ADDRESSES_PATH: '{path}' {problem}; it lists the hosts, separated by commas; mend it or "
        "unset the variable"
    )


ENDPOINTS = {
    "triples": "unknown:unknown:10.128.0.11,unknown:unknown:10.128.0.12,unknown:unknown:10.128.0.13",
    "names": "t1v-n-0,t1v-n-1,t1v-n-2",
}
SLICES_IN_METADATA = "ACCELERATOR_TYPE: 'v5p-8'\n" + "".join(f"{k}: '{v}'\n" for k, v in TWO_SLICES.items())


@pytest.mark.parametrize(
    ("endpoints", "tpu_env", "variables"),
    [
        *itertools.product(ENDPOINTS, ("TYPE: 'V5P'\nWORKER_ID: '2'\n", SLICES_IN_METADATA), ({},)),
        ("names", SLICES_IN_METADATA, {"MEGASCALE_SLICE_ID": "0"}),
    ],
)
def test_a_tpu_vm_gives_the_place_that_jax_finds(
    endpoints, tpu_env, variables, metadata, on_tpu, monkeypatch
):
    metadata.attributes = {
        "agent-worker-number": "2",
        "worker-network-endpoints": ENDPOINTS[endpoints],
        "tpu-env": tpu_env,
    }
    variables = {"GCE_METADATA_IP": metadata.address, **variables}
    place = find_processes(AUTO, variables)
    assert (place.coordinator, place.count, place.index) == found_by_jax(variables, monkeypatch)
    assert place.found_in == "TPU VM metadata"
    assert set(metadata.asked[:3]) == {"agent-worker-number", "worker-network-endpoints", "tpu-env"}


def test_the_hosts_are_named_where_one_slice_is_all():
    variables = {"TPU_PROCESS_ADDRESSES": "a:1,b:1", "TPU_WORKER_ID": "0"}
    assert find_processes(AUTO, variables).names == ("a", "b")
    assert find_processes(AUTO, variables | TWO_SLICES).names == ()


def test_chips_are_seen_where_jax_sees_them(tmp_path, monkeypatch):
    """A network card of the same maker, as every machine of Google Cloud has one, is no chip."""

    def bus(name: str, *devices: tuple[str, str]):
        for number, (vendor, device) in enumerate(devices):
            folder = tmp_path / name / f"0000:00:0{number}.0"
            folder.mkdir(parents=True)
            (folder / "vendor").write_text(vendor + "\n")
            (folder / "device").write_text(device + "\n")
        return tmp_path / name

    by_id = [("0x1ae0", device) for device in hardware_utils._TPU_PCI_DEVICE_IDS]
    buses = [
        bus("none"),
        bus("network", ("0x1ae0", "0x0042"), ("0x8086", "0x0063")),
        *(bus(f"chip {number}", ("0x1ae0", "0x0042"), chip) for number, chip in enumerate(by_id)),
    ]
    seen = []
    for folder in buses:
        monkeypatch.setattr(
            hardware_utils.glob, "glob", lambda _, folder=folder: list(map(str, folder.glob("*/vendor")))
        )
        chips, _ = hardware_utils.num_available_tpu_chips_and_device_id()
        assert tpu_chips_attached(folder) == bool(chips)
        seen.append(bool(chips))
    assert seen == [False, False] + [True] * len(by_id)


# ── one process alone ────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "variables",
    [
        {},
        {"TPU_WORKER_HOSTNAMES": "localhost", "TPU_WORKER_ID": "0"},  # Colab
        {"TPU_WORKER_HOSTNAMES": "", "TPU_WORKER_ID": "0"},
        {"TPU_WORKER_HOSTNAMES": "localhost"},
        {"JAX_NUM_PROCESSES": "1"},
        {"JAX_COORDINATOR_ADDRESS": "h:1", "JAX_NUM_PROCESSES": "1", "JAX_PROCESS_ID": "0"},
        {"JAX_COORDINATOR_ADDRESS": "h:1", "TPU_WORKER_HOSTNAMES": "localhost", "TPU_WORKER_ID": "0"},
    ],
)
def test_one_process_is_alone(variables, without_chips):
    assert find_processes(AUTO, variables) is None


def test_the_network_is_not_asked_where_no_chip_is_attached(without_chips):
    assert find_processes(AUTO, {}) is None
    assert metadata_server({}) is None


def test_a_machine_without_chips_is_told_in_no_time():
    """With the variables and the bus of the machine that runs the tests."""
    start = time.monotonic()
    find_processes(AUTO, {})
    assert time.monotonic() - start < 1


def test_metadata_are_not_asked_where_that_is_switched_off(metadata, on_tpu):
    metadata.attributes["agent-worker-number"] = "0"
    variables = {"GCE_METADATA_IP": metadata.address, "TPU_SKIP_MDS_QUERY": "1"}
    assert find_processes(AUTO, variables) is None
    assert metadata.asked == []


def test_a_tpu_vm_of_one_host_is_one_process(metadata, on_tpu):
    metadata.attributes = {
        "agent-worker-number": "0",
        "worker-network-endpoints": "unknown:unknown:10.0.0.1",
        "tpu-env": "",
    }
    assert find_processes(AUTO, {"GCE_METADATA_IP": metadata.address}) is None


def test_chips_without_a_metadata_server_are_one_process(on_tpu):
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        start = time.monotonic()
        address = f"127.0.0.1:{nobody.getsockname()[1]}"
        assert find_processes(AUTO, {"GCE_METADATA_IP": address}) is None
    assert time.monotonic() - start < 2


def test_chips_of_a_machine_without_those_attributes_are_one_process_and_asked_once(metadata, on_tpu):
    assert find_processes(AUTO, {"GCE_METADATA_HOST": metadata.address}) is None
    assert metadata.asked == ["agent-worker-number"]


def test_a_metadata_server_that_is_busy_is_asked_again(metadata, on_tpu):
    metadata.attributes = {"agent-worker-number": "1", "worker-network-endpoints": "a,b"}
    metadata.broken = 2
    assert find_processes(AUTO, {"GCE_METADATA_IP": metadata.address}).index == 1


def test_no_proxy_stands_between_a_machine_and_its_metadata(metadata, on_tpu, monkeypatch):
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    metadata.attributes = {"agent-worker-number": "1", "worker-network-endpoints": "a,b"}
    assert find_processes(AUTO, {"GCE_METADATA_IP": metadata.address}).count == 2


def test_where_the_metadata_are(monkeypatch):
    monkeypatch.setattr(environment, "tpu_chips_attached", lambda: True)
    assert metadata_server({}).address == "169.254.169.254"
    assert metadata_server({"GCE_METADATA_HOST": "here:1"}).address == "here:1"
    assert metadata_server({"TPU_SKIP_MDS_QUERY": "1"}) is None
    assert metadata_server({"TPU_SKIP_MDS_QUERY": "1", "GCE_METADATA_HOST": "here:1"}).address == "here:1"


# ── given ────────────────────────────────────────────────────────────────────

ALL_GIVEN = {"JAX_COORDINATOR_ADDRESS": "h:1234", "JAX_NUM_PROCESSES": "4", "JAX_PROCESS_ID": "3"}
TPU = GKE["hostnames"]


@pytest.mark.parametrize(
    ("given", "variables", "expected"),
    [
        ({"coordinator": "c:1", "count": 2, "index": 0}, ALL_GIVEN | TPU, ("c:1", 2, 0, "the configuration")),
        ({"index": 0}, ALL_GIVEN | TPU, ("h:1234", 4, 0, "the configuration")),
        ({"coordinator": "c:1"}, ALL_GIVEN | TPU, ("c:1", 4, 3, "the configuration")),
        ({"coordinator": "c:1", "count": 1}, {}, ("c:1", 1, 0, "the configuration")),
        ({}, ALL_GIVEN | TPU, ("h:1234", 4, 3, "JAX_COORDINATOR_ADDRESS")),
        ({}, {"JAX_COORDINATOR_ADDRESS": "h:1"} | TPU, ("h:1", 4, 2, "JAX_COORDINATOR_ADDRESS")),
        ({}, {"JAX_PROCESS_ID": "1"} | TPU, ("job-0.svc:8482", 4, 1, "JAX_PROCESS_ID")),
    ],
)
def test_what_is_given_goes_before_what_is_found(given, variables, expected, without_chips):
    place = find_processes(ProcessesConfig(**given), variables)
    assert (place.coordinator, place.count, place.index, place.found_in) == expected


@pytest.mark.parametrize(
    "given", [{"coordinator": "none"}, {"coordinator": "none", "count": 1}, {"count": 1}]
)
def test_none_and_a_count_of_one_are_one_process_wherever_it_runs(given, without_chips):
    assert find_processes(ProcessesConfig(**given), dict(TPU)) is None
    assert find_processes(ProcessesConfig(**given), {"JAX_PROCESS_ID": "0"}) is None


def test_a_place_that_jax_takes(monkeypatch):
    assert find_processes(AUTO, ALL_GIVEN) == Place("h:1234", 4, 3, "JAX_COORDINATOR_ADDRESS")


# ── what cannot be ───────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("given", "variables", "line"),
    [
        (
            {"coordinator": "c:1"},
            {},
            "sharding.processes: given without count and index; several processes need coordinator, count and "
            "index; set sharding.processes.count or JAX_NUM_PROCESSES, sharding.processes.index or JAX_PROCESS_ID",
        ),
        (
            {"count": 2, "index": 1},
            dict(TPU),
            "sharding.processes: given without coordinator; several processes need coordinator, count and "
            "index; set sharding.processes.coordinator or JAX_COORDINATOR_ADDRESS",
        ),
        (
            {},
            {"JAX_COORDINATOR_ADDRESS": "h:1", "JAX_PROCESS_ID": "1"},
            "JAX_COORDINATOR_ADDRESS and JAX_PROCESS_ID: given without count; several processes need "
            "coordinator, count and index; set JAX_NUM_PROCESSES",
        ),
        (
            {"coordinator": "none", "count": 2},
            {},
            "sharding.processes: coordinator=none with count=2; none is one process alone; give the "
            "coordinator as host:port or leave out count=2",
        ),
        (
            {"coordinator": "c:1", "count": 2, "index": 2},
            {},
            "sharding.processes.index: 2 with 2 processes; they count from 0 to 1; give each its own number",
        ),
        (
            {"count": 1, "index": 1},
            {},
            "sharding.processes.index: 1 with 1 processes; they count from 0 to 0; give each its own number",
        ),
        (
            {},
            ALL_GIVEN | {"JAX_PROCESS_ID": "4"},
            "JAX_PROCESS_ID: 4 with 4 processes; they count from 0 to 3; give each its own number",
        ),
        (
            {},
            ALL_GIVEN | {"JAX_PROCESS_ID": "three"},
            "JAX_PROCESS_ID: 'three' is no whole number from 0; give a number or leave it out",
        ),
        (
            {},
            ALL_GIVEN | {"JAX_NUM_PROCESSES": "-4"},
            "JAX_NUM_PROCESSES: '-4' is no whole number from 0; give a number or leave it out",
        ),
        (
            {},
            ALL_GIVEN | {"JAX_NUM_PROCESSES": "0"},
            "JAX_NUM_PROCESSES: 0 processes; give 1 or more",
        ),
        *(
            (
                {"coordinator": coordinator, "count": 2, "index": 0},
                {},
                f"sharding.processes.coordinator: '{coordinator}' is not host:port with a port from 1 to "
                "65534; write it such as host-0:8482",
            )
            for coordinator in ("host-0", "host-0:", ":8482", "host-0:http", "host-0:65535", "host-0:0")
        ),
        (
            {},
            ALL_GIVEN | {"JAX_COORDINATOR_ADDRESS": "h"},
            "JAX_COORDINATOR_ADDRESS: 'h' is not host:port with a port from 1 to 65534; write it such as host-0:8482",
        ),
        (
            {},
            TPU | {"JAX_COORDINATOR_PORT": "x"},
            "GKE (TPU_WORKER_HOSTNAMES) with port x: 'job-0.svc:x' is not host:port with a port from 1 to "
            "65534; write it such as host-0:8482",
        ),
        (
            {},
            {"TPU_WORKER_HOSTNAMES": "a,,b", "TPU_WORKER_ID": "0"},
            "TPU_WORKER_HOSTNAMES: entry 2 of 3 in 'a,,b' names no host; host names are separated by one "
            "comma each; name every host",
        ),
        (
            {},
            {"TPU_WORKER_HOSTNAMES": "a,b"},
            "TPU_WORKER_ID: not set, with 2 hosts in TPU_WORKER_HOSTNAMES; set it to the place of this host in "
            "the list, from 0",
        ),
        (
            {},
            TPU | {"TPU_WORKER_ID": "4"},
            "TPU_WORKER_ID: 4 with 4 processes; they count from 0 to 3; give each its own number",
        ),
        (
            {},
            TPU | {"TPU_WORKER_ID": "one"},
            "TPU_WORKER_ID: 'one' is no whole number from 0; give a number or leave it out",
        ),
        (
            {},
            TPU | {"MEGASCALE_NUM_SLICES": "2", "MEGASCALE_SLICE_ID": "1"},
            "MEGASCALE_COORDINATOR_ADDRESS: not set, with 2 slices; each slice needs it; set it, or "
            "sharding.processes to coordinator, count and index",
        ),
        (
            {},
            TPU | TWO_SLICES | {"MEGASCALE_SLICE_ID": ""},
            "MEGASCALE_SLICE_ID: not set, with 2 slices; each slice needs it; set it, or sharding.processes to "
            "coordinator, count and index",
        ),
        (
            {},
            TPU | TWO_SLICES | {"MEGASCALE_SLICE_ID": "2"},
            "MEGASCALE_SLICE_ID: 2 with 2 slices; they count from 0 to 1; give each its own number",
        ),
        (
            {},
            TPU | TWO_SLICES | {"MEGASCALE_NUM_SLICES": "two"},
            "MEGASCALE_NUM_SLICES: 'two' is no whole number from 0; give a number or leave it out",
        ),
    ],
)
def test_what_cannot_be_is_one_line_that_names_it(given, variables, line, without_chips):
    with pytest.raises(ConfigError) as error:
        find_processes(ProcessesConfig(**given), variables)
    assert str(error.value) == line


def test_metadata_that_cannot_be_read_are_named(metadata, on_tpu):
    variables = {"GCE_METADATA_IP": metadata.address}
    metadata.attributes = {"agent-worker-number": "1"}
    with pytest.raises(MachineError) as missing:
        find_processes(AUTO, variables)
    assert str(missing.value) == (
        "TPU VM metadata: agent-worker-number without worker-network-endpoints; both are needed; run again, "
        "or give sharding.processes.coordinator, count and index"
    )
    metadata.attributes["worker-network-endpoints"] = "a:b,c:d"
    with pytest.raises(ConfigError) as form:
        find_processes(AUTO, variables)
    assert str(form.value) == (
        "TPU VM metadata worker-network-endpoints: 'a:b' in 'a:b,c:d' is neither a host nor name:id:address; "
        "give sharding.processes coordinator, count and index"
    )
    metadata.attributes |= {"worker-network-endpoints": "a,b", "agent-worker-number": "2"}
    with pytest.raises(ConfigError) as index:
        find_processes(AUTO, variables)
    assert str(index.value) == (
        "TPU VM metadata agent-worker-number: 2 with 2 processes; they count from 0 to 1; give each its own number"
    )
