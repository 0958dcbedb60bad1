"""Adapters on one CPU: LoRA, DoRA and QLoRA against full tuning and against peft with PyTorch, in one run.

    python benchmarks/lora_cpu.py [--rounds 12] [--threads 4] [--dtype float32]

Rank 16 on the seven projections. transformers draws the base and peft the first adapters; both write their
folders, and both sides read them: ours as `python -m jaxlingua.train` does, theirs as PeftModel does, for
QLoRA with the base in bitsandbytes' types. Every training has a process of its own and takes a step only when
told to, in turns, on the same whole rows, so that two pools of threads never compete. No ratio to the peer is
printed unless the first losses agree; LLM.int8(), which is what bitsandbytes' int8 is, rounds activations
too and so is another computation, of which the time is told and no ratio.

Memory is told in three ways: the arrays by what they are for; what XLA says that its program of a step
needs, arguments included (ours alone); and the peak of the process during the steps, less what it held when
its imports were done.

Linux only: cores are given out with sched_setaffinity, and peaks are read from /proc.
"""

import argparse
import contextlib
import ctypes
import importlib.metadata
import os
import platform
import re
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from cpu_trainers import LEARNING_RATE, Run
from train_cpu import cpu_model, interval, measure, start

SIDES = ("ours", "theirs")
FULL = "full tuning"
# By name: of `model.lora` what is not "auto", and how bitsandbytes loads the peer's base.
TRAININGS: dict[str, tuple[dict[str, Any] | None, dict[str, Any] | None]] = {
    FULL: (None, None),
    "LoRA": ({}, None),
    "DoRA": ({"dora": True}, None),
    "QLoRA, int8": ({"base": "int8"}, {"load_in_8bit": True}),
    "QLoRA, nf4": ({"base": "nf4"}, {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4"}),
}
OTHER_COMPUTATION = ("QLoRA, int8",)  # of the peer
TOLERANCES = {"float32": 1e-4, "bfloat16": 2e-2}  # of the first losses
RANK = 16
MODULES = [f"{name}_proj" for name in ("q", "k", "v", "o", "gate", "up", "down")]
PARTS = ("frozen", "trained", "optimizer")


class Sizes(NamedTuple):
    """The model and the batch."""

    vocab: int = 4096
    embed: int = 512
    layers: int = 8
    heads: int = 8
    mlp: int = 1408
    rows: int = 4
    row_length: int = 256


# One head: blocks of bitsandbytes have 64 numbers, ours no more than a head.
TINY = Sizes(vocab=64, embed=64, layers=2, heads=1, mlp=128, rows=2, row_length=32)


def draw(sizes: Sizes) -> np.ndarray:
    """Whole rows of random tokens, with one more for the last target."""
    rows = np.random.default_rng(0).integers(3, sizes.vocab, (sizes.rows, sizes.row_length + 1))
    return rows.astype(np.int32)


def write_folders(sizes: Sizes, home: Path) -> None:
    """The base and the first adapters, as transformers and peft write them.

    Matrices are numbers of bfloat16 in float32, so that the embedding and the head of a base in fewer bits
    are the same numbers on both sides.
    """
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=sizes.vocab, hidden_size=sizes.embed, intermediate_size=sizes.mlp,
            num_hidden_layers=sizes.layers, num_attention_heads=sizes.heads, rms_norm_eps=1e-5,
            max_position_embeddings=2048, tie_word_embeddings=False,
        )
    )  # fmt: skip
    model = model.bfloat16().float()
    model.save_pretrained(home / "base")
    for dora in (False, True):
        settings = LoraConfig(
            r=RANK, lora_alpha=2 * RANK, target_modules=MODULES, use_dora=dora, task_type="CAUSAL_LM"
        )
        adapted = get_peft_model(model, settings)
        adapted.save_pretrained(home / adapter_name(dora))
        adapted.unload()


def adapter_name(dora: bool) -> str:
    return "dora" if dora else "lora"


