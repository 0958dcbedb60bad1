"""What a run says of itself at its start and at its end."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax
from jax.sharding import Mesh

from jaxlingua.config import Config
from jaxlingua.data.leaks import Leaks
from jaxlingua.data.records import RecordSource
from jaxlingua.eval.report import headlines, mean_of, models_of, number, score_rows
from jaxlingua.eval.tasks.item import Task
from jaxlingua.model.llama import Llama, attention_of_rows, has_barriers
from jaxlingua.model.presets import LlamaConfig, parameter_count
from jaxlingua.sharding.memory import MIB, bytes_per_device, step_memory
from jaxlingua.sharding.mesh import describe_mesh
from jaxlingua.sharding.rules import count_micro_batches, sharding_context
from jaxlingua.tokens.describe import describe_source, describe_stage, sample_rows
from jaxlingua.tokens.interface import Tokenizer
from jaxlingua.tokens.stages import Stage
from jaxlingua.tracking import Console
from jaxlingua.train.averaging import SHARES
from jaxlingua.train.compiler_options import compiler_options
from jaxlingua.train.earlier import Earlier
from jaxlingua.train.fit import forward_share, warning
from jaxlingua.train.method import Method
from jaxlingua.train.state import TrainState


def say_what_will_run(
    console: Console,
    config: Config,
    *,
    sources: Mapping[str, RecordSource],
    leaks: Leaks,
    tasks: Sequence[Task],
    stages: Sequence[Stage],
    tokenizer: Tokenizer,
    model: Llama,
    mesh: Mesh,
    methods: Sequence[Method],
    states: Sequence[TrainState],
) -> None:
    """Data, tokens, devices and parameters in plain sentences, before the first step.

    Args:
        model: with one adapter, if any.
        states: those of the methods, abstract, with shardings.
    """
    sizes = model.config
    for source in sources.values():
        told = describe_source(source)
        skipped = ", ".join(f"{count:,} {reason}" for reason, count in told["skipped"].items())
        console.say(
            f"source {source.name}: {told['train']:,} records to train on, {told['held_out']:,} held out, in "
            f"{', '.join(told['languages'])}" + (f"; left out: {skipped}" if skipped else "")
        )
    console.say(leaks.describe())
    rows = f"the model has rows for {sizes.vocab_size:,}, padding included"
    console.say(f"tokenizer: {tokenizer.vocab_size:,} pieces; {rows}")
    for stage in stages:
        told = describe_stage(stage)
        console.say(
            f"stage {told['name']}: {told['steps']:,} steps of {told['batch_rows']} rows of "
            f"{told['row_length_tokens']} tokens, {told['epochs']:g} epochs, "
            f"{100 * told['use']:.1f} % of positions used"
        )
        for row in told["mixture"]:
            console.say(
                f"  {row['entry']} in {row['language']}: {row['documents']:,} documents, "
                f"{row['passes']:g} passes, "
                f"{100 * row['share of target tokens']:.1f} % of target tokens; left out: {row['left out']}; "
                f"cut: {row['tokens cut']:,} tokens"
            )
        for text in sample_rows(stage, tokenizer):
            console.say(f"  sample: {text}")
    for task in tasks:
        console.say(f"task {task.describe()}")
    console.say(describe_mesh(mesh, config.sharding.slices))
    console.say(f"model: {parameter_count(sizes):,} parameters; {_computes(config, sizes, mesh)}")
    if sizes.lora is not None:
        console.say(_adapters(sizes, states[0]))
    for method, state in zip(methods, states, strict=True):
        for told in _told_of(method, state, sizes):
            console.say(f"stage {method.stage.config.name}: {told}")
    rows, micro_batch_rows = config.train.batch_rows, config.train.micro_batch_rows
    memories = [
        step_memory(
            state,
            method.model(model).config,
            mesh,
            batch_rows=rows,
            micro_batches=count_micro_batches(rows, micro_batch_rows, mesh),
            row_length_tokens=config.tokens.row_length_tokens,
            loss_chunk_tokens=config.train.loss_chunk_tokens,
            is_taught=method.objective.kl_weight > 0,
        )
        for method, state in zip(methods, states, strict=True)
    ]
    memory = max(memories, key=lambda memory: memory.total)
    console.say(f"memory by arithmetic: {memory.describe()}")
    if doubt := warning(memory, mesh):
        console.say(f"warning: {doubt}")


def _told_of(method: Method, state: TrainState, sizes: LlamaConfig) -> Iterator[str]:
    """What a stage does against forgetting, and what that takes of memory and time."""
    stage, anchor = method.stage.config, method.anchor
    if stage.peak_lr != "auto":
        yield f"learning rate {stage.peak_lr:g} after warm-up"
    if stage.schedule == "continue":
        yield f"its learning rate goes on from the stage before, on one curve over steps {_span(method)}"
    if stage.optimizer == "keep":
        yield "its optimizer goes on with the state from the stage before"
    if stage.frozen:
        trained = method.learned.count(state.params)
        yield f"frozen {', '.join(stage.frozen)}: {trained:,} parameters are trained"
    if stage.adapters != "continue":
        yield _new_adapters(method.adapters, state, sizes)
    if (replay := stage.replayed) is not None:
        yield (
            f"replay: {100 * replay.share:g} % of its documents come from earlier stages; no memory, and as "
            f"much less time for its own"
        )
    if state.anchor:
        size = bytes_per_device(state.anchor) / MIB
        copies = "a copy" if len(state.anchor) == 1 else "two copies"
        yield f"remembers {copies} of what it trains: {size:,.1f} MiB per device, and as much of a checkpoint"
    if anchor and anchor.l2_sp != "off":
        yield f"anchor L2-SP, weight {anchor.l2_sp:g}: one more number read per parameter and step"
    if anchor and anchor.ewc != "off":
        passes = anchor.fisher_draws * len(method.earlier)
        yield (
            f"anchor EWC, weight {anchor.ewc:g}: two more numbers read per parameter and step; {passes:,} "
            f"batches at its beginning, each a step and a forward pass"
        )
    if anchor and anchor.kl != "off":
        share = forward_share(sizes, method.stage.batches.row_length_tokens)
        yield (
            f"anchor KL, weight {anchor.kl:g}: a forward pass of the earlier model per step, about "
            f"{100 * share:.0f} % more matmul work, and its logits"
        )
    if method.is_averaged:
        tried = (
            f"{len(SHARES)} shares are measured" if stage.average == "auto" else f"share {stage.average:g}"
        )
        yield f"its weights are averaged with those before it at its end: {tried}"


def _new_adapters(earlier: Earlier, state: TrainState, sizes: LlamaConfig) -> str:
    """What becomes of the earlier adapters of a stage that begins with new ones."""
    size, rank = bytes_per_device(state.earlier) / MIB, sizes.lora.rank
    where = []
    if earlier.merged:
        where.append(f"{earlier.merged} of earlier stages in the weights, in {sizes.lora.base}")
    if earlier.stacked:
        total = (earlier.stacked + 1) * rank
        where.append(f"{earlier.stacked} of earlier stages beside them, rank {total} in all")
    return (
        f"new adapters of rank {rank}; {' and '.join(where)}: {size:,.1f} MiB per device for those, and as "
        f"much of a checkpoint"
    )


def _span(method: Method) -> str:
    first, end = method.span
    return f"{first:,} to {end:,}"


def _adapters(sizes: LlamaConfig, state: Any) -> str:
    """What is trained and what is frozen; what "auto" became."""
    lora, trained = sizes.lora, sum(leaf.size for leaf in jax.tree.leaves(state.params))
    share = 100 * trained / parameter_count(sizes)
    return (
        f"adapters: {lora.describe()}: {trained:,} numbers trained ({share:.2f} % of the model); the weights "
        f"are frozen, in {lora.base}"
    )


def _computes(config: Config, sizes: LlamaConfig, mesh: Mesh) -> str:
    """How the step is computed; what "auto" became."""
    with sharding_context(mesh):
        attention = attention_of_rows(sizes, config.tokens.row_length_tokens)
        ordered = ", with barriers" if has_barriers(sizes) else ""
    options = compiler_options(config.train.compiler_options, mesh.devices.flat[0].device_kind)
    compiled = f"; compiled with {' '.join(f'{name}={value}' for name, value in options.items())}"
    return f"computes in {sizes.compute_dtype}, {attention} attention, remat {sizes.remat}{ordered}" + (
        compiled if options else ""
    )


def say_scores(console: Console, report: dict[str, Any], folder: str) -> None:
    """The scores in a few lines, and where the rest is."""
    models = models_of(report["scores"])
    for line in headlines(score_rows(report["scores"]), models):
        before = "" if line["before"] is None else f"{number(line['before'])} → "
        console.say(f"{line['kind']}, {line['metric']}: {before}{number(line['after'])} ({mean_of(line)})")
    console.say(f"report: {folder.rstrip('/')}/report.html")
