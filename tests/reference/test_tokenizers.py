"""Our ids against sentencepiece's own and against transformers'."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import sentencepiece
from hypothesis import given, settings
from hypothesis import strategies as st
from sentencepiece import sentencepiece_model_pb2
from tokenizers import Tokenizer as RustTokenizer
from tokenizers import decoders, models, normalizers, processors
from transformers import AutoTokenizer

from jaxlingua.config import TokensConfig
from jaxlingua.data.example import Example
from jaxlingua.errors import TokenizerError
from jaxlingua.tokens.documents import prompt_tokens, tokenize
from jaxlingua.tokens.tokenizer import Tokenizer, load_tokenizer
from tests.tiny import TINY_LANGUAGES, tiny_parallel, tiny_tokenizer

HARD = (
    "", " ", "  two  spaces ", " leading", "trailing ", "\n", "\n\nnew lines\n", "\ttab", "▁", "▁x", "a▁b",
    "<s>", "</s>", "a</s>b", "<unk><pad>", "<0x0A>", "🦙 llama 世界", "👩‍👩‍👧", "🇮🇩", "é́ x", "\u00a0\u3000", "�", "123 4567",
    "ꦧꦱꦗꦮ", "नमस्ते", "שָׁלוֹם", "\u200f\u202b",
)  # fmt: skip
any_text = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)


@pytest.fixture(scope="module")
def model_file(tmp_path_factory) -> Path:
    """A small model in LLaMA's manner, trained here: BPE, byte fallback, dummy prefix, split digits."""
    folder = tmp_path_factory.mktemp("sentencepiece")
    lines = [line for lines in tiny_parallel().values() for line in lines] + ["numbers 0 1 2 3 4 5 6 7 8 9."]
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(lines),
        model_prefix=str(folder / "tokenizer"),
        vocab_size=420,
        model_type="bpe",
        byte_fallback=True,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        split_digits=True,
        minloglevel=2,
    )
    return folder / "tokenizer.model"


@pytest.fixture(scope="module")
def own(model_file) -> sentencepiece.SentencePieceProcessor:
    return sentencepiece.SentencePieceProcessor(model_file=str(model_file))


@pytest.fixture(scope="module")
def tokenizer(model_file) -> Tokenizer:
    return load_tokenizer(TokensConfig(kind="sentencepiece", path=str(model_file)), list, None)


