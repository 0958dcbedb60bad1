"""Where the first parameters of a run come from: drawn, or read from a public checkpoint."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import optax
from jax.sharding import Mesh

from jaxlingua.checkpoint.huggingface.adapter import PublicAdapter, check_base, load_adapter, open_adapter
from jaxlingua.checkpoint.huggingface.config_json import config_fields, read_config, with_dtype
from jaxlingua.checkpoint.huggingface.model import (
    CONFIG,
    GENERATION_CONFIG,
    PublicModel,
    load_params,
    open_model,
    read_json,
)
from jaxlingua.config import Config
from jaxlingua.errors import CheckpointError, ConfigError
from jaxlingua.model.llama import Llama
from jaxlingua.model.lora import COLLECTION, Lora, resolved
from jaxlingua.model.presets import LlamaConfig, llama_config
from jaxlingua.sharding.rules import padded_vocab_size
from jaxlingua.tokens.interface import Tokenizer
from jaxlingua.train.learned import ALL, Learned
from jaxlingua.train.run_folder import ADAPTER, KEPT, PUBLIC, kept_fingerprint, write_json
from jaxlingua.train.state import TrainState, first_adapters, initial_state, state_around

LORA = "lora.json"  # in the run folder, beside config.json: what `model.lora` became

# `told` of progress.py with where to speak: called with what takes long.
Telling = Callable[[str], AbstractContextManager[Callable[[int, int], None]]]


@dataclass(frozen=True)
class Origin:
    """What the model of a configuration begins from.

    `public` is None from scratch, and where a run goes on: then nothing of the checkpoint is needed but what
    the run folder keeps.
    """

    config: Config
    folder: Path
    public: PublicModel | None
    public_sizes: LlamaConfig | None
    lora: Lora | None = None
    adapter: PublicAdapter | None = None

    @property
    def fingerprints(self) -> dict[str, str]:
        """Of the public checkpoint and of the adapter that training begins with, where they are opened."""
        opened = {PUBLIC: self.public, ADAPTER: self.adapter}
        return {name: each.fingerprint for name, each in opened.items() if each}

    def sizes(self, vocab_rows: int) -> LlamaConfig:
        """The model, with a vocabulary padded so that it can be spread."""
        rows = padded_vocab_size(vocab_rows)
        train = self.config.train
        return llama_config(
            self.config.model, rows, train.remat, self.public_sizes, train.barriers, self.lora
        )

    def vocab_rows(self, tokenizer: Tokenizer) -> int:
        """Rows of the embedding that mean something: the tokenizer's, and all that the checkpoint has.

        Raises: ConfigError for a tokenizer with more pieces than the checkpoint has rows.
        """
        pieces = tokenizer.vocab_size
        rows = pieces if self.public_sizes is None else self.public_sizes.vocab_size
        if pieces > rows and self.lora is not None:
            raise ConfigError(
                f"tokens.path: a tokenizer of {pieces:,} pieces given; the checkpoint's embedding has "
                f"{rows:,} rows, which are frozen with model.lora, and PEFT folders hold no more; give the "
                f"tokenizer that belongs to it, or leave model.lora out"
            )
        if pieces > rows and self.config.model.new_tokens == "refuse":
            raise ConfigError(
                f"tokens.path: a tokenizer of {pieces:,} pieces given; the checkpoint's embedding has "
                f"{rows:,} rows; give the tokenizer that belongs to it, or set model.new_tokens=mean to "
                f"begin {pieces - rows:,} new rows with the mean of the old"
            )
        return max(pieces, rows)

    def kept(self, tokenizer: Tokenizer, vocab_rows: int) -> tuple[dict[str, Any], dict[str, Any] | None]:
        """config.json and generation_config.json of a run's model: those that its folder keeps, or its own.

        Raises: CheckpointError for a model from scratch that no family of transformers can be.
        """
        if self.config.model.init == "scratch":
            ids = {f"{name}_token_id": getattr(tokenizer, f"{name}_id") for name in ("bos", "eos", "pad")}
            sizes = self.sizes(vocab_rows)
            return config_fields(sizes, vocab_size=vocab_rows, dtype="float32", special_ids=ids), None
        home = self.folder / KEPT
        generation = home / GENERATION_CONFIG
        return read_json(home / CONFIG), read_json(generation) if generation.is_file() else None

    def keep(self, vocab_rows: int) -> None:
        """Write into the run folder what it needs of the checkpoint once the weights are read."""
        if self.public is None:
            return
        home = self.folder / KEPT
        home.mkdir(exist_ok=True)
        fields = {name: value for name, value in self.public.fields.items() if name != "_name_or_path"}
        write_json(home / CONFIG, with_dtype(fields, self.public.dtype) | {"vocab_size": vocab_rows})
        if self.lora is not None:
            write_json(home / LORA, asdict(self.lora))
        if self.public.generation is not None:
            write_json(home / GENERATION_CONFIG, self.public.generation)

    def first_state(
        self,
        model: Llama,
        optimizer: optax.GradientTransformation,
        mesh: Mesh,
        telling: Telling,
        learned: Learned = ALL,
    ) -> TrainState:
        """The state at step 0."""
        if self.config.model.init == "scratch":
            return initial_state(model, optimizer, mesh, self.config.run.seed, learned)
        weights = {}
        try:
            weights = self._read(model, mesh, telling)
            if self.lora is not None:
                weights |= {COLLECTION: self._first_adapters(weights, model, mesh, telling)}
        except CheckpointError as error:
            is_needed = self.public or (self.lora and not weights)  # the base of adapters, in any case
            raise (error if is_needed else _needed_for_base(error)) from None
        return state_around(weights, model, optimizer, mesh, learned)

    def frozen(self, model: Llama, mesh: Mesh, telling: Telling) -> dict[str, Any]:
        """The weights that stand beside adapters, of which checkpoints hold nothing; {} where there are none.

        Raises: CheckpointError where they are gone, or others than those the run began with.
        """
        return {} if self.lora is None else self._read(model, mesh, telling)

    def _read(self, model: Llama, mesh: Mesh, telling: Telling) -> dict[str, Any]:
        public = self.public or self._open_again(PUBLIC, self.config.model.path, open_model)
        with telling(f"reading {public.path} (MiB)") as on_progress:
            return load_params(public, model, mesh, lambda done, all_: on_progress(done >> 20, all_ >> 20))

    def _first_adapters(self, base: dict, model: Llama, mesh: Mesh, telling: Telling) -> dict[str, Any]:
        path = self.config.model.lora.adapter
        if not path:
            return first_adapters(base, model, mesh, self.config.run.seed)
        adapter = self.adapter or self._open_again(ADAPTER, path, open_adapter)
        notes = [f"reading {path}"]
        if adapter.base_model not in ("", self.config.model.path):
            notes.append(f"which was learned beside '{adapter.base_model}'")
        if adapter.dropout:
            notes.append(f"whose dropout of {adapter.dropout} is not applied in training here")
        with telling(f"{', '.join(notes)} (MiB)") as on_progress:
            return load_adapter(adapter, model, mesh, lambda done, all_: on_progress(done >> 20, all_ >> 20))

    def _open_again(self, name: str, path: str, open_: Callable[[str], Any]) -> Any:
        """Raises: CheckpointError where it is not what the run began with."""
        opened, kept = open_(path), kept_fingerprint(self.folder, name)
        if kept not in (None, opened.fingerprint):
            raise CheckpointError(
                f"{name}: '{path}' holds other weights than the run began with (fingerprint {kept[:12]} "
                f"there, {opened.fingerprint[:12]} now); bring them back"
            )
        return opened


def open_origin(config: Config, folder: Path, step: int | None) -> Origin:
    """What the model begins from; a public checkpoint is checked, but not read yet.

    Args:
        folder: of the run, or the local copy of it.
        step: that the run goes on from, None where it begins.

    Raises: CheckpointError or ConfigError where it cannot be taken as it is.
    """
    if config.model.init == "scratch":
        return Origin(config, folder, None, None)
    if step is None:
        public, adapter, first = open_model(config.model.path), None, None
        if config.model.lora != "off" and config.model.lora.adapter:
            adapter = open_adapter(config.model.lora.adapter)
            check_base(adapter, public)
            first = adapter.lora
        return Origin(config, folder, public, public.config, resolved(config.model, first), adapter)
    kept, lora = folder / KEPT, None
    if config.model.lora != "off":
        if not (kept / LORA).is_file():
            raise CheckpointError(
                f"{kept / LORA}: not there; the folder of a run with adapters has it; bring it back"
            )
        fields = read_json(kept / LORA)
        lora = Lora(**fields | {"targets": tuple(fields["targets"])})
    return Origin(config, folder, None, read_config(read_json(kept / CONFIG), str(kept)), lora)


def _needed_for_base(error: CheckpointError) -> CheckpointError:
    return CheckpointError(
        f"{error}; it is needed to evaluate the model before training; set eval.base_model=false to go on "
        f"without"
    )
