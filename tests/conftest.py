"""Eight virtual CPU devices, shape checks at run time, and the place of real data, set once for all tests."""

import os

os.environ["XLA_FLAGS"] = os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=8"
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ["ALLOW_MULTIPLE_LIBTPU_LOAD"] = "1"  # workers compile for TPUs side by side

from pathlib import Path

import jaxtyping
import pytest

jaxtyping.install_import_hook("jaxlingua", "beartype.beartype")


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of real multilingual data; the tests that need it are skipped where it is absent."""
    default = Path(__file__).parents[2] / "shared" / "data"
    folder = Path(os.environ.get("JAXLINGUA_TEST_DATA", default))
    if not folder.is_dir():
        pytest.skip(f"{folder} is absent; set JAXLINGUA_TEST_DATA to run the tests on real data")
    return folder