@pytest.fixture(scope="module")
def llama_json(model_file, tmp_path_factory) -> Path:
    """The same pieces as a `tokenizer.json` in the layout of LLaMA 2."""
    proto = sentencepiece_model_pb2.ModelProto()
    proto.ParseFromString(model_file.read_bytes())
    vocabulary = {piece.piece: i for i, piece in enumerate(proto.pieces)}
    merges = [
        (-piece.score, vocabulary[piece.piece[:cut]], piece.piece[:cut], piece.piece[cut:])
        for piece in proto.pieces
        for cut in range(1, len(piece.piece))
        if piece.type == 1 and piece.piece[:cut] in vocabulary and piece.piece[cut:] in vocabulary
    ]
    pairs = [(left, right) for *_, left, right in sorted(merges)]
    rust = RustTokenizer(models.BPE(vocabulary, pairs, unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    rust.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    steps = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    rust.decoder = decoders.Sequence(steps)
    rust.add_special_tokens(["<unk>", "<s>", "</s>"])
    rust.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    folder = tmp_path_factory.mktemp("llama")
    rust.save(str(folder / "tokenizer.json"))
    names = {
        "bos_token": "<s>",
        "eos_token": "</s>",
        "unk_token": "<unk>",
        "tokenizer_class": "PreTrainedTokenizerFast",
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(names))
    return folder


def ids(tokenizer: Tokenizer, text: str, *, continuation: bool = False) -> list[int]:
    return tokenizer.encode_batch([text], continuation=continuation)[0].ids.tolist()


# ── sentencepiece ────────────────────────────────────────────────────────────
def test_special_ids_are_those_of_the_model(tokenizer, own):
    assert (tokenizer.bos_id, tokenizer.eos_id, tokenizer.vocab_size) == (
        own.bos_id(),
        own.eos_id(),
        own.vocab_size(),
    )
    assert tokenizer.pad_id == own.eos_id(), "LLaMA's models have no padding token"
    assert tokenizer.control_ids == {1, 2}


def test_ids_equal_sentencepiece_on_hard_strings_and_every_script(tokenizer, own):
    texts = [*HARD, *(line for language in TINY_LANGUAGES for line in tiny_parallel()[language])]
    for text, encoding in zip(texts, tokenizer.encode_batch(texts), strict=True):
        assert encoding.ids.tolist() == own.encode(text), repr(text)
        assert tokenizer.decode(encoding.ids) == own.decode(own.encode(text)), repr(text)


@given(any_text)
@settings(max_examples=150, deadline=None)
def test_ids_equal_sentencepiece_on_any_string(tokenizer, own, text):
    assert ids(tokenizer, text) == own.encode(text)


def test_ids_equal_sentencepiece_on_real_text(tokenizer, own, shared_data):
    texts = []
    for path in sorted((shared_data / "flores200").glob("*_*.jsonl")):
        texts += [json.loads(line)["text"] for line in path.read_text(encoding="utf-8").splitlines()[:100]]
    assert len(texts) >= 1000
    for text, encoding in zip(texts, tokenizer.encode_batch(texts), strict=True):
        assert encoding.ids.tolist() == own.encode(text)


def test_the_middle_of_a_document_gets_no_dummy_prefix(tokenizer, model_file):
    """Against sentencepiece with the same model, told not to put a prefix."""
    proto = sentencepiece_model_pb2.ModelProto()
    proto.ParseFromString(model_file.read_bytes())
    proto.normalizer_spec.add_dummy_prefix = False
    without = sentencepiece.SentencePieceProcessor(model_proto=proto.SerializeToString())
    for text in [*HARD, *tiny_parallel()["eng_Latn"]]:
        assert ids(tokenizer, text, continuation=True) == without.encode(text), repr(text)
    assert ids(tokenizer, "dog") != ids(tokenizer, "dog", continuation=True)


def test_a_conversation_reads_back_without_a_space_after_each_answer(tokenizer):
    text = "dog?\nking\ncat?\nbird"
    talk = Example("chat", 0, "eng_Latn", text, ((5, 9), (15, 19)))
    documents = tokenize([talk], tokenizer, row_length_tokens=64)
    assert tokenizer.decode(documents.tokens) == text
    assert documents.tokens.tolist().count(tokenizer.bos_id) == 1
    assert documents.tokens.tolist().count(tokenizer.eos_id) == 2
    (prompt,) = prompt_tokens([talk], tokenizer)
    assert documents.tokens[: len(prompt)].tolist() == prompt.tolist()


@given(any_text)
@settings(max_examples=150, deadline=None)
def test_offsets_are_code_points_and_cover_the_text(tokenizer, text):
    """tensorflow-text gives bytes, and gives all but the last byte of a character no range at all."""
    (encoding,) = tokenizer.encode_batch([text])
    covered = np.zeros(len(text), bool)
    for start, end in encoding.offsets:
        assert 0 <= start < end <= len(text)
        covered[start:end] = True
    assert covered.all()


def test_offsets_name_the_characters_of_each_piece(tokenizer, own):
    text = "cat 🦙世 dog"
    (encoding,) = tokenizer.encode_batch([text])
    for piece, (start, end) in zip(own.id_to_piece(own.encode(text)), encoding.offsets, strict=True):
        if not piece.startswith("<0x") and piece != "▁":
            assert piece.replace("▁", " ").strip() == text[start:end].strip()
    llama = [i for i, (a, b) in enumerate(encoding.offsets.tolist()) if (a, b) == (4, 5)]
    assert len(llama) == 4, "the four bytes of one character, each with its range"


def test_all_bytes_of_an_unknown_character_are_learned(tokenizer):
    example = Example("news", 0, "eng_Latn", "dog\n🦙", ((4, 5),))
    documents = tokenize([example], tokenizer, row_length_tokens=64)
    assert documents.target_tokens.tolist() == [5]
    assert tokenizer.decode(documents.tokens[documents.target_mask]) == "🦙"


def test_the_fast_tokenizer_of_tensorflow_text_would_have_been_seen_here(tokenizer, own, model_file):
    """It takes a BPE model without an error and gives other ids; ours are compared with sentencepiece's above."""
    import tensorflow_text

    wrong = tensorflow_text.FastSentencepieceTokenizer(model_file.read_bytes())
    texts = [line for language in TINY_LANGUAGES for line in tiny_parallel()[language]]
    given = wrong.tokenize(texts).to_list()
    assert sum(a != own.encode(text) for a, text in zip(given, texts, strict=True)) > 10
    assert all(ids(tokenizer, text) == own.encode(text) for text in texts[::40])


def test_a_model_without_bos_gets_none_and_one_without_end_is_refused(model_file, tmp_path):
    proto = sentencepiece_model_pb2.ModelProto()
    proto.ParseFromString(model_file.read_bytes())
    proto.trainer_spec.bos_id = -1
    (tmp_path / "tokenizer.model").write_bytes(proto.SerializeToString())
    loaded = load_tokenizer(TokensConfig(kind="sentencepiece", path=str(tmp_path)), list, None)
    assert loaded.bos_id is None
    assert prompt_tokens(["dog"], loaded)[0].tolist() == ids(loaded, "dog")
    proto.trainer_spec.eos_id = -1
    (tmp_path / "tokenizer.model").write_bytes(proto.SerializeToString())
    with pytest.raises(TokenizerError, match="tokenizer.model: has no end token"):
        load_tokenizer(TokensConfig(kind="sentencepiece", path=str(tmp_path)), list, None)


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({}, "no tokenizer.model there; give its path, or use tokens.kind=huggingface"),
        ({"tokenizer.model": b"\xff\xff not a model"}, "tokenizer.model: not a SentencePiece model"),
        ({"tokenizer.model": b""}, "tokenizer.model: a SentencePiece model without pieces"),
        (
            {"tokenizer.model": b"x", "added_tokens.json": b'{"<pad>": 32000}'},
            "added_tokens.json: adds tokens that",
        ),
    ],
)
def test_folders_that_are_no_model_are_refused_in_one_line(tmp_path, files, message):
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    with pytest.raises(TokenizerError, match=message) as error:
        load_tokenizer(TokensConfig(kind="sentencepiece", path=str(tmp_path)), list, None)
    assert "\n" not in str(error.value)


