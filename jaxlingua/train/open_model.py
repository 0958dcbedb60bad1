"""Any model that we can run, by its name: steps of a run, what it began from, public checkpoints."""

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import optax
from jax.sharding import Mesh

from jaxlingua.bucket import is_bucket
from jaxlingua.checkpoint.huggingface.adapter import is_adapter, open_adapter
from jaxlingua.checkpoint.huggingface.generation_config import ends_of
from jaxlingua.checkpoint.steps import complete_steps, read_record
from jaxlingua.checkpoint.store import Store, located, open_store
from jaxlingua.command_line import load_config
from jaxlingua.config import Config, LoraConfig, ModelConfig, TokensConfig
from jaxlingua.errors import ConfigError, JaxlinguaError, nearest
from jaxlingua.model.llama import Llama
from jaxlingua.sharding.rules import param_shardings
from jaxlingua.tokens.interface import Tokenizer
from jaxlingua.tokens.tokenizer import load_tokenizer
from jaxlingua.train.earlier import NONE, Earlier, earlier_in
from jaxlingua.train.origin import open_origin
from jaxlingua.train.run_folder import identity_differences, kept_fingerprint, opened_run
from jaxlingua.train.state import TrainState, abstract_state, with_merged


@dataclass(frozen=True)
class Opened:
    """A model with its parameters on the mesh, and what its answers need."""

    model: Llama
    params: Any
    tokenizer: Tokenizer
    eos_ids: tuple[int, ...]
    path: str


@dataclass(frozen=True)
class Candidate:
    """One model that is to answer: understood, its weights not read yet.

    Attributes:
        name: base, tuned, or what the user calls it.
        source: names what would be read, without reading the weights; None for the run's own.
        open: reads them; called with `telling`.
        layers: how many the model has, without its weights; None where nobody asks.
    """

    stage: str
    step: int
    name: str
    source: str | None
    tokenizer: Tokenizer
    open: Callable[[Any], Opened]
    layers: Callable[[], int] | None = None


def candidates_of(
    config: Config,
    folder: Path,
    step: int | None,
    mesh: Mesh,
    say: Callable[[str], None],
    *,
    is_any_dtype: bool = False,
) -> Iterator[Candidate]:
    """What a run began from, its checkpoints, and the models beside it, as `eval` names them; base first.

    Args:
        folder: of the run, or the local copy of it.
        step: the newest that is sound; None where there is none, or no run.
        is_any_dtype: whether `model.compute_dtype` may be another than that of training.
    Raises: ConfigError for steps that the run does not keep, a configuration that is not the run's, or what a
        model cannot be opened for.
    """
    if step is not None:
        kept = load_config(str(folder / "config.yaml"))
        if is_any_dtype:
            dtype = {"compute_dtype": config.model.compute_dtype}
            kept = kept.model_copy(update={"model": kept.model.model_copy(update=dtype)})
        if differences := list(identity_differences(kept, config)):
            raise ConfigError(
                f"{config.run.folder}: {differences[0]}; a run is evaluated as it was trained; leave it out"
            )
        if "base" in config.eval.models:
            raise ConfigError(
                "eval.models: name 'base' given beside a run, whose own beginning is called so; rename it"
            )
        yield from _of_run(config, folder, step, mesh)
    for name, path in config.eval.models.items():
        try:
            yield other_model(config, name, path, mesh, say)
        except JaxlinguaError as error:
            raise type(error)(f"eval.models.{name}: {error}") from None


def _of_run(config: Config, folder: Path, step: int, mesh: Mesh) -> Iterator[Candidate]:
    checkpoints = located(f"{config.run.folder}/checkpoints")
    there = complete_steps(checkpoints)
    steps = {"latest": [step], "all": there}.get(str(config.eval.steps), config.eval.steps)
    for each in steps:
        if each not in there:
            known = nearest(str(each), [str(one) for one in there])
            raise ConfigError(f"eval.steps: {each} given; the run keeps other steps; {known}")
    tokenizer = kept_tokenizer(config, folder)

    def layers() -> int:
        origin = open_origin(config, folder, step)
        return origin.sizes(origin.vocab_rows(tokenizer)).layers

    if config.eval.base_model or (steps and not any(steps)):
        opening = partial(open_base, config, folder, step, mesh)
        yield Candidate("base", 0, "base", None, tokenizer, opening, layers)
    store = open_store(checkpoints, config.checkpoint)
    for each in filter(None, steps):
        opening = partial(open_step, config, folder, each, mesh)
        yield Candidate(store.meta(each)["stage"], each, "tuned", None, tokenizer, opening, layers)


def open_base(config: Config, folder: Path, step: int, mesh: Mesh, telling: Any) -> Opened:
    """What a run began from."""
    if step == 0:  # an imported model
        return replace(open_step(config, folder, 0, mesh, telling), path=config.model.path)
    origin = open_origin(config, folder, step)
    tokenizer = kept_tokenizer(config, folder)
    model = Llama(origin.sizes(origin.vocab_rows(tokenizer)))
    params = origin.first_state(model, optax.identity(), mesh, telling).weights
    return Opened(model, params, tokenizer, ends_of(folder / "model"), config.model.path)


