"""Pieces of new languages for a model: `python -m jaxlingua.tokens extend`."""

import shutil
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jaxlingua.errors import CheckpointError, ConfigError, DataError, exit_with_one_line, nearest
from jaxlingua.tokens.extend.command import PURPOSE, TextFile, Wanted, read_texts, wanted_from
from jaxlingua.tokens.extend.telling import kept_warning, read_line, summary

if TYPE_CHECKING:
    from jax.sharding import Mesh

    from jaxlingua.checkpoint.huggingface.model import PublicModel
    from jaxlingua.checkpoint.huggingface.new_rows import NewRows
    from jaxlingua.model.llama import Llama
    from jaxlingua.tokens.interface import Tokenizer
    from jaxlingua.train.distill import Distilled

# Of the model's folder, beside its tokenizer: what it may be used for.
_TERMS = ("LICENSE*", "NOTICE*", "USE_POLICY*")
_SHARD_GIB = 5.0
_say = partial(print, flush=True)


def main() -> None:
    """Check the command line and run the verb."""
    verb, arguments = (sys.argv[1:2] or ["--help"])[0], sys.argv[2:]
    if verb in ("-h", "--help"):
        print(f"python -m jaxlingua.tokens extend MODEL TEXT …; see extend --help\n\n{PURPOSE}")
        sys.exit(0 if len(sys.argv) > 1 else 2)
    if verb != "extend":
        raise ConfigError(f"jaxlingua.tokens: '{verb}' given; {nearest(verb, ['extend'])}; see --help")
    extend_model(wanted_from(arguments))


def extend_model(wanted: Wanted) -> None:
    """A model's tokenizer with new pieces and its weights with their rows, in a folder."""
    from jaxlingua.checkpoint.huggingface.export import check_folder, whole_folder, write_json
    from jaxlingua.checkpoint.huggingface.model import CONFIG, open_model
    from jaxlingua.checkpoint.huggingface.new_rows import NewRows, rows_of, write_model
    from jaxlingua.hub import find_folder
    from jaxlingua.progress import told
    from jaxlingua.tokens import fast
    from jaxlingua.tokens.extend import extend
    from jaxlingua.tokens.extend.changes import changes_of, ids_in, own_old_texts
    from jaxlingua.tokens.fertility import describe_fertility
    from jaxlingua.tokens.tokenizer import tokenizer_of_folder

    telling = partial(told, _say)
    check_folder(wanted.output, sources=[Path(wanted.model)], where="--output")
    names = [*fast.FILES, *fast.KEPT, *_TERMS, CONFIG]
    home = find_folder(wanted.model, names, where="MODEL", error=ConfigError)
    public = open_model(wanted.model) if _has_weights(home) else None
    if public is None and wanted.rows is not None:
        raise ConfigError(f"--rows: given, and '{wanted.model}' has a tokenizer alone; leave it out")
    old = tokenizer_of_folder(str(home))
    if public is not None:
        _refuse_other_tokenizer(old, public)
    device = _device_for(wanted, public, old) if wanted.rows == "distilled" else None

    # ── text ─────────────────────────────────────────────────────────────────────────────────────────────
    files = [read_texts(file, "TEXT") for file in wanted.texts]
    read = [file.facts() for file in files]
    for facts in read:
        _say(read_line(facts))
    learned = [text for file in files for text in file.learned]
    measured = {str(file.path): file.held_out or file.learned for file in files}
    if wanted.old is None:
        new_languages = sorted({facts["language"] for facts in read} - {None})
        old_texts, old_name = own_old_texts(new_languages), "jaxlingua's own wording"
    else:
        old_texts, old_name = read_texts(wanted.old, "--old").texts, str(wanted.old)

    if wanted.keeps_old and (warning := kept_warning(read, old_texts)):
        _say(warning)

    with whole_folder(wanted.output, {"base": wanted.model}) as partial_folder:
        # ── pieces ───────────────────────────────────────────────────────────────────────────────────────
        with telling(f"learning {wanted.pieces:,} pieces") as on_progress:
            extension = extend(
                home, learned, wanted.pieces, kept=old_texts if wanted.keeps_old else (),
                on_progress=lambda pieces: on_progress(pieces, wanted.pieces),
            )  # fmt: skip
        for name, content in extension.files.items():
            (partial_folder / name).write_bytes(content)
        new = tokenizer_of_folder(str(partial_folder))
        changes = changes_of(old, new, old_texts)
        unwritten = {piece.id for piece in extension.pieces} - ids_in(new, learned)
        before, after = (describe_fertility(measured, tokenizer) for tokenizer in (old, new))

        # ── rows ─────────────────────────────────────────────────────────────────────────────────────────
        rows: dict[str, Any] = {}
        if public is not None:
            grown = NewRows(
                {piece.id: piece.old_ids for piece in extension.pieces},
                first_id=extension.first_id,
                rows=rows_of(extension.vocab_size, public.config.vocab_size, wanted.row_multiple),
                begin="mean" if wanted.rows == "mean" else "pieces",
            )
            rows = {
                "method": wanted.rows or "pieces",
                "before": public.config.vocab_size,
                "after": grown.rows,
                "tied": public.config.tie_embeddings,
            }
            embedding = None
            if device is not None:
                distilled = _distilled(wanted, public, grown, *device, files, old, new, telling)
                embedding = distilled.pop("rows")
                rows["distilled"] = distilled
            with telling(f"writing {wanted.output} (MiB)") as on_progress:
                write_model(
                    partial_folder, public, grown, shard_gib=_SHARD_GIB, embedding=embedding,
                    on_progress=lambda done, all_: on_progress(done >> 20, all_ >> 20),
                )  # fmt: skip
        for pattern in _TERMS:
            for file in filter(Path.is_file, home.glob(pattern)):
                shutil.copyfile(file, partial_folder / file.name)
        facts = {
            "base": wanted.model,
            "pieces": {
                "asked": wanted.pieces,
                "learned": len(extension.pieces),
                "inside others only": len(unwritten),
                "words left out": extension.words_left_out,
            },
            "first_id": extension.first_id,
            "vocab_size": extension.vocab_size,
            "rows": rows,
            "old text": {"from": old_name, "kept": wanted.keeps_old, **asdict(changes)},
            "read": read,
            "fertility": {
                was.pop("language"): {"before": was, "after": {key: now[key] for key in was}}
                for was, now in zip(before, after, strict=True)
            },
        }
        write_json(partial_folder / "extension.json", facts)
    for line in summary(facts, wanted.output):
        _say(line)