def jaxlingua_trainer(sizes: Sizes, name: str, home: Path, dtype: str) -> tuple[Run, dict[str, int]]:
    """The step of `python -m jaxlingua.train` on weights that it reads, and bytes of its parts."""
    import jax

    from jaxlingua import progress
    from jaxlingua.config import Config
    from jaxlingua.model.llama import Llama
    from jaxlingua.sharding.feed import place_rows
    from jaxlingua.sharding.mesh import make_mesh
    from jaxlingua.tokens.batches import Batch
    from jaxlingua.train.objective import Objective
    from jaxlingua.train.optimizer import make_optimizer
    from jaxlingua.train.origin import open_origin
    from jaxlingua.train.state import shardings_of
    from jaxlingua.train.step import make_train_step

    imported = resident_bytes("VmRSS")
    lora, _ = TRAININGS[name]
    model = {
        "init": "huggingface", "path": str(home / "base"), "compute_dtype": dtype, "attention": "blockwise",
        "attention_block_tokens": 128,
    }  # fmt: skip
    if lora is not None:
        model["lora"] = {"adapter": str(home / adapter_name("dora" in lora)), **lora}
    optimizing = {"peak_lr": LEARNING_RATE, "schedule": "constant", "warmup_steps": 0}
    config = Config.model_validate({"model": model, "train": {"remat": "minimal", "optimizer": optimizing}})

    origin, mesh = open_origin(config, home, None), make_mesh(config.sharding)
    llama = Llama(origin.sizes(sizes.vocab))
    optimizer, schedule = make_optimizer(config.train.optimizer, steps=1_000_000)
    state = origin.first_state(
        llama, optimizer, mesh, telling=lambda what: progress.told(lambda line: None, what)
    )
    rows = draw(sizes)
    tokens, targets = rows[:, :-1], rows[:, 1:]
    positions = np.broadcast_to(np.arange(sizes.row_length, dtype=np.int32), tokens.shape)
    ones = np.ones_like(tokens)
    whole = Batch(tokens, targets, ones.astype(bool), positions, ones, np.zeros_like(tokens))
    batch = place_rows(lambda step, start, stop: Batch(*(x[start:stop] for x in whole)), 0, sizes.rows, mesh)
    train_step = make_train_step(
        llama, optimizer, schedule, Objective(sizes.vocab, groups=1, loss_chunk_tokens=8192),
        shardings_of(state),
    )  # fmt: skip
    used = train_step.lower(state, batch).compile().memory_analysis()  # calls find it compiled
    trees = state.frozen, state.params, state.opt_state
    told = {
        part: sum(map(stored_bytes, jax.tree.leaves(tree))) for part, tree in zip(PARTS, trees, strict=True)
    }
    told["program"] = used.argument_size_in_bytes + used.temp_size_in_bytes
    told["program"] += used.output_size_in_bytes - used.alias_size_in_bytes

    def step() -> tuple[float, int]:
        nonlocal state
        state, metrics = train_step(state, batch)
        return float(metrics.loss), int(metrics.target_tokens)

    return answering(step, imported), told


def torch_trainer(
    sizes: Sizes, name: str, home: Path, dtype: str, threads: int
) -> tuple[Run, dict[str, int]]:
    """The loop that one writes with PyTorch, transformers, peft and bitsandbytes, and bytes of its parts."""
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig
    from transformers.utils import logging

    logging.disable_progress_bar()
    imported = resident_bytes("VmRSS")
    torch.set_num_threads(threads)
    lora, loaded = TRAININGS[name]
    compute = getattr(torch, dtype)
    options = {}
    if loaded is not None:
        if "load_in_4bit" in loaded:
            loaded = loaded | {"bnb_4bit_compute_dtype": compute}
        options = {"quantization_config": BitsAndBytesConfig(**loaded), "device_map": "cpu"}
    # Weights that are learned stay float32 beside autocast, as ours do; frozen ones have the type of compute.
    kept = torch.float32 if lora is None else compute
    model = AutoModelForCausalLM.from_pretrained(
        home / "base", dtype=kept, attn_implementation="sdpa", **options
    )
    if lora is not None:
        model = PeftModel.from_pretrained(model, home / adapter_name("dora" in lora), is_trainable=True)
    model.train()
    learned = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(
        learned, lr=LEARNING_RATE, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.0, fused=True
    )
    rows = torch.from_numpy(draw(sizes).astype(np.int64))
    tokens, targets = rows[:, :-1], rows[:, 1:].flatten()

    def step() -> tuple[float, int]:
        with torch.autocast("cpu", torch.bfloat16, enabled=compute == torch.bfloat16):
            logits = model(input_ids=tokens, use_cache=False).logits
        loss = torch.nn.functional.cross_entropy(logits.float().flatten(0, 1), targets)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(learned, 1.0)
        optimizer.step()
        return loss.item(), targets.numel()

    def size(tensors: Any) -> int:
        return sum(tensor.numel() * tensor.element_size() for tensor in tensors)

    trained, whole = size(learned), size(model.state_dict().values())  # with the scales of codes
    # The optimizer makes its two moments in the first step.
    return answering(step, imported), dict(zip(PARTS, (whole - trained, trained, 2 * trained), strict=True))