def open_step(config: Config, folder: Path, step: int, mesh: Mesh, telling: Any) -> Opened:
    """A checkpoint of a run."""
    tokenizer = kept_tokenizer(config, folder)
    origin = open_origin(config, folder, step)
    one = Llama(origin.sizes(origin.vocab_rows(tokenizer)))
    store = open_store(located(f"{config.run.folder}/checkpoints"), config.checkpoint)
    with telling(f"reading step {step:,}"):
        state, earlier = read_step(config, store, step, one, mesh, is_checked=True)
    state = state.replace(frozen=with_merged(origin.frozen(one, mesh, telling), state.earlier, one))
    model = Llama(earlier.sizes(one.config))
    return Opened(model, state.weights, tokenizer, ends_of(folder / "model"), config.run.folder)


def read_step(
    config: Config, store: Store, step: int, model: Llama, mesh: Mesh, *, is_checked: bool
) -> tuple[TrainState, Earlier]:
    """What a checkpoint of a run holds of the weights, and how many adapters that is.

    Args:
        model: with one adapter, if any.
        is_checked: whether its files were found whole just now.
    Returns: a state of which `params` and `earlier` are read, `frozen` is empty and all else is abstract.
    """
    is_there = step in complete_steps(store.folder)  # else it is told where it is read
    earlier = earlier_in(config.stages, store.meta(step)["stage"]) if is_there else NONE
    state = abstract_state(model, optax.identity(), mesh, earlier=earlier)
    wanted = {name: part for name in ("params", "earlier") if (part := getattr(state, name))}
    read, _ = store.restore(wanted, step, is_part=True, is_checked=is_checked)
    return state.replace(frozen={}, **read), earlier


def other_model(config: Config, name: str, path: str, mesh: Mesh, say: Callable[[str], None]) -> Candidate:
    """A Hugging Face folder or hub name, a PEFT folder, or the newest step of a run other than `config`'s.

    Its dtype and attention are those of `config`.

    Raises: what the model cannot be opened for; its weights are not read yet.
    """
    computed = {"compute_dtype": config.model.compute_dtype, "attention": config.model.attention}
    if is_bucket(path) or (Path(path) / "config.yaml").is_file():
        other = load_config(path)
        other = other.model_copy(update={"model": other.model.model_copy(update=computed)})
        with opened_run(path, say) as home:
            if home.step is None:
                raise ConfigError(f"'{path}' given, a run that has saved nothing; give another")
            tokenizer = kept_tokenizer(other, home.path)
            source = record_name(home.checkpoints / str(home.step))
            of_run = open_origin(other, home.path, home.step)
            layers = of_run.sizes(of_run.vocab_rows(tokenizer)).layers

        def open_run(telling: Any) -> Opened:
            with opened_run(path, say) as home:
                return open_step(other, home.path, home.step, mesh, telling)

        return Candidate(name, 0, name, source, tokenizer, open_run, lambda: layers)
    given, lora = {"path": path}, config.model.lora
    if is_adapter(path):
        base = "auto" if lora == "off" else lora.base  # as the run's own, to be compared with it
        given = {"path": open_adapter(path).base_model, "lora": LoraConfig(adapter=path, base=base)}
        if not given["path"]:
            raise ConfigError(
                f"'{path}' given, an adapter that does not name its base; merge it with one first"
            )
    model_config = ModelConfig(init="huggingface", **given, **computed)
    other = config.model_copy(update={"model": model_config, "tokens": TokensConfig()})
    origin = open_origin(other, Path(config.run.folder), None)
    tokenizer = load_tokenizer(other.tokens, list, None, model_path=model_config.path)
    model = Llama(origin.sizes(origin.vocab_rows(tokenizer)))
    param_shardings(model, mesh)
    ends = ends_of(origin.public.folder)

    def open_public(telling: Any) -> Opened:
        params = origin.first_state(model, optax.identity(), mesh, telling).weights
        return Opened(model, params, tokenizer, ends, path)

    source = f"{' '.join(origin.fingerprints.values())} {tokenizer.fingerprint} {ends}"
    return Candidate(name, 0, name, source, tokenizer, open_public, lambda: model.config.layers)


def record_name(step: Any) -> str:
    """A hash of the digests of all files of a checkpoint."""
    return hashlib.sha256(repr(sorted(read_record(step).files.items())).encode()).hexdigest()


def kept_tokenizer(config: Config, folder: Path) -> Tokenizer:
    """The tokenizer of a run. Raises: ConfigError where it is not the one that the run began with."""
    tokenizer = load_tokenizer(config.tokens, list, folder / "tokenizer", model_path=config.model.path)
    if kept_fingerprint(folder, "tokenizer") not in (None, tokenizer.fingerprint):
        raise ConfigError(f"{folder}/tokenizer: not the tokenizer that the run began with; bring it back")
    return tokenizer