def _has_weights(home: Path) -> bool:
    """Whether a folder is meant to hold a model; one that lacks a part of it is told where it is opened."""
    return (home / "config.json").is_file() or any(
        any(home.glob(pattern)) for pattern in ("*.safetensors*", "*.bin", "*.pth")
    )


def _refuse_other_tokenizer(tokenizer: "Tokenizer", public: "PublicModel") -> None:
    """Raises: CheckpointError where the tokenizer has pieces that the model has no row for."""
    if tokenizer.vocab_size > public.config.vocab_size:
        raise CheckpointError(
            f"{public.path}: its tokenizer has {tokenizer.vocab_size:,} pieces, its embedding "
            f"{public.config.vocab_size:,} rows; a row for each piece is needed; put the tokenizer there "
            f"that belongs to the model"
        )


# ── distilled rows ────────────────────────────────────────────────────────────────────────────────────────


def _device_for(wanted: Wanted, public: "PublicModel", tokenizer: "Tokenizer") -> tuple["Mesh", Any]:
    """The mesh, and the model by the number of its rows; whatever is in its way is told now."""
    from jaxlingua.model.llama import Llama
    from jaxlingua.model.presets import llama_config
    from jaxlingua.sharding.mesh import describe_mesh, make_mesh
    from jaxlingua.sharding.rules import padded_vocab_size, param_shardings
    from jaxlingua.train.run import refuse_wrong_platform

    def model_of(rows: int) -> Llama:
        return Llama(llama_config(wanted.config.model, padded_vocab_size(rows), public=public.config))

    refuse_wrong_platform(wanted.config)
    mesh = make_mesh(wanted.config.sharding)
    param_shardings(model_of(tokenizer.vocab_size + wanted.pieces), mesh)
    _say(describe_mesh(mesh))
    return mesh, model_of


def _distilled(
    wanted: Wanted, public: "PublicModel", new_rows: "NewRows", mesh: "Mesh",
    model_of: Callable[[int], "Llama"], files: Sequence[TextFile], old: "Tokenizer", new: "Tokenizer",
    telling: Callable[[str], Any],
) -> dict[str, Any]:  # fmt: skip
    """Learned rows, and how far hidden states are apart on held-out text with them and without."""
    import numpy as np

    from jaxlingua.checkpoint.huggingface.model import load_params
    from jaxlingua.checkpoint.huggingface.new_rows import EMBEDDING, first_rows
    from jaxlingua.train.distill import cut_snippets, distance, distill

    seed = wanted.config.run.seed
    with telling("cutting snippets") as on_progress:
        cut = partial(cut_snippets, old=old, new=new, old_ids=new_rows.old_ids, seed=seed)
        snippets = cut([text for file in files for text in file.learned], on_progress=on_progress)
        held_out = cut([text for file in files for text in file.held_out], most_per_piece=5)
    if not len(snippets.new):
        raise DataError("--rows: distilled given, and no new piece stands in TEXT; give --rows pieces")
    model = model_of(new_rows.rows)
    with telling(f"reading {public.path} (MiB)") as on_progress:
        params = load_params(public, model, mesh, lambda done, all_: on_progress(done >> 20, all_ >> 20))
    numbers = sorted(new_rows.old_ids)
    begin = dict(zip(numbers, first_rows(public.tensors[EMBEDDING], new_rows), strict=True))
    with telling(f"distilling from {len(snippets.new):,} snippets (steps)") as on_progress:
        learned: Distilled = distill(
            model, params, begin, snippets, mesh=mesh, seed=seed, on_progress=on_progress
        )
    facts = {name: value for name, value in asdict(learned).items() if name != "rows"}
    if len(held_out.new):
        after = dict(zip(numbers, learned.rows, strict=True))
        apart = [distance(model, params, rows, held_out, mesh) for rows in (begin, after)]
        facts |= {"held_out_before": apart[0], "held_out_after": apart[1]}
    unseen = len(new_rows.old_ids.keys() - set(np.unique(snippets.new).tolist()))
    return {"rows": learned.rows, "snippets": len(snippets.new), "pieces in no snippet": unseen, **facts}


if __name__ == "__main__":
    exit_with_one_line(main)