def stored_bytes(array: Any) -> int:
    """Of an array in JAX; XLA puts two uint4 into a byte, which `nbytes` does not know."""
    import jax.numpy as jnp

    is_integer = jnp.issubdtype(array.dtype, jnp.integer)
    return array.size * (jnp.iinfo(array.dtype).bits if is_integer else 8 * array.dtype.itemsize) // 8


def resident_bytes(name: str) -> int:
    """Of this process now (VmRSS), or at its peak (VmHWM)."""
    return int(re.search(rf"{name}:\s+(\d+) kB", Path("/proc/self/status").read_text())[1]) << 10


def answering(step: Callable[[], tuple[float, int]], imported: int) -> Run:
    """Jobs: "step"; "forget" the peak so far; "peak", with the bytes beyond `imported` instead of tokens."""

    def run(job: str, _: int) -> tuple[float, int]:
        if job == "step":
            return step()
        if job == "forget":
            ctypes.CDLL("libc.so.6").malloc_trim(0)
            Path("/proc/self/clear_refs").write_text("5")  # VmHWM begins again
        return 0.0, resident_bytes("VmHWM") - imported

    return run


def differences(losses: dict[str, list[list[float]]], tolerance: float) -> dict[str, float]:
    """The largest difference of the first losses of each training, ours and theirs.

    Raises: SystemExit if one that should be the same training is not.
    """
    found = {name: float(np.abs(np.diff(pair, axis=0)).max()) for name, pair in losses.items()}
    for name, difference in found.items():
        if name not in OTHER_COMPUTATION and not difference <= tolerance:  # NaN is refused too
            raise SystemExit(
                f"lora_cpu: {name}: the first losses (ours, theirs) {losses[name]} differ by "
                f"{difference:.1e}; {tolerance:g} is allowed, so no ratio is printed"
            )
    return found


def tables(costs: dict[str, np.ndarray], told: dict[str, dict[str, int]], names: list[str]) -> list[str]:
    """Time, CPU time of all cores together, and memory in Markdown.

    Args:
        costs: [rounds, 3] of `measure`, by "ours" or "theirs" and the training.
        told: bytes by the same names.
    """
    lines = []
    for what, unit, column in ("time", "s", 1), ("CPU time", "CPU s", 2):
        lines += [
            f"| {what} of a step | jaxlingua | target tokens per {unit} | over full tuning (95 %) | PyTorch "
            f"| over full tuning (95 %) | ratio ours/theirs (95 %) |",
            "|---|---|---|---|---|---|---|",
        ]
        spent = {job: cost[:, column] for job, cost in costs.items()}
        for name in names:
            ours, theirs = (spent[f"{side} {name}"] for side in SIDES)
            rate = np.median(costs[f"ours {name}"][:, 0] / ours)
            over = [
                "1" if name == FULL else interval(spent[f"{side} {name}"] / spent[f"{side} {FULL}"])
                for side in SIDES
            ]
            lines.append(
                f"| {name} | {np.median(ours):.3f} s | {rate:,.0f} | {over[0]} | {np.median(theirs):.3f} s "
                f"| {over[1]} | {'' if name in OTHER_COMPUTATION else interval(ours / theirs)} |"
            )
        lines.append("")

    def share(side: str, name: str, part: str) -> str:
        of, full = (told[f"{side} {training}"][part] for training in (name, FULL))
        return f"{of / 2**20:,.0f} ({of / full:.2f})"

    lines += [
        "| MiB (over full tuning) | frozen | trained | optimizer | program of a step | peak of the process "
        "| PyTorch: frozen | trained | optimizer | peak of the process |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for name in names:
        ours, theirs = (
            " | ".join(f"{told[f'{side} {name}'][part] / 2**20:,.1f}" for part in PARTS) for side in SIDES
        )
        peaks = [share(side, name, "peak") for side in SIDES]
        lines.append(
            f"| {name} | {ours} | {share('ours', name, 'program')} | {peaks[0]} | {theirs} | {peaks[1]} |"
        )
    return lines


def notes(sizes: Sizes, parameters: int, cores: int, dtype: str, found: dict[str, float]) -> list[str]:
    """All that one needs to judge the tables or to measure them again."""
    import jaxlingua

    packages = ("jax", "torch", "transformers", "peft", "bitsandbytes", "numpy")
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in packages)
    load = os.getloadavg()[0]
    losses = ", ".join(f"{name} {difference:.1e}" for name, difference in found.items())
    return [
        f"- Machine: {cpu_model()}, {cores} cores, load at the end {load:.1f}; {platform.system()} "
        f"{platform.release()}; Python {platform.python_version()}, jaxlingua {jaxlingua.__version__}, "
        f"{versions}",
        f"- Command: `{' '.join(['python', *sys.argv])}`",
        f"- Model: {parameters:,} parameters (width {sizes.embed}, {sizes.layers} layers, "
        f"{sizes.heads} heads, MLP {sizes.mlp}, vocabulary {sizes.vocab:,}, untied head); "
        f"{sizes.rows} whole rows of {sizes.row_length} tokens; rank {RANK} on the seven "
        f"projections; computed in {dtype}; AdamW, gradients clipped at 1; ours with "
        f"remat minimal and attention in blocks of 128",
        f"- The first 3 losses, ours and theirs, differ at most by: {losses}; {TOLERANCES[dtype]:g} is "
        f"allowed",
    ]


