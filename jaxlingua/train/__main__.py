"""Train the stages of a configuration, evaluate them, write the report; run again, it goes on where it was.

The one page. Stage map: 1 data, 2 tokenize and pack, 3 shard, 4 train step, 5 checkpoint, 7 eval (which asks
6 generate).
"""

from contextlib import ExitStack, closing
from functools import partial
from typing import TYPE_CHECKING

from jaxlingua.command_line import config_from_command_line
from jaxlingua.config import Config
from jaxlingua.errors import end_with_code

if TYPE_CHECKING:
    from jaxlingua.tracking import Console
    from jaxlingua.train.interruptions import Interruptions
    from jaxlingua.train.run_folder import RunFolder

PURPOSE = "Trains the stages, evaluates and writes the report into run.folder; run it again and it goes on."


def main() -> None:
    """Check the configuration, take the run folder, train."""
    config = config_from_command_line("jaxlingua.train", PURPOSE)

    # Imported only now that the configuration is known to be right: JAX takes a second and the devices.
    from jaxlingua.processes.start import together
    from jaxlingua.processes.stop import signals_stop
    from jaxlingua.tracking import Console
    from jaxlingua.train.interruptions import Interruptions
    from jaxlingua.train.run import refuse_what_cannot_run
    from jaxlingua.train.run_folder import own_folder

    with together(config) as group:
        console = Console(is_primary=group.is_primary)
        refuse_what_cannot_run(config)
        with signals_stop(group, console.say) as signals:
            asked = Interruptions(group, signals, config.checkpoint.save_every_minutes)
            with own_folder(config, group, console.say) as home:
                train(config, home, asked, console)


