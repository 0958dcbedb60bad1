"""Public checkpoints in and out: a Hugging Face model to a run folder, a run to a Hugging Face folder."""

import re
import shlex
import shutil
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jaxlingua.bucket import is_bucket
from jaxlingua.command_line import apply_override, check_config, help_text, load_config
from jaxlingua.config import Config
from jaxlingua.errors import ConfigError, exit_with_one_line, nearest

if TYPE_CHECKING:
    from jaxlingua.model.lora import Lora
    from jaxlingua.model.presets import LlamaConfig
    from jaxlingua.tokens.interface import Tokenizer
    from jaxlingua.train.run_folder import RunFolder

PURPOSE = """\
import  reads a Hugging Face folder or hub name, checks that it is understood, and makes RUN of it: the
        folder of a run at step 0, with parameters, tokenizer and config.
export  writes the latest step of RUN as a Hugging Face folder, by default RUN/export: weights, tokenizer,
        chat template, generation config and a card filled from the run. It loads with from_pretrained. Of a
        run that has learned adapters (model.lora) it writes these alone, as a PEFT folder.
merge   writes the same for adapters as a whole model, by default into RUN/merged: the weights with the
        adapters in them. Instead of RUN it takes a PEFT folder or hub name, and its base from there or from
        model.path; then checkpoint.export.folder says where to, and there is no card."""
USAGES = ("import MODEL RUN", "export RUN", "merge RUN|ADAPTER")
SECTIONS = ("run", "model", "tokens", "sharding", "checkpoint")


def main() -> None:
    """Check the command line and run the verb."""
    arguments = sys.argv[1:]
    if not arguments or any(argument in ("-h", "--help") for argument in arguments):
        print(help_text("jaxlingua.checkpoint", PURPOSE, USAGES, SECTIONS))
        sys.exit(0 if arguments else 2)
    if flags := [argument for argument in arguments if argument.startswith("-")]:
        raise ConfigError(
            f"jaxlingua.checkpoint: '{flags[0]}' given; options have the form key=value, such as "
            f"checkpoint.export.dtype=float16; see --help"
        )
    verb, rest = arguments[0], arguments[1:]
    overrides = [argument for argument in rest if re.match(r"\w+\.[\w.]+=", argument)]
    names = [argument for argument in rest if argument not in overrides]
    wanted = {"import": ("MODEL", "RUN"), "export": ("RUN",), "merge": ("RUN|ADAPTER",)}
    if verb not in wanted:
        raise ConfigError(f"jaxlingua.checkpoint: '{verb}' given; {nearest(verb, list(wanted))}; see --help")
    if len(names) != len(wanted[verb]):
        raise ConfigError(
            f"jaxlingua.checkpoint {verb}: {len(names)} names given; {' and '.join(wanted[verb])} needed; "
            f"see --help"
        )
    is_run = is_bucket(names[0]) or (Path(names[0]) / "config.yaml").is_file()
    if verb == "import":
        import_model(adapted_config(names[0], {"run": {"folder": names[1]}}, overrides, verb))
    elif verb == "merge" and not is_run:
        merge_adapter(names[0], adapted_config(names[0], {}, overrides, verb))
    else:
        if not is_run:
            raise ConfigError(
                f"RUN: '{names[0]}' given, which is not the folder of a run; one that training or import "
                f"made is allowed; give its path"
            )
        kept, config = load_config(names[0]), load_config(names[0], overrides)
        from jaxlingua.train.run_folder import opened_run

        with opened_run(names[0], partial(print, flush=True)) as home:
            export_run(names[0], home, kept, config, is_merged=verb == "merge")


def adapted_config(path: str, given: dict[str, Any], overrides: list[str], verb: str) -> Config:
    """The configuration of a model that is nobody's run: a checkpoint, or an adapter with its base.

    Args:
        path: of a checkpoint, or of a PEFT folder; for merge of the latter alone.
    """
    from jaxlingua.checkpoint.huggingface.adapter import is_adapter, open_adapter

    given |= {"model": {"init": "huggingface", "path": path}}
    is_of_adapter = verb == "merge" or is_adapter(path)
    if is_of_adapter:
        # As exact as in the file, as other weights are that are imported and exported.
        lora = {"adapter": path, "base": "float32"}
        given["model"] = {"init": "huggingface", "path": "", "lora": lora}
    for override in overrides:
        apply_override(given, override)
    if is_of_adapter and not given["model"]["path"]:
        base = given["model"]["path"] = open_adapter(path).base_model
        if not base or (Path(base).is_absolute() and not Path(base).is_dir()):
            named = f"names its base '{base}', which is not here" if base else "does not name its base"
            raise ConfigError(f"model.path: not given, and '{path}' {named}; give the base of the adapter")
    return check_config(given, f"{verb} {path}")