def started(
    sizes: Sizes, names: list[str], dtype: str, threads: int, ends: contextlib.ExitStack
) -> tuple[dict[str, Callable], dict[str, dict[str, int]]]:
    """By "ours" or "theirs" and the training: what takes a step, and the bytes of its parts."""
    trainers, told = {}, {}
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        write_folders(sizes, home)
        for name in names:
            print(f"starting {name}, ours and theirs", file=sys.stderr, flush=True)
            builds = (jaxlingua_trainer,), (torch_trainer, threads)
            for side, (build, *more) in zip(SIDES, builds, strict=True):
                job = f"{side} {name}"
                trainers[job], end, told[job] = start(build, sizes, name, home, dtype, *more)
                ends.callback(end)
    return trainers, told


def main() -> None:
    """Write the folders, start all, compare the first losses, measure, print the tables."""
    parser = argparse.ArgumentParser(description="Adapters on one CPU, against full tuning and peft.")
    parser.add_argument("--rounds", type=int, default=12, help="steps of each training")
    parser.add_argument("--threads", type=int, help="cores to use; all of them if not given")
    parser.add_argument("--dtype", choices=TOLERANCES, default="float32", help="what both compute in")
    parser.add_argument(
        "--only", nargs="+", choices=TRAININGS, metavar="NAME",
        help=f"trainings beside full tuning: {', '.join(TRAININGS)}",
    )  # fmt: skip
    parser.add_argument(
        "--tiny", action="store_true", help="the smallest sizes: whether it runs, not how fast"
    )
    given = parser.parse_args()
    cores = sorted(os.sched_getaffinity(0))[: given.threads]
    os.sched_setaffinity(0, cores)  # the children inherit it; XLA makes a thread for each core it may use
    sizes = TINY if given.tiny else Sizes()
    names = [name for name in TRAININGS if given.only is None or name in (FULL, *given.only)]

    with contextlib.ExitStack() as ends:
        trainers, told = started(sizes, names, given.dtype, len(cores), ends)
        losses = {
            name: [[trainers[f"{side} {name}"]("step", i)[0] for i in range(3)] for side in SIDES]
            for name in names
        }
        found = differences(losses, TOLERANCES[given.dtype])
        for trainer in trainers.values():
            trainer("forget", 0)
        costs = measure({job: (trainer, "step", 1) for job, trainer in trainers.items()}, given.rounds)
        for job, trainer in trainers.items():
            told[job]["peak"] = int(trainer("peak", 0)[1][0])
    parameters = told[f"theirs {FULL}"]["trained"] // 4
    lines = [*tables(costs, told, names), "", *notes(sizes, parameters, len(cores), given.dtype, found)]
    print("\n".join(lines))


if __name__ == "__main__":
    main()
