"""The launch path from a cloud without a TPU to a run here and the cloud without a TPU again, on simulated hosts.

The hosts are folders; what runs on them is the package that was sent there, in two processes that train together.
"""

import json
import shutil

import pytest

from tests.cloud import AT, REAL_PYTHON, ROOT, Cloud
from tests.flow.small import CONFIG, write_config
from tests.processes.members import free_port


@pytest.mark.slow
def test_two_hosts_from_nothing_to_a_run_here(tmp_path):
    cloud = Cloud(tmp_path, REAL_PYTHON)
    for folder in ("jaxlingua", "configs", "tpu"):
        shutil.copytree(ROOT / folder, cloud.clone / folder, ignore=shutil.ignore_patterns("__pycache__"))
    for file in ("pyproject.toml", "README.md"):
        shutil.copy(ROOT / file, cloud.clone)
    stages = [{"name": "coit", "mixture": {"phrases": {}}, "steps": 4}]
    tasks = CONFIG["eval"] | {"tasks": ["phrases.eng_Latn-ell_Grek"]}
    write_config(cloud.clone / "configs" / "small.yaml", run={}, stages=stages, eval=tasks)
    cloud.commit()
    variables = {
        "HOSTS": "2",
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": "--xla_force_host_platform_device_count=1",
        "JAX_COORDINATOR_ADDRESS": f"127.0.0.1:{free_port()}",
        "JAXLINGUA_CACHE": str(tmp_path / "cache"),
    }
    shared = tmp_path / "shared" / "mine"

    def done(script: str, *arguments: str, code: int = 0) -> str:
        ended = cloud.run(script, *arguments, **variables)
        assert ended.returncode == code, (script, ended.stdout, ended.stderr)
        return ended.stdout

    done("create", *AT, "--topology", "v5e:4x4")
    assert done("setup", *AT).count("A run could start.") == 2
    config = ("--config", "configs/small.yaml", f"run.folder={shared}", "run.platform=cpu")
    done("launch", *AT, *config)
    told = done("logs", *AT)
    assert "2 processes" in told, told
    assert str(shared / "report.html") in told
    done("launch", *AT, *config, "run.seed=5")
    done("logs", *AT, code=2)  # another run: refused, and the exit code comes through

    done("fetch", *AT, "--run", str(shared), "--to", "here")
    run = tmp_path / "here" / "mine"
    assert len(json.loads((run / "report.json").read_text("utf-8"))["scores"]) > 0
    provenance = json.loads((run / "provenance.json").read_text("utf-8"))
    assert len(provenance["git_commit"]) == 40
    assert not (run / "checkpoints").exists()
    done("delete", *AT, "--yes")
    assert not [*(tmp_path / "tpu-vm").iterdir(), *(tmp_path / "queued-resources").iterdir()]