def import_model(config: Config) -> None:
    """A public checkpoint into the folder of a run, at step 0."""
    import optax

    from jaxlingua.checkpoint.store import open_store
    from jaxlingua.model.llama import Llama
    from jaxlingua.model.presets import parameter_count
    from jaxlingua.processes.roll_call import alone
    from jaxlingua.progress import told
    from jaxlingua.sharding.mesh import describe_mesh, make_mesh
    from jaxlingua.sharding.rules import param_shardings
    from jaxlingua.tokens.tokenizer import load_tokenizer
    from jaxlingua.train import run_folder
    from jaxlingua.train.origin import open_origin
    from jaxlingua.train.run import refuse_wrong_platform

    refuse_wrong_platform(config)
    folder = config.run.folder
    if not is_bucket(folder):
        refuse_something_else(folder, Path(folder))
    origin = open_origin(config, Path(folder), None)
    public = origin.public
    tokenizer = load_tokenizer(config.tokens, list, folder=None, model_path=config.model.path)
    vocab_rows = origin.vocab_rows(tokenizer)
    sizes, mesh = origin.sizes(vocab_rows), make_mesh(config.sharding)
    param_shardings(Llama(sizes), mesh)
    say = partial(print, flush=True)
    say(describe_mesh(mesh))
    say(
        f"{config.model.path}: {public.fields['model_type']}, {parameter_count(public.config):,} parameters "
        f"in {public.dtype}; {tokenizer.vocab_size:,} pieces, {public.config.vocab_size:,} rows in the file, "
        f"{sizes.vocab_size:,} in the model"
    )
    with run_folder.own_folder(config, alone(), say) as home:
        if is_bucket(folder):
            refuse_something_else(folder, home.path)
        if home.step is not None:
            raise ConfigError(
                f"RUN: '{folder}' given, which holds checkpoints; a new folder is allowed; choose one"
            )
        state = origin.first_state(Llama(sizes), optax.identity(), mesh, partial(told, say))
        tokenizer.save(home.path / "tokenizer")
        run_folder.write_facts(
            home, config, {}, tokenizer, [], mesh, public=origin.fingerprints, program="jaxlingua.checkpoint"
        )
        replace(origin, folder=home.path).keep(vocab_rows)
        store = open_store(home.checkpoints, config.checkpoint, before_complete=home.carry)
        with told(say, "writing"):
            store.save(0, {"params": state.params}, {"stage": "import"})
            store.close()
    say(f"{folder}: step 0; python -m jaxlingua.checkpoint export {folder} writes it for other programs")


def refuse_something_else(folder: str, path: Path) -> None:
    """Raises: ConfigError where a folder has files that are not a run's."""
    is_used = path.is_dir() and any(entry.name != "cache" for entry in path.iterdir())
    if is_used and not (path / "provenance.json").is_file() and not (path / "checkpoints").is_dir():
        raise ConfigError(
            f"RUN: '{folder}' given, which holds something else; a new folder is allowed; choose one"
        )


