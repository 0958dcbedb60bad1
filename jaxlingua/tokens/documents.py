"""Examples to documents: encoded, fitted to the row, counted, cached."""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Bool

from jaxlingua.data.example import Example
from jaxlingua.errors import DataError
from jaxlingua.tokens import store
from jaxlingua.tokens.interface import Tokenizer
from jaxlingua.tokens.masks import assemble, prompt_tokens
from jaxlingua.tokens.store import Counts, Documents, Group

__all__ = ["Counts", "Documents", "Group", "encode", "prompt_tokens", "tokenize"]

EXAMPLES_AT_ONCE = 4096


def tokenize(
    examples: Sequence[Example],
    tokenizer: Tokenizer,
    *,
    row_length_tokens: int,
    too_long: Literal["cut", "drop"] = "cut",
    cache_folder: Path | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Documents:
    """Examples to documents, in their order: BOS if the tokenizer has one, text, EOS after each answer.

    Examples that do not end (`Example.ends`) have no EOS. Which tokens are targets comes from the one
    encoding that is trained on: a text is encoded in parts that end with an answer, and a token is a target
    if it carries any character of the answer. The EOS is one too.

    Args:
        too_long: documents of more than `row_length_tokens` positions lose their end ("cut") or are left out.
            Those whose targets are all beyond the row's end are left out either way. All is in `counts`.
        cache_folder: where the result is kept under its fingerprint, and where its tokens are read from.
        progress: called with the number of examples done and of all.
    Cost: about 1 million tokens a second on 4 cores, in the Rust threads of `tokenizers`.
    Raises: DataError if a text holds a lone surrogate.
    """
    fingerprint = _fingerprint(examples, tokenizer, row_length_tokens, too_long)
    folder = cache_folder and cache_folder / fingerprint[:32]
    if folder and (documents := store.read(folder)):
        return documents
    names = tuple(dict.fromkeys((example.source, example.language) for example in examples))
    documents, _ = encode(
        examples, tokenizer, names, row_length_tokens=row_length_tokens, too_long=too_long, progress=progress
    )
    documents = replace(documents, fingerprint=fingerprint)
    if not folder:
        return documents
    store.write(folder, documents)
    return store.read(folder) or documents


def encode(
    examples: Sequence[Example],
    tokenizer: Tokenizer,
    group_names: tuple[Group, ...],
    *,
    row_length_tokens: int,
    too_long: Literal["cut", "drop"],
    progress: Callable[[int, int], None] | None = None,
) -> tuple[Documents, Bool[np.ndarray, "examples"]]:
    """Documents in memory without a fingerprint, and which examples have one.

    Args:
        group_names: (entry, language) of all examples, and of others that there could be.
    """
    number = {group: i for i, group in enumerate(group_names)}
    groups = np.array([number[example.source, example.language] for example in examples], np.int32)
    batches = []
    for start in range(0, len(examples), EXAMPLES_AT_ONCE):
        batch = examples[start : start + EXAMPLES_AT_ONCE]
        batches.append(_fit(batch, tokenizer, row_length_tokens, too_long))
        if progress is not None:
            progress(start + len(batch), len(examples))
    return _join(batches, examples, groups, group_names)


class _Kept(NamedTuple):
    """Documents of one batch after cutting and dropping, and what happened to each of its examples."""

    tokens: np.ndarray
    target_mask: np.ndarray
    sizes: np.ndarray  # int64 [examples], 0 where dropped
    target_tokens: np.ndarray  # int64 [examples]
    target_bytes: np.ndarray  # int64 [examples]
    cut_tokens: np.ndarray  # int64 [examples]
    too_long: np.ndarray  # bool [examples], dropped for its length
    without_target: np.ndarray  # bool [examples], dropped since no target is left


def _fit(examples: Sequence[Example], tokenizer: Tokenizer, row_length_tokens: int, too_long: str) -> _Kept:
    """Encode; cut or drop what is longer than a row; drop what has no target left."""
    flat = assemble(
        [example.text for example in examples],
        [example.answers for example in examples],
        tokenizer,
        ends=[example.ends for example in examples],
    )
    limit = row_length_tokens + 1  # a document's last token needs no position
    ends = np.cumsum(flat.sizes)
    begins = ends - flat.sizes
    owner = np.repeat(np.arange(len(examples)), flat.sizes)
    first = np.zeros(len(flat.tokens), bool)
    first[begins] = True
    within = np.arange(len(owner)) - begins[owner]
    mask = flat.target_mask & ~first & (within < limit)  # nothing predicts the first token
    target_tokens = np.bincount(owner[mask], minlength=len(examples))
    dropped_long = (flat.sizes > limit) if too_long == "drop" else np.zeros(len(examples), bool)
    without_target = (target_tokens == 0) & ~dropped_long
    keep = ~dropped_long & ~without_target
    kept_tokens = keep[owner] & (within < limit)
    sizes = np.where(keep, np.minimum(flat.sizes, limit), 0)

    last_char = flat.char_ends[begins + np.maximum(sizes, 1) - 1]
    first_char = np.where(flat.target_mask[begins], flat.char_ends[begins], 0)
    target_bytes = np.array(
        [
            sum(len(example.text[max(a, low) : min(b, high)].encode()) for a, b in example.answers)
            if kept
            else 0
            for example, low, high, kept in zip(examples, first_char, last_char, keep, strict=True)
        ]
    )
    return _Kept(
        tokens=flat.tokens[kept_tokens],
        target_mask=mask[kept_tokens],
        sizes=sizes,
        target_tokens=np.where(keep, target_tokens, 0),
        target_bytes=target_bytes,
        cut_tokens=np.where(keep, flat.sizes - sizes, 0),
        too_long=dropped_long,
        without_target=without_target,
    )


def _join(
    batches: list[_Kept],
    examples: Sequence[Example],
    groups: np.ndarray,
    names: tuple[Group, ...],
) -> tuple[Documents, np.ndarray]:
    """All batches end to end, without the examples that were dropped; which were not; counts per group."""

    def joined(field: str, dtype: type) -> np.ndarray:
        return np.concatenate([np.zeros(0, dtype), *(getattr(batch, field) for batch in batches)]).astype(
            dtype
        )

    sizes, target_tokens = joined("sizes", np.int64), joined("target_tokens", np.int32)
    target_bytes, cut_tokens = joined("target_bytes", np.int32), joined("cut_tokens", np.int64)
    keep = sizes > 0
    per_example = {
        "examples": np.ones(len(examples)),
        "documents": keep,
        "tokens": sizes,
        "target_tokens": target_tokens,
        "target_bytes": target_bytes,
        "cut_documents": cut_tokens > 0,
        "cut_tokens": cut_tokens,
        "dropped_too_long": joined("too_long", bool),
        "dropped_without_target": joined("without_target", bool),
    }
    totals = {field: np.bincount(groups, values, len(names)) for field, values in per_example.items()}
    documents = Documents(
        tokens=joined("tokens", np.int32),
        target_mask=joined("target_mask", bool),
        starts=np.concatenate([[0], np.cumsum(sizes[keep])]),
        groups=groups[keep],
        indices=np.array([example.index for example in examples], np.int64)[keep],
        target_tokens=target_tokens[keep],
        target_bytes=target_bytes[keep],
        group_names=names,
        counts={
            name: Counts(**{field: int(values[i]) for field, values in totals.items()})
            for i, name in enumerate(names)
        },
        fingerprint="",
    )
    return documents, keep


def _fingerprint(
    examples: Sequence[Example], tokenizer: Tokenizer, row_length_tokens: int, too_long: str
) -> str:
    """Everything that decides the result: how it is made (1), tokenizer, settings and the text itself."""
    digest = hashlib.sha256(f"1 {tokenizer.fingerprint} {row_length_tokens} {too_long}".encode())
    for example in examples:
        try:
            text = example.text.encode()
        except UnicodeEncodeError as error:
            raise DataError(
                f"{example.source} (record {example.index}): character {error.start} is half of a surrogate "
                f"pair (U+{ord(example.text[error.start]):04X}), which no text can hold; repair the file"
            ) from error
        about = f"\n{example.source}\0{example.language}\0{example.index}\0{example.answers}\0{len(text)}\0"
        digest.update(about.encode() if example.ends else f"{about}open\0".encode())
        digest.update(text)
    return digest.hexdigest()
