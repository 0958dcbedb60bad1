"""Train the stages of a configuration, evaluate them, write the report; run again, it goes on where it was.

The one page. Stage map: 1 data, 2 tokenize and pack, 3 shard, 4 train step, 5 checkpoint, 7 eval (which asks
6 generate).
"""

from contextlib import closing, nullcontext
from functools import partial

from jaxlingua.command_line import config_from_command_line
from jaxlingua.errors import exit_with_one_line

PURPOSE = "Trains the stages, evaluates and writes the report into run.folder; run it again and it goes on."


def main() -> None:
    """Everything, in the order in which it happens."""
    config = config_from_command_line("jaxlingua.train", PURPOSE)

    # Imported only now that the configuration is known to be right: JAX takes a second and the devices.
    from jaxlingua.checkpoint.store import open_store
    from jaxlingua.eval.evaluate import evaluate, evaluate_floors
    from jaxlingua.eval.report import write_report
    from jaxlingua.eval.tasks import make_tasks
    from jaxlingua.model.llama import Llama
    from jaxlingua.model.presets import llama_config
    from jaxlingua.progress import told
    from jaxlingua.sharding.feed import feed
    from jaxlingua.sharding.mesh import make_mesh
    from jaxlingua.sharding.rules import count_micro_batches, padded_vocab_size
    from jaxlingua.tokens import stages as flow
    from jaxlingua.tokens.tokenizer import load_tokenizer
    from jaxlingua.tracking import Console, fetch, open_tracker
    from jaxlingua.train import announce, run
    from jaxlingua.train.held_out import make_held_out
    from jaxlingua.train.objective import Objective
    from jaxlingua.train.optimizer import make_optimizer
    from jaxlingua.train.stages import facts_of, is_due, stop_if_nonfinite
    from jaxlingua.train.state import abstract_state, initial_state, shardings_of, with_fresh_optimizer
    from jaxlingua.train.step import make_train_step

    run.refuse_what_cannot_run(config)
    folder = run.open_run_folder(config)
    console = Console(is_primary=run.is_primary())
    telling = partial(told, console.say)

    # ── 1 data ───────────────────────────────────────────────────────────────────────────────────────────
    with telling("reading data"):
        sources = flow.open_sources(config)
        tasks = make_tasks(config, sources)
        examples, leaks = flow.make_examples(config, sources, {t.name: t.records for t in tasks})

    # ── 2 tokenize and pack ──────────────────────────────────────────────────────────────────────────────
    with telling("tokenizing and packing") as on_progress:
        tokenizer = load_tokenizer(config.tokens, lambda: flow.learned_texts(examples), folder / "tokenizer")
        cache = run.cache_folder(config, folder)
        stages = flow.make_stages(config, sources, examples, tokenizer, cache=cache, on_progress=on_progress)

    # ── 3 shard ──────────────────────────────────────────────────────────────────────────────────────────
    mesh = make_mesh(config.sharding)
    sizes = llama_config(config.model, padded_vocab_size(tokenizer.vocab_size), config.train.remat)
    model = Llama(sizes)
    optimizers = [make_optimizer(config.train.optimizer, s.batches.steps, s.first_step) for s in stages]
    abstract = abstract_state(model, optimizers[0][0], mesh)
    shardings = shardings_of(abstract)
    run.write_facts(folder, sources, tokenizer, stages, mesh)
    announce.say_what_will_run(
        console, config, sources=sources, leaks=leaks, tasks=tasks, stages=stages, tokenizer=tokenizer,
        sizes=sizes, mesh=mesh, state=abstract,
    )  # fmt: skip

    # ── 5 checkpoint: where to begin ─────────────────────────────────────────────────────────────────────
    store = open_store(folder / "checkpoints", config.checkpoint)
    restored_step = store.latest_step()
    if restored_step is None:
        state = initial_state(model, optimizers[0][0], mesh, config.run.seed)
    else:
        state, _ = store.restore(abstract)
        console.say(f"going on from step {restored_step:,}")

    # ── 7 eval: before ───────────────────────────────────────────────────────────────────────────────────
    def evaluated(what: str, **where) -> None:
        with telling(f"evaluating {what}") as on_progress:
            evaluate(
                model, state.params, tokenizer, tasks, mesh=mesh, config=config, folder=folder,
                on_progress=on_progress, **where,
            )  # fmt: skip

    if tasks and restored_step is None:
        evaluate_floors(tasks, config=config, folder=folder)
        if config.eval.base_model:
            evaluated("the model before training", stage="base", step=0, model_name="base")

    # ── 4 train step ─────────────────────────────────────────────────────────────────────────────────────
    step = restored_step or 0
    micro_batches = count_micro_batches(config.train.batch_rows, config.train.micro_batch_rows, mesh)
    tracker = open_tracker(
        folder, config.tracking, run.model_size(sizes), console, total_steps=stages[-1].end_step,
        restored_step=restored_step, run_config=config.model_dump(mode="json"),
    )  # fmt: skip
    with closing(tracker), closing(store):  # a save under way is completed, whatever ends the loop
        for stage, (optimizer, schedule) in zip(stages, optimizers, strict=True):
            if step > stage.end_step or (step == stage.end_step and run.is_evaluated(folder, stage)):
                continue
            if step == stage.first_step > 0:
                state = with_fresh_optimizer(state, optimizer, shardings)
            groups = len(stage.batches.group_names)
            objective = Objective(tokenizer.vocab_size, groups, config.train.loss_chunk_tokens)
            train_step = make_train_step(model, optimizer, schedule, objective, shardings, micro_batches)
            held_out = stage.held_out and make_held_out(stage.held_out, model, objective, shardings.params)
            measured_every = run.held_out_every(config, stage)
            tracker.start_stage(facts_of(stage))

            left = range(step - stage.first_step, stage.batches.steps)
            for batch_step, batch in feed(stage.batches.batch, left, config.train.batch_rows, mesh):
                with tracker.paused("compile") if batch_step == left[0] else nullcontext():
                    state, metrics = train_step(state, batch)
                step = stage.first_step + batch_step + 1
                stop_if_nonfinite(tracker.step(step, metrics), stage, config.train.max_nonfinite_steps)
                if held_out and is_due(batch_step + 1, measured_every, stage.batches.steps):
                    with tracker.paused("held_out"):
                        tracker.add(run.held_out_line(held_out.tell(fetch(held_out.measure(state.params)))))
                # ── 5 checkpoint ─────────────────────────────────────────────────────────────────────────
                if is_due(step, config.checkpoint.save_every_steps, stage.end_step):
                    stop_if_nonfinite(tracker.flush(), stage, config.train.max_nonfinite_steps)
                    with tracker.paused("checkpoint"):
                        store.save(step, state, {"stage": stage.config.name})

            # ── 7 eval ───────────────────────────────────────────────────────────────────────────────────
            if tasks:
                with tracker.paused("eval"):
                    name = stage.config.name
                    evaluated(f"after stage {name}", stage=name, step=step, model_name="tuned")
    if run.is_primary():
        announce.say_scores(console, write_report(folder), folder)


if __name__ == "__main__":
    exit_with_one_line(main)