def train(config: Config, home: "RunFolder", asked: "Interruptions", console: "Console") -> None:
    """Everything, in the order in which it happens."""
    from jaxlingua.checkpoint.huggingface.generation_config import ends_of
    from jaxlingua.checkpoint.store import open_store
    from jaxlingua.eval.answer import check_answerable
    from jaxlingua.eval.done import is_evaluated
    from jaxlingua.eval.evaluate import evaluate, evaluate_floors, overlaps_of
    from jaxlingua.eval.in_context.ask import check_labels, check_retrieval, check_states
    from jaxlingua.eval.report import write_report
    from jaxlingua.eval.score import FLOORS
    from jaxlingua.eval.tasks.make import make_tasks
    from jaxlingua.model.llama import Llama
    from jaxlingua.processes.watchdog import watching
    from jaxlingua.progress import told
    from jaxlingua.sharding.feed import feed
    from jaxlingua.sharding.mesh import make_mesh
    from jaxlingua.sharding.rules import count_micro_batches
    from jaxlingua.tokens import stages as flow
    from jaxlingua.tokens.tokenizer import load_tokenizer
    from jaxlingua.tracking import fetch, open_tracker
    from jaxlingua.train import announce, run, run_folder
    from jaxlingua.train.averaging import averaged, validation_of
    from jaxlingua.train.compiler_options import compiler_options
    from jaxlingua.train.held_out import make_held_out
    from jaxlingua.train.method import make_methods, method_at, no_longer_read
    from jaxlingua.train.origin import open_origin
    from jaxlingua.train.stages import facts_of, is_due, stop_if_nonfinite
    from jaxlingua.train.state import shardings_of, with_merged
    from jaxlingua.train.step import make_train_step
    from jaxlingua.train.translate_test import check_translate_test, translated

    folder, restored_step, telling = home.path, home.step, partial(told, console.say)
    origin = open_origin(config, folder, restored_step)
    run.refuse_what_does_not_fit(config, origin)
    run.refuse_too_little_memory(config, origin)
    check_retrieval(config)
    check_states(config, lambda: origin.sizes(vocab_rows=1).layers)

    # ── 1 data ───────────────────────────────────────────────────────────────────────────────────────────
    with telling("reading data"):
        sources = flow.open_sources(config)
        tasks = make_tasks(config, sources)
        check_answerable(tasks, config)
        check_translate_test(tasks, config)
        examples, leaks = flow.make_examples(config, sources, {t.key: t.records for t in tasks})
        overlaps = overlaps_of(tasks, flow.learned_texts(examples), config.eval.leak_words)

    # ── 2 tokenize and pack ──────────────────────────────────────────────────────────────────────────────
    with telling("tokenizing and packing") as on_progress:
        tokenizer = load_tokenizer(
            config.tokens, lambda: flow.learned_texts(examples), home.tokenizer,
            model_path=config.model.path, is_resumed=restored_step is not None,
        )  # fmt: skip
        vocab_rows = origin.vocab_rows(tokenizer)
        check_labels(tasks, tokenizer)
        cache = run.cache_folder(config, folder)
        stages = flow.make_stages(config, sources, examples, tokenizer, cache=cache, on_progress=on_progress)

    # ── 3 shard ──────────────────────────────────────────────────────────────────────────────────────────
    mesh = make_mesh(config.sharding)
    run.refuse_unknown_frozen(config, origin, mesh, vocab_rows)
    sizes = origin.sizes(vocab_rows)
    model = Llama(sizes)
    methods = make_methods(config, stages, tokenizer.vocab_size)
    states = [method.abstract_state(model, mesh) for method in methods]
    run_folder.write_facts(home, config, sources, tokenizer, stages, mesh, public=origin.fingerprints)
    run.refuse_unknown_best(config.checkpoint, stages)
    run.refuse_unmeasured_average(stages)
    origin.keep(vocab_rows)
    announce.say_what_will_run(
        console, config, sources=sources, leaks=leaks, tasks=tasks, stages=stages, tokenizer=tokenizer,
        model=model, mesh=mesh, methods=methods, states=states,
    )  # fmt: skip

    tracker = open_tracker(
        folder, config.tracking, run.model_size(sizes), console, total_steps=stages[-1].end_step,
        restored_step=restored_step, run_config=config.model_dump(mode="json"),
    )  # fmt: skip

    # ── 7 eval: before ───────────────────────────────────────────────────────────────────────────────────
    step = restored_step or 0
    tasks = translated(
        tasks, config, folder, mesh, say=console.say, telling=telling,
        stoppable=partial(asked.stoppable, saved_step=step or None),
    )  # fmt: skip
    check_labels(tasks, tokenizer)

    def is_answered(stage: str, step: int) -> bool:
        return home.group.share(is_evaluated(tasks, stage, step, config=config, folder=folder))

    def evaluated(what: str, model: Llama, **where) -> None:
        with tracker.paused("eval"), telling(f"evaluating {what}") as on_progress:
            evaluate(
                model, state.weights, tokenizer, tasks, mesh=mesh, config=config, folder=folder,
                overlaps=overlaps, eos_ids=ends_of(folder / run_folder.KEPT), say=console.say,
                on_progress=asked.stoppable(on_progress, step or None), **where,
            )  # fmt: skip

    # Where the run begins, what is there may be of another one: answers of other weights are made again.
    has_tasks = bool(tasks or config.eval.harness.tasks)
    base_is_due = config.eval.base_model and has_tasks
    base_is_due = base_is_due and (restored_step is None or not is_answered("base", 0))
    if restored_step is None or base_is_due:
        state = origin.first_state(model, methods[0].optimizer, mesh, telling, methods[0].learned)
    if base_is_due:
        evaluated("the model before training", model, stage="base", step=0, model_name="base")
    if not is_answered(FLOORS, 0):
        evaluate_floors(tasks, config=config, folder=folder)

    # ── 5 checkpoint: where to begin ─────────────────────────────────────────────────────────────────────
    ends = [stage.end_step for stage in stages]
    store = open_store(home.checkpoints, config.checkpoint, before_complete=home.carry, stage_ends=ends)
    if restored_step is not None:
        frozen = state.frozen if base_is_due else origin.frozen(model, mesh, telling)
        abstract = states[method_at(methods, restored_step)]
        state = store.restore(abstract.saved, restored_step, is_checked=True)[0]
        state = state.replace(frozen=with_merged(frozen, state.earlier, model))
        console.say(f"going on from step {restored_step:,}")

    # ── 4 train step ─────────────────────────────────────────────────────────────────────────────────────
    micro_batches = count_micro_batches(config.train.batch_rows, config.train.micro_batch_rows, mesh)
    options = compiler_options(config.train.compiler_options, mesh.devices.flat[0].device_kind)
    stacks = watching(
        tracker.clock, folder / "stacks", console.say, run_folder.process_index(), steps_before=step
    )
    with closing(tracker), closing(store), stacks, ExitStack() as opened:  # a save is completed in any case
        for stage in stages:
            opened.callback(stage.batches.close)
        for place, (stage, method, abstract) in enumerate(zip(stages, methods, states, strict=True)):
            name, end, shardings = stage.config.name, stage.end_step, shardings_of(abstract)
            if step > end or (step == end and is_answered(name, end)):
                continue
            if step == stage.first_step and (step > 0 or method.remembered):
                with tracker.paused("begin"):
                    state = method.begun(
                        state, model, shardings, seed=config.run.seed, micro_batches=micro_batches,
                        telling=telling, stoppable=partial(asked.stoppable, saved_step=step or None),
                    )  # fmt: skip
            objective, stage_model = method.objective, method.model(model)
            train_step = make_train_step(
                stage_model, method.optimizer, method.schedule, objective, shardings, micro_batches, options,
                learned=method.learned, anchor=method.anchor,
            )  # fmt: skip
            held_out = stage.held_out and make_held_out(
                stage.held_out, stage_model, objective, shardings.weights
            )
            measured_every = run.held_out_every(config, stage)
            allowed = config.train.max_nonfinite_steps
            stop_if_bad = partial(stop_if_nonfinite, stage=stage, allowed=allowed, saved=store.latest_step)
            tracker.start_stage(facts_of(stage))

            left = range(step - stage.first_step, stage.batches.steps)
            batches = feed(stage.batches.batch, left, config.train.batch_rows, mesh, on_wait=tracker.starved)
            opened.callback(batches.close)  # else its thread goes on while an error ends the process
            for batch_step, batch in batches:
                step = stage.first_step + batch_step + 1
                with tracker.dispatching(step, is_compiled=batch_step == left[0]):
                    state, metrics = train_step(state, batch)
                stop_if_bad(tracker.step(step, metrics))
                store.raise_if_failed()
                if step == end and method.is_averaged:
                    with tracker.paused("held_out"):
                        measure = validation_of(method, stage_model, shardings)
                        state = averaged(state, method, shardings, measure, console.say)
                is_saved, lost = is_due(step, config.checkpoint.save_every_steps, end), {}
                is_measured = is_due(batch_step + 1, measured_every, stage.batches.steps)
                if held_out and (is_measured or (is_saved and config.checkpoint.keep_best)):
                    with tracker.paused("held_out"):
                        lost = run.held_out_line(held_out.tell(fetch(held_out.measure(state.weights))))
                        tracker.add(lost)
                # ── 5 checkpoint ─────────────────────────────────────────────────────────────────────────
                is_saved, is_stopped = asked.after_step(step, is_saved=is_saved)
                if is_saved:
                    stop_if_bad(tracker.flush())
                    with tracker.paused("checkpoint"):
                        meta = {"stage": name, "step": step, "seed": config.run.seed}
                        store.save(step, state.saved, meta, metric=lost.get(config.checkpoint.best_by))
                if is_stopped:
                    asked.stop(step)
            for read in no_longer_read(methods, place):
                read.batches.close()

            # ── 7 eval ───────────────────────────────────────────────────────────────────────────────────
            if has_tasks:
                evaluated(f"after stage {name}", stage_model, stage=name, step=step, model_name="tuned")
            tracker.end_stage(home.group.gather)
    if run_folder.is_primary():
        announce.say_scores(console, write_report(folder), config.run.folder)


if __name__ == "__main__":
    end_with_code(main)
