"""Fast tokenizers: a `tokenizer.json` is taken exactly as it is written.

transformers may load the same file with other rules: for `LlamaTokenizer` it replaces the normalizer of the
file, which changes the ids of texts that begin with a space. The file is what the model's authors published.
"""

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import Tokenizer as RustTokenizer

from jaxlingua.errors import TokenizerError
from jaxlingua.tokens.interface import Encoding, Tokenizer, cover, find_files

FILES = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "chat_template.jinja")
# Not read, but kept and written again: other programs want them, such as llama.cpp a tokenizer.model.
KEPT = ("tokenizer.model", "added_tokens.json", "vocab.json", "merges.txt")


def load(path: str) -> Tokenizer:
    """A tokenizer from a folder or the hub, with the special tokens that its configuration names.

    Raises: TokenizerError if there is no `tokenizer.json`, if special tokens are missing or unknown to it, or
        if it would read control tokens out of ordinary text.
    Same as: transformers' AutoTokenizer with split_special_tokens, LlamaTokenizer's own rules aside.
    """
    folder = find_files(path, [*FILES, *KEPT])
    if not (folder / "tokenizer.json").is_file():
        if (folder / "tokenizer.model").is_file():
            raise TokenizerError(
                f"{path}: holds tokenizer.model but no tokenizer.json, and would be loaded with wrong pieces "
                f"or without BOS; use tokens.kind=sentencepiece"
            )
        raise TokenizerError(
            f"{path}: no tokenizer.json there; kind=huggingface reads fast tokenizers; write one with "
            f"transformers' save_pretrained, or use tokens.kind=sentencepiece for a tokenizer.model"
        )
    files = {name: (folder / name).read_bytes() for name in (*FILES, *KEPT) if (folder / name).is_file()}
    return from_files(files, path)


def from_files(files: dict[str, bytes], where: str) -> Tokenizer:
    """A tokenizer from the contents of its files."""
    rules = _json(files["tokenizer.json"], f"{where}/tokenizer.json")
    names = _special_tokens(files, where)
    control = {token["content"] for token in rules.get("added_tokens", []) if token["special"]} | set(
        names.values()
    )
    for token in rules.get("added_tokens", []):
        token["special"] = token["special"] or token["content"] in control
    rules["truncation"] = rules["padding"] = None  # a file that was saved in use may cut at 512 tokens
    published = _rust(rules, where)
    rules["post_processor"] = None  # it would add special tokens, and trim spaces off the offsets
    tokenizer = _rust(rules, where)
    middle = _without_prefix(rules)
    continuation = tokenizer if middle == rules else _rust(middle, where)
    vocabulary = tokenizer.get_vocab(with_added_tokens=True)
    for role, token in names.items():
        if token not in vocabulary:
            raise TokenizerError(
                f"{where}: {role}_token is '{token}', which tokenizer.json does not have; repair one"
            )
    control_ids = frozenset(vocabulary[token] for token in control)
    _refuse_silent_traps(published, names, control_ids, where)

    def encode(texts: list[str], continued: bool) -> list[Encoding]:
        pieces = (continuation if continued else tokenizer).encode_batch(texts, add_special_tokens=False)
        return [
            Encoding(np.array(p.ids, np.int32), cover(np.array(p.offsets, np.int32).reshape(-1, 2)))
            for p in pieces
        ]

    def write(folder: Path) -> None:
        for name, content in files.items():
            (folder / name).write_bytes(content)

    ids = {role: vocabulary[token] for role, token in names.items()}
    return Tokenizer(
        vocab_size=max(vocabulary.values()) + 1,
        bos_id=ids.get("bos"),
        eos_id=ids["eos"],
        pad_id=ids.get("pad", ids["eos"]),
        control_ids=control_ids,
        fingerprint=hashlib.sha256(
            files["tokenizer.json"] + json.dumps(ids, sort_keys=True).encode()
        ).hexdigest(),
        encode_pieces=encode,
        decode_pieces=tokenizer.decode,
        write_files=write,
        name_piece=lambda number: tokenizer.id_to_token(number) or "",
    )


