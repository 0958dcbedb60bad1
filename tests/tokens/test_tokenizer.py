"""Tokenizers: the learned one, and the traps that others fall into without a word."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer as RustTokenizer
from tokenizers import models

from jaxlingua.config import TokensConfig
from jaxlingua.errors import ConfigError, DataError, MachineError, TokenizerError
from jaxlingua.tokens.interface import cover
from jaxlingua.tokens.tokenizer import load_tokenizer
from tests.tiny import TINY_LANGUAGES, tiny_parallel, tiny_tokenizer

any_text = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
NEVER = pytest.fail


def learned(vocab_size: int = 300, folder: Path | None = None, texts=None):
    texts = texts or [line for lines in tiny_parallel().values() for line in lines]
    return load_tokenizer(TokensConfig(kind="learned", vocab_size=vocab_size), lambda: texts, folder)


def huggingface(folder: Path | str):
    return load_tokenizer(
        TokensConfig(kind="huggingface", path=str(folder)), lambda: NEVER("not asked for"), None
    )


def saved(tmp_path: Path, rules=None, config=None) -> Path:
    """A folder with the tiny tokenizer, its files changed by `rules` and `config`."""
    tiny_tokenizer().save(tmp_path)
    for name, change in (("tokenizer.json", rules), ("tokenizer_config.json", config)):
        if change is not None:
            content = json.loads((tmp_path / name).read_text())
            change(content)
            (tmp_path / name).write_text(json.dumps(content))
    return tmp_path


def refusal(folder: Path | str) -> str:
    with pytest.raises(TokenizerError) as error:
        huggingface(folder)
    assert "\n" not in str(error.value)
    return str(error.value)


# ── learned ──────────────────────────────────────────────────────────────────
def test_a_learned_tokenizer_has_its_special_tokens_first():
    tokenizer = learned()
    assert (tokenizer.pad_id, tokenizer.bos_id, tokenizer.eos_id, tokenizer.vocab_size) == (0, 1, 2, 300)


@given(any_text)
@settings(max_examples=200, deadline=None)
def test_every_string_comes_back_and_its_offsets_cover_every_character(text):
    tokenizer = tiny_tokenizer()
    for continuation in (False, True):
        (encoding,) = tokenizer.encode_batch([text], continuation=continuation)
        assert tokenizer.decode(encoding.ids) == text
        covered = np.zeros(len(text), bool)
        for start, end in encoding.offsets:
            assert start < end
            covered[start:end] = True
        assert covered.all()


def test_the_same_texts_give_the_same_tokenizer_whatever_the_number_of_threads():
    program = (
        "from tests.tiny import tiny_parallel; from jaxlingua.tokens import learned; import hashlib;"
        "texts = [line for lines in tiny_parallel().values() for line in lines] * 50;"
        "print(hashlib.sha256(learned.learn(texts, 350)['tokenizer.json']).hexdigest())"
    )
    root = Path(__file__).parents[2]
    hashes = {
        subprocess.run(
            [sys.executable, "-c", program],
            cwd=root, env={"PATH": "", "PYTHONPATH": str(root), "RAYON_NUM_THREADS": threads, "JAX_PLATFORMS": "cpu"},
            check=True, capture_output=True, text=True,
        ).stdout
        for threads in ("1", "4")
    }  # fmt: skip
    assert len(hashes) == 1
    assert len(hashes.pop().strip()) == 64


def test_words_keep_their_vowel_signs_and_digits_are_spelled_singly():
    """The usual pattern takes marks for punctuation, so that no piece of Hindi can hold a whole word."""
    tokenizer = learned(400, texts=["नमस्ते दुनिया 2024"] * 40)
    pieces = [tokenizer.decode([i]) for i in tokenizer.encode_batch(["नमस्ते दुनिया 2024"])[0].ids]
    assert pieces == ["नमस्ते", " दुनिया", " ", "2", "0", "2", "4"]


def test_a_run_goes_on_with_the_tokenizer_it_began_with(tmp_path):
    first = learned(300, tmp_path / "tokenizer")
    config = TokensConfig(kind="learned", vocab_size=300)
    again = load_tokenizer(config, lambda: NEVER("learned a second time"), tmp_path / "tokenizer")
    assert again.fingerprint == first.fingerprint
    text = tiny_parallel()["tha_Thai"]
    assert [e.ids.tolist() for e in again.encode_batch(text)] == [
        e.ids.tolist() for e in first.encode_batch(text)
    ]
    assert sorted(path.name for path in (tmp_path / "tokenizer").iterdir()) == [
        "tokenizer.json",
        "tokenizer_config.json",
    ]


def test_a_run_killed_while_it_keeps_its_tokenizer_learns_it_again(tmp_path, monkeypatch):
    replaced = []

    def killed_at_the_second(self, target):
        if replaced:
            raise KeyboardInterrupt
        replaced.append(self.rename(target))

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", killed_at_the_second)
        with pytest.raises(KeyboardInterrupt):
            learned(300, tmp_path)
    assert learned(300, tmp_path).fingerprint == learned(300).fingerprint


def test_a_run_that_begins_anew_learns_its_own(tmp_path):
    learned(300, tmp_path)
    config = TokensConfig(vocab_size=280)
    anew = load_tokenizer(config, lambda: ["other text " * 9], tmp_path, is_resumed=False)
    assert anew.fingerprint == load_tokenizer(config, lambda: ["other text " * 9], None).fingerprint


def test_another_vocabulary_size_in_the_same_run_folder_is_refused(tmp_path):
    learned(300, tmp_path)
    with pytest.raises(TokenizerError) as error:
        learned(301, tmp_path)
    assert str(error.value) == (
        f"{tmp_path}: the tokenizer there was learned with tokens.vocab_size=300, the configuration has 301; "
        f"a run keeps its tokenizer; choose another run.folder"
    )


def test_nothing_to_learn_from_is_refused_in_one_line():
    with pytest.raises(DataError, match="tokens: no training text to learn a tokenizer from"):
        learned(texts=[""])


# ── every kind ───────────────────────────────────────────────────────────────
@pytest.mark.parametrize("text", ["</s>", "a</s>b", "<s> <pad>", "<s><s></s>"])
def test_control_tokens_in_a_text_are_text(text, tmp_path):
    """Otherwise a web page that mentions </s> ends the document it stands in."""
    for tokenizer in (tiny_tokenizer(), huggingface(saved(tmp_path))):
        for continuation in (False, True):
            (encoding,) = tokenizer.encode_batch([text], continuation=continuation)
            assert not tokenizer.control_ids.intersection(encoding.ids.tolist())
            assert tokenizer.decode(encoding.ids) == text


def test_decode_leaves_out_control_tokens_and_ids_beyond_the_vocabulary():
    tokenizer = tiny_tokenizer()
    ids = tokenizer.encode_batch(["dog"])[0].ids.tolist()
    assert tokenizer.decode([1, *ids, 2, 0, 0, tokenizer.vocab_size, 511]) == "dog"
    assert tokenizer.decode([]) == ""


def test_pieces_without_a_character_of_their_own_lead_to_the_next():
    offsets = np.array([[0, 0], [0, 1], [1, 1], [1, 1], [1, 4], [4, 4]], np.int32)
    assert cover(offsets).tolist() == [[0, 1], [0, 1], [1, 4], [1, 4], [1, 4], [1, 4]]
    assert cover(np.zeros((0, 2), np.int32)).tolist() == []


@pytest.mark.parametrize("kind", ["huggingface", "sentencepiece"])
def test_an_empty_or_wrong_path_is_refused_in_one_line(kind):
    def load(path):
        return load_tokenizer(
            TokensConfig.model_construct(**{**TokensConfig().model_dump(), "kind": kind, "path": path}),
            list,
            None,
        )

    with pytest.raises(ConfigError, match=f"tokens.path: empty, with tokens.kind={kind}; give a folder"):
        load("")
    with pytest.raises(
        TokenizerError, match="tokens.path: './nowhere' does not exist; give a folder or a hub name"
    ):
        load("./nowhere")
    with pytest.raises(
        MachineError, match="tokens.path: 'nobody/nothing' is no folder here, and it is not in the cache, and"
    ):
        load("nobody/nothing")


# ── traps of other people's folders ──────────────────────────────────────────
def test_a_saved_tokenizer_loads_with_the_same_ids(tmp_path):
    loaded = huggingface(saved(tmp_path))
    assert loaded.fingerprint == tiny_tokenizer().fingerprint
    assert (loaded.bos_id, loaded.eos_id, loaded.pad_id, loaded.vocab_size) == (1, 2, 0, 384)
    for language in TINY_LANGUAGES:
        for ours, theirs in zip(
            loaded.encode_batch(tiny_parallel()[language]),
            tiny_tokenizer().encode_batch(tiny_parallel()[language]),
            strict=True,
        ):
            assert ours.ids.tolist() == theirs.ids.tolist()


def test_a_folder_with_only_a_sentencepiece_model_is_refused_with_the_way_out(tmp_path):
    (tmp_path / "tokenizer.model").write_bytes(b"anything")
    assert refusal(tmp_path) == (
        f"{tmp_path}: holds tokenizer.model but no tokenizer.json, and would be loaded with wrong pieces or without "
        f"BOS; use tokens.kind=sentencepiece"
    )


def test_a_folder_without_a_tokenizer_is_refused(tmp_path):
    assert "no tokenizer.json there; kind=huggingface reads fast tokenizers" in refusal(tmp_path)


def test_an_end_token_that_nobody_names_is_refused(tmp_path):
    assert "no eos_token named in tokenizer_config.json" in refusal(
        saved(tmp_path, config=lambda c: c.pop("eos_token"))
    )
    (tmp_path / "tokenizer_config.json").unlink()
    assert "no eos_token named in tokenizer_config.json" in refusal(tmp_path)


def test_an_empty_bos_as_in_files_for_llama_1_is_refused(tmp_path):
    folder = saved(tmp_path, config=lambda c: c.update(bos_token="", tokenizer_class="LLaMATokenizer"))
    assert (
        f"{folder}/tokenizer_config.json: bos_token is empty, as in files converted for LLaMA 1"
        in refusal(folder)
    )


def test_a_bos_that_the_file_adds_and_nobody_names_is_refused(tmp_path):
    folder = saved(tmp_path, config=lambda c: c.pop("bos_token"))
    assert (
        'begins each text with \'<s>\' but tokenizer_config.json names no bos_token; add "bos_token": "<s>"'
        in refusal(folder)
    )


def test_a_bos_that_is_named_and_not_added_by_the_file_is_put_once(tmp_path):
    """transformers adds none then, and says nothing."""
    from jaxlingua.tokens.documents import prompt_tokens

    tokenizer = huggingface(saved(tmp_path, rules=lambda r: r.update(post_processor=None)))
    assert (
        prompt_tokens(["dog"], tokenizer)[0].tolist() == prompt_tokens(["dog"], tiny_tokenizer())[0].tolist()
    )
    assert prompt_tokens(["dog"], tokenizer)[0].tolist().count(1) == 1


def test_a_special_token_that_the_vocabulary_lacks_is_refused(tmp_path):
    folder = saved(tmp_path, config=lambda c: c.update(eos_token="<|end|>"))
    assert "eos_token is '<|end|>', which tokenizer.json does not have; repair one" in refusal(folder)


def test_a_special_token_written_as_a_dictionary_is_understood(tmp_path):
    folder = saved(tmp_path, config=lambda c: c.update(eos_token={"content": "</s>", "special": True}))
    assert huggingface(folder).eos_id == 2


def test_a_vocabulary_of_three_pieces_is_refused(tmp_path):
    """What transformers makes of LlamaTokenizer(vocab_file=...): every encoding is empty."""
    tokenizer = RustTokenizer(models.BPE())
    tokenizer.add_special_tokens(["<unk>", "<s>", "</s>"])
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    (tmp_path / "tokenizer_config.json").write_text('{"bos_token": "<s>", "eos_token": "</s>"}')
    assert "pieces that encodes nothing; the pieces were not saved with it" in refusal(tmp_path)


def test_truncation_and_padding_saved_with_a_tokenizer_are_not_applied(tmp_path):
    folder = saved(tmp_path)
    tokenizer = RustTokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.enable_truncation(4)
    tokenizer.enable_padding(length=16)
    tokenizer.save(str(folder / "tokenizer.json"))
    text = "dog sees small house"
    short, long = huggingface(folder).encode_batch(["d", text])
    assert len(short.ids) == 1
    assert long.ids.tolist() == tiny_tokenizer().encode_batch([text])[0].ids.tolist()


def test_an_end_token_that_is_not_marked_special_is_still_no_part_of_a_text(tmp_path):
    def unmark(rules):
        for token in rules["added_tokens"]:
            token["special"] = False

    tokenizer = huggingface(saved(tmp_path, rules=unmark))
    assert 2 not in tokenizer.encode_batch(["a</s>b"])[0].ids
    assert tokenizer.decode([2]) == ""


def test_a_vocabulary_that_reads_control_tokens_out_of_text_is_refused(tmp_path):
    """A unigram model finds the piece </s> in a text by itself, whatever is said about special tokens."""
    pieces = [("<unk>", 0.0), ("<s>", 0.0), ("</s>", 0.0), *((chr(c), -5.0) for c in range(32, 127))]
    tokenizer = RustTokenizer(models.Unigram(pieces, 0, False))
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    (tmp_path / "tokenizer_config.json").write_text('{"bos_token": "<s>", "eos_token": "</s>"}')
    assert "in a text become a control token, so a document could end another" in refusal(tmp_path)


SPACE = "▁"
METASPACE = {"type": "Metaspace", "replacement": SPACE, "prepend_scheme": "first", "split": False}
BYTES = {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True}


@pytest.mark.parametrize(
    ("part", "rule"),
    [
        ("normalizer", {"type": "Prepend", "prepend": SPACE}),
        (
            "normalizer",
            {"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": SPACE}, {"type": "NFC"}]},
        ),
        ("pre_tokenizer", METASPACE),
        ("pre_tokenizer", METASPACE | {"prepend_scheme": "always"}),
        ("pre_tokenizer", {"type": "Sequence", "pretokenizers": [METASPACE]}),
        ("pre_tokenizer", BYTES),
    ],
)
def test_whichever_rule_puts_a_space_in_front_does_so_only_where_a_document_begins(tmp_path, part, rule):
    space = "Ġ" if rule is BYTES else SPACE
    pieces = [space, *map(chr, range(33, 127)), "<s>", "</s>"]
    tokenizer = RustTokenizer(models.BPE({piece: i for i, piece in enumerate(pieces)}, []))
    rules = json.loads(tokenizer.to_str()) | {part: rule}
    (tmp_path / "tokenizer.json").write_text(json.dumps(rules))
    (tmp_path / "tokenizer_config.json").write_text('{"bos_token": "<s>", "eos_token": "</s>"}')
    loaded = huggingface(tmp_path)
    letter = pieces.index("b")
    assert loaded.encode_batch(["b"])[0].ids.tolist() == [0, letter]
    assert loaded.encode_batch(["b"], continuation=True)[0].ids.tolist() == [letter]


def test_a_broken_file_is_refused_by_name(tmp_path):
    folder = saved(tmp_path)
    for name in ("tokenizer_config.json", "tokenizer.json"):
        (folder / name).write_text((folder / name).read_text()[:-20])
        assert refusal(folder).startswith(f"{folder}/{name}: not valid JSON")
    (folder / "tokenizer.json").write_text('{"version": "9"}')
    (folder / "tokenizer_config.json").write_text('{"eos_token": "</s>"}')
    assert refusal(folder).startswith(f"{folder}/tokenizer.json: cannot be read")


def test_the_data_side_needs_no_jax_and_no_tensorflow():
    program = (
        "import sys; import jaxlingua.tokens.tokenizer, jaxlingua.tokens.batches, jaxlingua.tokens.documents;"
        "print([name for name in ('jax', 'tensorflow', 'torch', 'transformers') if name in sys.modules])"
    )
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=root, check=True, capture_output=True, text=True
    )
    assert done.stdout.strip() == "[]"
