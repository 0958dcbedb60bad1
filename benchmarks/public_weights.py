"""A public checkpoint in and out: seconds and peak memory, against transformers, in one run.

    python benchmarks/public_weights.py [--preset llama3.2-1b] [--rounds 3] [--folder FOLDER]

A folder of random weights in bfloat16 is written, in files of at most 1 GiB. It is then read by jaxlingua
into float32 parameters, on one device and on eight virtual ones, and written again in bfloat16; the same by
transformers' from_pretrained and save_pretrained; and its files are read, nothing done with them.
Each job has a process of its own, in turns; the peak is the most memory that the process ever had, less what
it had before the job (Linux only). The first round warms the cache of files and counts for memory alone. No
figure is printed unless both have read the same numbers.
"""

import argparse
import importlib.metadata
import json
import os
import platform
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

GIB = 2**30
SHARD_GIB = 1.0
JOBS = {
    "read": "files read, nothing done with them",
    "ours": "jaxlingua, 1 device",
    "ours8": "jaxlingua, 8 virtual devices, fsdp=8",
    "theirs": "transformers",
}


def make_folder(folder: Path, preset: str) -> None:
    """Random weights of the preset's sizes, in bfloat16."""
    import ml_dtypes
    import numpy as np

    from jaxlingua.checkpoint.huggingface.config_json import config_fields
    from jaxlingua.checkpoint.huggingface.safetensors_file import INDEX, plan_shards, write_file, write_index
    from jaxlingua.checkpoint.huggingface.tensors import axis_sizes, places
    from jaxlingua.model.presets import PRESETS

    config, dtype, rng = PRESETS[preset], np.dtype(ml_dtypes.bfloat16), np.random.default_rng(0)
    ids = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": None}
    fields = config_fields(config, vocab_size=config.vocab_size, dtype="bfloat16", special_ids=ids)
    (folder / "config.json").write_text(json.dumps(fields))
    sizes = axis_sizes(config, config.vocab_size)
    shapes = {place.name: place.layout.shape(sizes) for place in places(config)}
    shards = plan_shards(shapes, dtype, int(SHARD_GIB * GIB))
    for file, names in shards:
        of_file = {name: shapes[name] for name in names}
        drawn = (rng.standard_normal(shape, np.float32) * 0.02 for shape in of_file.values())
        write_file(folder / file, of_file, dtype, (array.astype(dtype) for array in drawn))
    if len(shards) > 1:
        write_index(folder / INDEX, shards, 2 * sum(int(np.prod(shape)) for shape in shapes.values()))


# ── jobs, each in a process of its own ────────────────────────────────────────────────────────────────────


def peak_gib() -> float:
    """The most memory that this process ever had. (ru_maxrss would be that of the process it came from.)"""
    status = Path("/proc/self/status").read_text()
    return int(re.search(r"VmHWM:\s+(\d+) kB", status)[1]) / 2**20


def read_files(folder: Path, out: Path) -> dict[str, Any]:
    buffer = bytearray(16 * 2**20)
    begun = time.perf_counter()
    for path in sorted(folder.glob("*.safetensors")):
        with path.open("rb", buffering=0) as file:
            while file.readinto(buffer):
                pass
    return {"in": time.perf_counter() - begun}


def ours(folder: Path, out: Path) -> dict[str, Any]:
    import jax
    import jax.numpy as jnp

    from jaxlingua.checkpoint.huggingface.export import write_weights
    from jaxlingua.checkpoint.huggingface.model import load_params, open_model
    from jaxlingua.config import ShardingConfig
    from jaxlingua.model.llama import Llama
    from jaxlingua.sharding.mesh import make_mesh

    mesh, public = make_mesh(ShardingConfig()), open_model(str(folder))
    model = Llama(public.config)
    before, begun = peak_gib(), time.perf_counter()
    params = jax.block_until_ready(load_params(public, model, mesh))
    told = {"in": time.perf_counter() - begun, "peak": peak_gib() - before}
    leaves = jax.tree.leaves(params)
    told["target"] = sum(leaf.nbytes for leaf in leaves) / GIB
    told["sum"] = sum(float(jnp.abs(leaf).mean(dtype=jnp.float32)) * leaf.size for leaf in leaves)
    begun = time.perf_counter()
    options = {"dtype": "bfloat16", "shard_gib": SHARD_GIB, "mesh": mesh}
    write_weights(out, params, public.config, public.fields, **options)
    return told | {"out": time.perf_counter() - begun, "peak_out": peak_gib() - before}