def export_run(run: str, home: "RunFolder", kept: Config, config: Config, *, is_merged: bool) -> None:
    """A step of a run as a Hugging Face folder, or its adapters as a PEFT folder.

    Args:
        kept: the run's configuration; `config` may differ from it in what does not belong to what a run is.
        is_merged: whether adapters are merged into the weights.
    """
    import jax

    from jaxlingua.checkpoint.huggingface import export
    from jaxlingua.checkpoint.huggingface.adapter import write_adapter
    from jaxlingua.checkpoint.huggingface.config_json import stored_dtype
    from jaxlingua.checkpoint.huggingface.generation_config import generation_config
    from jaxlingua.checkpoint.store import open_store
    from jaxlingua.eval.card import model_card
    from jaxlingua.eval.report import read_run
    from jaxlingua.model.llama import Llama
    from jaxlingua.model.lora import COLLECTION, side_by_side, stacked
    from jaxlingua.model.presets import parameter_count
    from jaxlingua.progress import told
    from jaxlingua.sharding.mesh import describe_mesh, make_mesh
    from jaxlingua.tokens.tokenizer import load_tokenizer
    from jaxlingua.train import run_folder
    from jaxlingua.train.open_model import read_step
    from jaxlingua.train.origin import open_origin
    from jaxlingua.train.run import refuse_wrong_platform
    from jaxlingua.train.state import with_merged

    refuse_wrong_platform(config)
    if is_merged and kept.model.lora == "off":
        raise ConfigError(
            f"RUN: '{run}' given, which has no adapters; python -m jaxlingua.checkpoint export {run} writes "
            f"it whole"
        )
    is_adapter = kept.model.lora != "off" and not is_merged
    if differences := list(run_folder.identity_differences(kept, config)):
        raise ConfigError(f"{run}: {differences[0]}; a run is exported as it was trained; leave it out")
    wanted, say = config.checkpoint.export, partial(print, flush=True)
    if is_adapter and wanted.dtype not in ("auto", "float32"):
        raise ConfigError(
            f"checkpoint.export.dtype: '{wanted.dtype}' given; adapters are written in float32, as they are "
            f"learned; leave it out"
        )
    if home.step is None:
        raise ConfigError(
            f"RUN: '{run}' given, which holds no checkpoint; the folder of a run that has saved one is "
            f"allowed"
        )
    if is_bucket(run) and wanted.folder == "auto":
        raise ConfigError(
            f"checkpoint.export.folder: 'auto' given, and '{run}' is in a bucket; a folder of this machine "
            f"is allowed; give one"
        )
    folder = home.path / ("merged" if is_merged else "export")
    if wanted.folder != "auto":
        folder = Path(wanted.folder).expanduser().resolve()
    kind = export.ADAPTER if is_adapter else export.MODEL
    export.check_folder(folder, kind, [Path(config.model.path)] if config.model.path else [])
    origin = open_origin(config, home.path, home.step)
    tokenizer = load_tokenizer(config.tokens, list, home.path / "tokenizer", model_path=config.model.path)
    if run_folder.kept_fingerprint(home.path, "tokenizer") not in (None, tokenizer.fingerprint):
        raise ConfigError(f"{run}/tokenizer: not the tokenizer that the run began with; bring it back")
    vocab_rows, mesh = origin.vocab_rows(tokenizer), make_mesh(config.sharding)
    sizes = origin.sizes(vocab_rows)
    fields, generation = origin.kept(tokenizer, vocab_rows)
    dtype = stored_dtype(fields, str(run)) if wanted.dtype == "auto" else wanted.dtype
    dtype = "float32" if is_adapter else dtype
    say(describe_mesh(mesh))

    step = exported_step(wanted.step, home)
    store = open_store(home.checkpoints, config.checkpoint)
    with told(say, f"reading step {step:,}"):
        state, earlier = read_step(kept, store, step, Llama(sizes), mesh, is_checked=step == home.step)
    weights, lora = state.params, sizes.lora and stacked(sizes.lora, earlier.count + 1)
    if is_adapter:
        weights, sizes = side_by_side([*state.earlier.values(), weights]), with_all(sizes, lora, run)
    elif is_merged:
        frozen = origin.frozen(Llama(sizes), mesh, partial(told, say))
        frozen = with_merged(frozen, state.earlier, Llama(sizes))
        weights, sizes = state.replace(frozen=frozen).weights, earlier.sizes(sizes)
    with export.whole_folder(folder, {"kind": kind, "step": step, "dtype": dtype}) as partial_folder:
        with told(say, f"writing {folder} in {dtype} (MiB)") as on_progress:
            write = partial(export.write_weights, dtype=dtype, shard_gib=wanted.shard_gib, fields=fields)
            if is_adapter:
                write = partial(write_adapter, vocab_rows=vocab_rows, base_model=config.model.path)
            write(
                partial_folder, weights[COLLECTION] if is_adapter else weights, sizes, mesh=mesh,
                on_progress=lambda done, all_: on_progress(done >> 20, all_ >> 20),
            )  # fmt: skip
        if run_folder.is_primary():
            ids = {"bos_id": tokenizer.bos_id, "eos_id": tokenizer.eos_id, "pad_id": tokenizer.pad_id}
            settings = generation_config(generation, **ids, is_trained=step > 0)
            if not is_adapter:
                export.write_json(partial_folder / "generation_config.json", settings)
            has_template = write_tokenizer(partial_folder, tokenizer, config, step, say)
            parameters = parameter_count(replace(sizes, vocab_size=vocab_rows))
            if is_adapter:
                parameters = sum(leaf.size for leaf in jax.tree.leaves(weights))
            card = model_card(
                read_run(home.path), config, parameters=parameters,
                family=fields["model_type"], dtype=dtype, step=step, base=config.model.path,
                is_scratch=config.model.init == "scratch", has_chat_template=has_template,
                lora=lora, is_adapter=is_adapter,
            )  # fmt: skip
            (partial_folder / "README.md").write_text(card, "utf-8")
    is_rounded = (
        is_adapter and earlier.merged and lora.base != "float32"
    )  # into the weights, by a later stage
    if is_adapter and (lora.is_quantized or is_rounded):
        rounded = ", rounded where stages were merged" if is_rounded else ""
        say(
            f"it was learned beside weights in {lora.base}{rounded}, and answers a little differently beside "
            f"others; python -m jaxlingua.checkpoint merge "
            f"{shlex.quote(run)} writes what was scored"
        )
    loader = "peft.AutoPeftModelForCausalLM" if is_adapter else "AutoModelForCausalLM"
    say(f"{folder}: step {step:,}; {loader}.from_pretrained('{folder}') loads it")


