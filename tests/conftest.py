"""Eight virtual CPU devices, one cache of programs, checks of shapes, the place of real data, for all tests."""

import gc
import os
import signal
import sys
import tempfile

from tests.compiling import keep_libtpu_from_profiler, read_flags

read_flags(devices=8)
keep_libtpu_from_profiler()
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ["ALLOW_MULTIPLE_LIBTPU_LOAD"] = "1"  # workers compile for TPUs side by side
# Workers fill the machine already: NumPy's and PyTorch's threads beside them wait for each other.
for threads in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(threads, "1")

# Compiling is most of what the tests do. What one of them has compiled, the others and the processes that they
# start read from a folder that lives as long as the first process, whose environment the workers inherit.
if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
    _COMPILED = tempfile.TemporaryDirectory(prefix="jaxlingua-compiled-", ignore_cleanup_errors=True)
    os.chmod(_COMPILED.name, 0o777)  # also for somebody without rights
    os.environ["JAX_COMPILATION_CACHE_DIR"] = _COMPILED.name
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
    os.environ["JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES"] = "-1"
# What else one worker makes for all of them lies in a folder that is gone with this run, as the code may be.
if "JAXLINGUA_TESTS_MADE" not in os.environ:
    _MADE = tempfile.TemporaryDirectory(prefix="jaxlingua-made-", ignore_cleanup_errors=True)
    os.environ["JAXLINGUA_TESTS_MADE"] = _MADE.name
# The programs are small and run a few times: compiled in a hurry, they are done sooner.
os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")

# A shell that starts the tests in its background has them ignore Ctrl-C, and so all that they start.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

from pathlib import Path

import jaxtyping
import pytest
from hypothesis import HealthCheck, settings

# How long an example takes to draw goes by what else the machine does.
settings.register_profile("jaxlingua", suppress_health_check=[HealthCheck.too_slow], deadline=None)
settings.load_profile("jaxlingua")

# Shapes and types are checked where arrays are computed with. Checked everywhere, each call of the data's small
# functions costs more than what it does: the tests of data took two and a half times as long.
_CHECKED = ("model", "sharding", "train", "generate")
jaxtyping.install_import_hook([f"jaxlingua.{package}" for package in _CHECKED], "beartype.beartype")


@pytest.hookimpl(tryfirst=True)  # before pytest-xdist reads the marks
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """One worker takes all tests of a file, so that what they share is made, traced and compiled once."""
    for item in items:
        if item.get_closest_marker("xdist_group") is None:
            item.add_marker(pytest.mark.xdist_group(item.location[0]))


def pytest_collection_finish() -> None:
    """What is imported stays: searched for garbage over and over, it cost a fifteenth of the time to trace."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(100_000, 50, 100)


# Compiled programs of all tests that a worker has run; one that kept them all came to 9 GB.
_MOST_BYTES = 2 << 30


@pytest.fixture(scope="session")
def traceable():
    """Steps can be traced also in a worker that has compiled for TPUs, since its libtpu is kept from the profiler."""
    from jaxlingua.tracking import trace

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trace, "MAPS", Path(os.devnull))
        yield


@pytest.fixture(autouse=True, scope="module")
def compiled_programs_are_let_go():
    """After a module whose worker has become large, JAX forgets what it has compiled."""
    yield
    memory = Path("/proc/self/statm")
    pages = int(memory.read_text().split()[1]) if memory.is_file() else 0
    if "jax" in sys.modules and pages * os.sysconf("SC_PAGE_SIZE") > _MOST_BYTES:
        sys.modules["jax"].clear_caches()
        gc.collect()


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of real multilingual data; the tests that need it are skipped where it is absent."""
    default = Path(__file__).parents[2] / "shared" / "data"
    folder = Path(os.environ.get("JAXLINGUA_TEST_DATA", default))
    if not folder.is_dir():
        pytest.skip(f"{folder} is absent; set JAXLINGUA_TEST_DATA to run the tests on real data")
    return folder
