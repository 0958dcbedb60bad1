"""Processes of one run that do not see the same: each ends with one line, and nothing is trained or moved."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.compiling import xla_flags
from tests.flow.small import CONFIG, write_config
from tests.processes.members import free_port
from tests.processes.together import ROOT


def run_pair(config: Path, *overrides: str, homes: tuple[Path, Path], port: int = 0) -> list[tuple[int, str]]:
    """The command as two processes, each started in a folder of its own: exit code and stderr of both."""
    given = [f"sharding.processes.coordinator=127.0.0.1:{port or free_port()}", "sharding.processes.count=2"]
    command = [sys.executable, "-m", "jaxlingua.train", str(config), *given, *overrides]
    running = [
        subprocess.Popen(
            [*command, f"sharding.processes.index={index}"],
            cwd=home, text=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": str(ROOT), "XLA_FLAGS": xla_flags()},
        )
        for index, home in enumerate(homes)
    ]  # fmt: skip
    try:
        ends = [process.communicate(timeout=200)[1] for process in running]
    finally:
        for process in running:
            process.kill()
    told = []
    for process, err in zip(running, ends, strict=True):
        lines = [line for line in err.splitlines() if not line.startswith(("W", "I"))]  # JAX's own
        told.append((process.returncode, "\n".join(lines)))
    return told


@pytest.fixture
def homes(tmp_path: Path) -> tuple[Path, Path]:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    return tmp_path / "a", tmp_path / "b"


@pytest.mark.slow
def test_a_process_that_does_not_see_the_run_folder_ends_all_and_nothing_is_moved(
    tmp_path, homes, monkeypatch
):
    config = write_config(tmp_path / "small.yaml", eval={})
    kept = homes[0] / "run" / "checkpoints" / "8"
    kept.mkdir(parents=True)
    ends = run_pair(config, "run.folder=run", homes=homes)
    assert [code for code, _ in ends] == [1, 1]
    for _, err in ends:
        assert len(err.splitlines()) == 1
        assert f"run.folder: 'run' given, which here is {homes[1]}/run and not the folder of process 0" in err
    assert ends[0][1].startswith("error: process 1 of 2 (")
    assert kept.is_dir()


def test_a_process_that_reads_other_data_ends_all_before_anything_is_trained(tmp_path, homes):
    for home, word in zip(homes, ("late", "slow"), strict=True):
        (home / "news.txt").write_text("".join(f"The train number {n} is {word}.\n" for n in range(80)))
    config = write_config(
        tmp_path / "small.yaml",
        data={"sources": {"news": {"kind": "text", "path": "news.txt", "language": "eng_Latn"}}},
        stages=[{"name": "a", "mixture": "news", "steps": 2}],
        eval={},
        train={**CONFIG["train"], "batch_rows": 8},
    )
    ends = run_pair(config, homes=homes)
    assert [code for code, _ in ends] == [2, 2]
    for _, err in ends:
        assert len(err.splitlines()) == 1
        assert "process 1 has read other content than process 0; all processes need the same data" in err
    assert not (tmp_path / "run" / "metrics.jsonl").exists()


def test_a_port_that_another_program_has_is_told_in_one_line(tmp_path, homes):
    config = write_config(tmp_path / "small.yaml", eval={})
    with socket.create_server(("", 0)) as other:
        ends = run_pair(config, homes=homes, port=other.getsockname()[1])
    assert [code for code, _ in ends] == [1, 1]
    own = [line for line in ends[0][1].splitlines() if line.startswith("error: ")]
    assert len(own) == 1
    assert "sharding.processes.coordinator: JAX cannot start at 127.0.0.1:" in own[0]
    assert own[0].endswith("; end the program that has the port, or give another")
    assert "process 0 of 2 (" in ends[1][1]
    assert "JAX cannot start at" in ends[1][1]