def with_all(sizes: "LlamaConfig", lora: "Lora", run: str) -> "LlamaConfig":
    """The model with the adapters of all stages side by side.

    Raises: ConfigError where their ranks together are more than a matrix has.
    """
    try:
        return replace(sizes, lora=lora)
    except ConfigError as error:
        given = str(error).partition("; lower it")[0].removeprefix("model.lora.rank: ")
        raise ConfigError(
            f"RUN: '{run}' has adapters of several stages, whose ranks add up to {given}; python -m "
            f"jaxlingua.checkpoint merge {run} writes it whole"
        ) from None


def merge_adapter(path: str, config: Config) -> None:
    """An adapter and its base as a Hugging Face folder."""
    import optax

    from jaxlingua.checkpoint.huggingface import export
    from jaxlingua.model.llama import Llama
    from jaxlingua.progress import told
    from jaxlingua.sharding.mesh import describe_mesh, make_mesh
    from jaxlingua.tokens.tokenizer import load_tokenizer
    from jaxlingua.train.origin import open_origin
    from jaxlingua.train.run import refuse_wrong_platform

    refuse_wrong_platform(config)
    wanted, say = config.checkpoint.export, partial(print, flush=True)
    if wanted.folder == "auto":
        raise ConfigError(
            f"checkpoint.export.folder: 'auto' given, and '{path}' is no run; a new folder is allowed; give "
            f"one"
        )
    folder = Path(wanted.folder).expanduser().resolve()
    export.check_folder(folder, sources=[Path(path), Path(config.model.path)])
    origin = open_origin(config, Path(config.run.folder), None)
    public = origin.public
    own = origin.adapter.folder if (origin.adapter.folder / "tokenizer_config.json").is_file() else ""
    tokenizer = load_tokenizer(config.tokens, list, folder=None, model_path=str(own or config.model.path))
    origin.vocab_rows(tokenizer)
    model, mesh = Llama(origin.sizes(public.config.vocab_size)), make_mesh(config.sharding)
    dtype = public.dtype if wanted.dtype == "auto" else wanted.dtype
    say(describe_mesh(mesh))
    weights = origin.first_state(model, optax.identity(), mesh, partial(told, say)).weights
    with export.whole_folder(
        folder, {"kind": export.MODEL, "adapter": path, "dtype": dtype}
    ) as partial_folder:
        with told(say, f"writing {folder} in {dtype} (MiB)") as on_progress:
            export.write_weights(
                partial_folder, weights, model.config, public.fields, dtype=dtype,
                shard_gib=wanted.shard_gib, mesh=mesh,
                on_progress=lambda done, all_: on_progress(done >> 20, all_ >> 20),
            )  # fmt: skip
        if public.generation is not None:
            export.write_json(partial_folder / "generation_config.json", public.generation)
        tokenizer.save(partial_folder)
        if own and (own / "chat_template.jinja").is_file():
            shutil.copy(own / "chat_template.jinja", partial_folder)
    say(f"{folder}: AutoModelForCausalLM.from_pretrained('{folder}') loads it")


def exported_step(wanted: int | str, home: "RunFolder") -> int:
    """Raises: ConfigError where the best is wanted and none was kept for that."""
    from jaxlingua.checkpoint.steps import best_steps
    from jaxlingua.train.run_folder import stage_began_at

    if wanted != "best":
        return home.step if wanted == "auto" else int(wanted)
    steps = best_steps(home.checkpoints, after=stage_began_at(home.path, home.step))
    if not steps:
        raise ConfigError(
            f"checkpoint.export.step: 'best' given; no checkpoint of {home.checkpoints} was kept for its "
            f"held-out loss; train with checkpoint.keep_best=1, or give a step"
        )
    return steps[0]


def write_tokenizer(
    folder: Path, tokenizer: "Tokenizer", config: Config, step: int, say: Callable[[str], None]
) -> bool:
    """The tokenizer's files; with a chat template, and True, where the model learned in a frame."""
    from jaxlingua.data.learned_frames import frame_language, learns_prompts
    from jaxlingua.data.wordings import load_wording
    from jaxlingua.tokens.export import save_with_chat_template

    if not step or not learns_prompts(config):
        tokenizer.save(folder)
        return False
    wording = load_wording(config.data)
    is_read_alike = save_with_chat_template(tokenizer, folder, wording, frame_language(config))
    if not is_read_alike:
        say(
            f"no chat template: transformers reads other tokens from '{config.data.template}' than the model "
            f"was trained on; frame prompts as the model card shows"
        )
    return is_read_alike


if __name__ == "__main__":
    exit_with_one_line(main)