def test_without_tensorflow_text_the_error_says_what_to_install(model_file, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorflow_text", None)
    with pytest.raises(TokenizerError, match=r'it is an extra: pip install "jaxlingua\[text\]"'):
        load_tokenizer(TokensConfig(kind="sentencepiece", path=str(model_file)), list, None)


def test_loading_is_silent_and_hides_accelerators_from_tensorflow(model_file):
    program = (
        "from jaxlingua.config import TokensConfig; from jaxlingua.tokens.tokenizer import load_tokenizer;"
        f"t = load_tokenizer(TokensConfig(kind='sentencepiece', path={str(model_file)!r}), list, None);"
        "t.encode_batch(['dog']); import tensorflow as tf; print(tf.config.get_visible_devices('GPU'))"
    )
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=root, check=True, capture_output=True, text=True
    )
    assert done.stdout.strip() == "[]"
    assert done.stderr == ""


# ── transformers ─────────────────────────────────────────────────────────────
def test_a_learned_tokenizer_is_the_same_in_transformers(tmp_path):
    tiny_tokenizer().save(tmp_path)
    theirs = AutoTokenizer.from_pretrained(tmp_path)
    ours = tiny_tokenizer()
    assert len(theirs) == ours.vocab_size
    assert (theirs.bos_token_id, theirs.eos_token_id, theirs.pad_token_id) == (
        ours.bos_id,
        ours.eos_id,
        ours.pad_id,
    )
    for text in [*HARD, *(tiny_parallel()[language][0] for language in TINY_LANGUAGES)]:
        assert theirs(text, split_special_tokens=True)["input_ids"] == prompt_tokens([text], ours)[0].tolist()
        assert theirs.decode(ids(ours, text)) == ours.decode(ids(ours, text)) == text


def test_a_fast_tokenizer_has_the_ids_of_sentencepiece_and_of_transformers(llama_json, own):
    ours = load_tokenizer(TokensConfig(kind="huggingface", path=str(llama_json)), list, None)
    theirs = AutoTokenizer.from_pretrained(llama_json)
    for text in [*HARD, *(tiny_parallel()[language][0] for language in TINY_LANGUAGES)]:
        assert ids(ours, text) == own.encode(text), repr(text)
        assert prompt_tokens([text], ours)[0].tolist() == theirs(text, split_special_tokens=True)["input_ids"]


def test_the_class_that_rewrites_the_file_does_not_reach_us(llama_json, own, tmp_path):
    """transformers 5 replaces the rules of the file where tokenizer_class says Llama: no prefix before a space."""
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (tmp_path / name).write_text(
            (llama_json / name).read_text().replace("PreTrainedTokenizerFast", "LlamaTokenizer")
        )
    ours = load_tokenizer(TokensConfig(kind="huggingface", path=str(tmp_path)), list, None)
    theirs = AutoTokenizer.from_pretrained(tmp_path, split_special_tokens=True)
    assert ids(ours, " dog") == own.encode(" dog")
    assert theirs(" dog", add_special_tokens=False)["input_ids"] != own.encode(" dog"), (
        "then this trap is gone"
    )
    assert ids(ours, "dog") == theirs("dog", add_special_tokens=False)["input_ids"]


def test_the_middle_of_a_document_is_the_same_for_both_kinds(llama_json, tokenizer):
    fast = load_tokenizer(TokensConfig(kind="huggingface", path=str(llama_json)), list, None)
    for text in [*HARD, "dog", "quiet king"]:
        assert ids(fast, text, continuation=True) == ids(tokenizer, text, continuation=True), repr(text)


@pytest.mark.parametrize("kind", ["huggingface", "sentencepiece"])
def test_a_saved_tokenizer_is_the_same_again(kind, llama_json, model_file, tmp_path):
    path = {"huggingface": llama_json, "sentencepiece": model_file}[kind]
    first = load_tokenizer(TokensConfig(kind=kind, path=str(path)), list, None)
    first.save(tmp_path / "export")
    again = load_tokenizer(TokensConfig(kind=kind, path=str(tmp_path / "export")), list, None)
    assert again.fingerprint == first.fingerprint
    assert prompt_tokens(list(HARD), again)[3].tolist() == prompt_tokens(list(HARD), first)[3].tolist()


def test_an_exported_sentencepiece_model_has_its_bos_in_transformers(tokenizer, tmp_path):
    """Without add_bos_token in its configuration transformers would add none."""
    tokenizer.save(tmp_path)
    theirs = AutoTokenizer.from_pretrained(tmp_path)
    assert theirs("dog sees house")["input_ids"] == prompt_tokens(["dog sees house"], tokenizer)[0].tolist()