def theirs(folder: Path, out: Path) -> dict[str, Any]:
    import torch
    from transformers import LlamaForCausalLM
    from transformers.utils import logging

    logging.disable_progress_bar()
    torch.zeros(1)
    before, begun = peak_gib(), time.perf_counter()
    model = LlamaForCausalLM.from_pretrained(folder, dtype=torch.float32)
    # Some loaders leave the work to the first use of a weight.
    total = sum(float(weight.detach().abs().mean()) * weight.numel() for weight in model.parameters())
    told = {"in": time.perf_counter() - begun, "peak": peak_gib() - before, "sum": total}
    told["target"] = sum(weight.nbytes for weight in model.parameters()) / GIB
    begun = time.perf_counter()
    model.to(torch.bfloat16).save_pretrained(out, max_shard_size=int(SHARD_GIB * GIB))
    return told | {"out": time.perf_counter() - begun, "peak_out": peak_gib() - before}


def in_a_process(job: str, folder: Path) -> dict[str, Any]:
    """What `job` tells; what it writes is removed."""
    out = folder.parent / "out"
    out.mkdir()
    environment = os.environ | {"JAX_PLATFORMS": "cpu", "HF_HUB_OFFLINE": "1"}
    if job == "ours8":
        environment["XLA_FLAGS"] = "--xla_force_host_platform_device_count=8"
    done = subprocess.run(
        [sys.executable, __file__, "--job", job.rstrip("8"), "--folder", str(folder), "--out", str(out)],
        capture_output=True, text=True, env=environment,
    )  # fmt: skip
    shutil.rmtree(out)
    if done.returncode:
        sys.exit(done.stderr)
    return json.loads(done.stdout.splitlines()[-1])


# ── the table ─────────────────────────────────────────────────────────────────────────────────────────────


def table(told: dict[str, list[dict[str, Any]]], largest_shard: float) -> list[str]:
    """A line per job: medians of seconds, the greatest of peaks, ratios to reading and to transformers."""

    def median(job: str, key: str) -> float:
        return statistics.median(one[key] for one in told[job][1:] or told[job])

    def peak(job: str, key: str) -> float:
        return max(one[key] for one in told[job])

    lines = [
        "| job | import | × reading the files | × transformers | peak of the import | allowed | export | "
        "× transformers | peak with the export |",
        "|---|---|---|---|---|---|---|---|---|",
        f"| {JOBS['read']} | {median('read', 'in'):.2f} s | 1 | | | | | | |",
    ]
    for job in ("ours", "ours8", "theirs"):
        seconds, out = median(job, "in"), median(job, "out")
        ratio = f"{seconds / median('theirs', 'in'):.2f}" if job != "theirs" else "1"
        ratio_out = f"{out / median('theirs', 'out'):.2f}" if job != "theirs" else "1"
        allowed = told[job][0]["target"] + 1.3 * largest_shard
        lines.append(
            f"| {JOBS[job]} | {seconds:.2f} s | {seconds / median('read', 'in'):.1f} | {ratio} | "
            f"{peak(job, 'peak'):.2f} GiB | {allowed:.2f} GiB | {out:.2f} s | {ratio_out} | "
            f"{peak(job, 'peak_out'):.2f} GiB |"
        )
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--preset", default="llama3.2-1b")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument(
        "--folder", type=Path, help="where to write the weights; a temporary folder if absent"
    )
    parser.add_argument("--job", help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.job:
        run = {"read": read_files, "ours": ours, "theirs": theirs}[options.job]
        print(json.dumps(run(options.folder, options.out)))
        return
    if options.folder:
        options.folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=options.folder) as home:
        folder = Path(home) / "public"
        folder.mkdir()
        make_folder(folder, options.preset)
        files = [path.stat().st_size for path in folder.glob("*.safetensors")]
        told = {job: [] for job in JOBS}
        for _ in range(options.rounds + 1):
            for job in JOBS:
                told[job].append(in_a_process(job, folder))
    sums = [told[job][0]["sum"] for job in ("ours", "ours8", "theirs")]
    if max(sums) - min(sums) > 1e-3 * max(sums):
        sys.exit(f"the weights differ: {sums}; no figure is printed")
    print("\n".join(table(told, max(files) / GIB)))
    packages = ("jaxlingua", "jax", "torch", "transformers", "safetensors")
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in packages[1:])
    print(
        f"\n{options.preset}: {sum(files) / GIB:.2f} GiB in {len(files)} files of at most "
        f"{max(files) / GIB:.2f} GiB in bfloat16, float32 in memory; allowed: float32 weights and 1.3 "
        f"times the largest file. "
        f"{os.cpu_count()} cores, Python {platform.python_version()}, {versions}; "
        f"{options.rounds} rounds after one to warm up, medians of seconds, greatest of peaks"
    )


if __name__ == "__main__":
    main()