def _special_tokens(files: dict[str, bytes], where: str) -> dict[str, str]:
    """bos, eos and pad as far as the configuration has them; eos must be there."""
    names = {}
    for file in ("special_tokens_map.json", "tokenizer_config.json"):  # the latter wins, as in transformers
        given = _json(files[file], f"{where}/{file}") if file in files else {}
        for role in ("bos", "eos", "pad"):
            token = given.get(f"{role}_token")
            token = token["content"] if isinstance(token, dict) else token
            if token == "" and role != "pad":
                raise TokenizerError(
                    f"{where}/{file}: {role}_token is empty, as in files converted for LLaMA 1; write its "
                    f"name there ('<s>' and '</s>' for LLaMA), or null for a tokenizer that has no BOS"
                )
            if token:
                names[role] = token
    if "eos" not in names:
        raise TokenizerError(
            f"{where}: no eos_token named in tokenizer_config.json; every answer ends with one; "
            f'add for instance "eos_token": "</s>"'
        )
    return names


def _refuse_silent_traps(
    tokenizer: RustTokenizer, names: dict[str, str], control_ids: frozenset[int], where: str
) -> None:
    size = tokenizer.get_vocab_size(with_added_tokens=False)
    if not tokenizer.encode("Hello, world 1", add_special_tokens=False).ids or size <= len(control_ids):
        raise TokenizerError(
            f"{where}: a vocabulary of {size} pieces that encodes nothing; the pieces were not saved "
            f"with it; convert it again or use tokens.kind=sentencepiece"
        )
    front = tokenizer.encode("a", add_special_tokens=True).ids[0]
    if "bos" not in names and front in control_ids:
        raise TokenizerError(
            f"{where}: tokenizer.json begins each text with '{tokenizer.id_to_token(front)}' but "
            f'tokenizer_config.json names no bos_token; add "bos_token": "{tokenizer.id_to_token(front)}"'
        )
    for token in (tokenizer.id_to_token(i) for i in sorted(control_ids)):
        found = control_ids.intersection(tokenizer.encode(f"a{token} b", add_special_tokens=False).ids)
        if found and any(tokenizer.id_to_token(i) in names.values() for i in found):
            raise TokenizerError(
                f"{where}: the characters '{token}' in a text become a control token, so a document could "
                f"end another; use a tokenizer whose vocabulary keeps them apart"
            )


def _without_prefix(rules: dict[str, Any]) -> dict[str, Any]:
    """The same rules for text in the middle of a document: no space is put in front."""

    def strip(part: Any) -> Any:
        if isinstance(part, list):
            return [strip(element) for element in part if not _prepends(element)]
        if not isinstance(part, dict):
            return part
        part = {key: strip(value) for key, value in part.items() if not _prepends(value)}
        if "prepend_scheme" in part:
            part["prepend_scheme"] = "never"
        if "add_prefix_space" in part:
            part["add_prefix_space"] = False
        return part

    stripped = {
        key: strip(rules.get(key)) for key in ("normalizer", "pre_tokenizer") if not _prepends(rules.get(key))
    }
    return {**rules, "normalizer": None, **stripped}


def _prepends(part: Any) -> bool:
    return isinstance(part, dict) and part.get("type") == "Prepend"


def _rust(rules: dict[str, Any], where: str) -> RustTokenizer:
    try:
        tokenizer = RustTokenizer.from_str(json.dumps(rules))
    except Exception as error:  # the Rust side raises plain Exception
        raise TokenizerError(
            f"{where}/tokenizer.json: cannot be read ({error}); download or save it again"
        ) from error
    tokenizer.encode_special_tokens = True  # control tokens in a text are text
    return tokenizer


def _json(content: bytes, where: str) -> dict[str, Any]:
    try:
        return json.loads(content)
    except ValueError as error:
        raise TokenizerError(f"{where}: not valid JSON ({error}); download or save it again") from error
