"""Runs a module of this package in two real processes, and collects what each tells."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]


def run_together(module: str, *arguments: object) -> list[Any]:
    """`python -m MODULE PORT 2 PROCESS ARGUMENTS` twice; the JSON behind TOLD of each process."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    running = [
        subprocess.Popen(
            [sys.executable, "-m", module, port, "2", process, *map(str, arguments)],
            cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )
        for process in ("0", "1")
    ]  # fmt: skip
    try:
        outputs = [process.communicate(timeout=300) for process in running]
    finally:
        for process in running:
            process.kill()
    told = []
    for process, (out, err) in zip(running, outputs, strict=True):
        assert process.returncode == 0, err[-2000:]
        line = next(line for line in out.splitlines() if "TOLD" in line)
        told.append(json.loads(line.split("TOLD ", 1)[1]))
    return told
