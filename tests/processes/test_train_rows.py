"""Two real processes of four devices each train as one process of eight does, each building half of the rows."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np

from tests.processes.train_rows import train_rows
from tests.train.world import FP32_STEPS

ROOT = Path(__file__).parents[2]


def test_two_processes_train_as_one_and_each_builds_only_its_rows():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    command = [sys.executable, "-m", "tests.processes.train_rows", port, "2"]
    running = [
        subprocess.Popen(
            [*command, process], cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )
        for process in ("0", "1")
    ]  # fmt: skip
    alone = train_rows()
    try:
        outputs = [process.communicate(timeout=300) for process in running]
    finally:
        for process in running:
            process.kill()
    told = []
    for process, (out, err) in zip(running, outputs, strict=True):
        assert process.returncode == 0, err[-2000:]
        told.append(
            json.loads(next(line for line in out.splitlines() if "TOLD" in line).split("TOLD ", 1)[1])
        )
    assert [one["asked"] for one in told] == [[[0, 8]] * 3, [[8, 16]] * 3]
    for one in told:
        np.testing.assert_allclose(one["losses"], alone["losses"], rtol=FP32_STEPS)
    assert alone["losses"][2] < alone["losses"][0]
