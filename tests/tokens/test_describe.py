"""What is shown of a stage: its counts, and documents piece by piece."""

import io
import json
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console
from tokenizers import Tokenizer as RustTokenizer
from tokenizers import decoders, models, normalizers, trainers

from jaxlingua.config import StageConfig
from jaxlingua.data.example import Example
from jaxlingua.data.leaks import Leaks
from jaxlingua.data.mixtures import Count, StageExamples
from jaxlingua.tokens import describe, facts, fast, show
from jaxlingua.tokens.batches import stage_batches
from jaxlingua.tokens.describe import describe_stage, first_documents, sample_rows
from jaxlingua.tokens.documents import tokenize
from jaxlingua.tokens.interface import Tokenizer
from jaxlingua.tokens.stages import Stage
from tests.tiny import TINY_LANGUAGES, tiny_parallel, tiny_tokenizer, tiny_translations

# Two answers, a space where the second question begins, a tab, and a sign that no tokenizer here has whole.
CHAT = Example("chat", 0, "eng_Latn", "the dog?\n red house 𝄞\t?\nold", ((9, 21), (24, 27)))


def stage_of(examples: list[Example], tokenizer: Tokenizer, row_length_tokens: int = 256) -> Stage:
    """A stage of one entry, as many steps as it needs for one pass."""
    entry = examples[0].source
    config = StageConfig.model_validate({"name": "s", "mixture": entry, "epochs": 1})
    documents = {entry: tokenize(examples, tokenizer, row_length_tokens=row_length_tokens)}
    batches = stage_batches(
        documents, config, seed=0, row_length_tokens=row_length_tokens, batch_rows=2, packing=True
    )
    made = StageExamples("s", {entry: examples}, {})
    for example in examples:
        count = made.counts.setdefault((entry, example.language), Count())
        count.examples += 1
        count.kept += 1
    return Stage(config, 0, batches, None, made)


@pytest.fixture(scope="module")
def llama_like(tmp_path_factory) -> Tokenizer:
    """A tokenizer in the manner of LLaMA 2: a space before the first word, bytes for what it does not know."""
    rust = RustTokenizer(models.BPE(byte_fallback=True, unk_token="<unk>", fuse_unk=True))
    rust.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    rust.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    special = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    trainer = trainers.BpeTrainer(vocab_size=420, special_tokens=special, show_progress=False)
    rust.train_from_iterator(tiny_parallel()["eng_Latn"], trainer)
    folder: Path = tmp_path_factory.mktemp("llama_like")
    rules = json.loads(rust.to_str())
    rules["added_tokens"] = [token for token in rules["added_tokens"] if token["id"] < 3]
    (folder / "tokenizer.json").write_text(json.dumps(rules), "utf-8")
    names = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(names))
    return fast.load(str(folder))


@pytest.fixture(params=["learned", "llama_like"])
def tokenizer(request) -> Tokenizer:
    return tiny_tokenizer() if request.param == "learned" else request.getfixturevalue("llama_like")


def test_pieces_are_the_text_and_its_tokens_and_nothing_else(tokenizer: Tokenizer):
    """Token by token, some decoders lose the space before a word, and all of them characters of several."""
    examples = [replace(CHAT, index=100)]
    for language in TINY_LANGUAGES[1:]:
        translations = tiny_translations(f"eng_Latn-{language}", source="chat")[:10]
        examples += translations
    by_text = {example.text: example for example in examples}
    stage = stage_of(examples, tokenizer)
    shown = first_documents(stage, tokenizer, 7)
    assert len(shown) == 7
    shown += first_documents(stage_of([CHAT], tokenizer), tokenizer, 1)
    for document in shown:
        example = by_text["".join(piece.text for piece in document.pieces)]
        assert document.language == example.language
        tokens = tokenize([example], tokenizer, row_length_tokens=256)
        assert sum(piece.tokens for piece in document.pieces) == len(tokens.tokens)
        learned = sum(piece.tokens for piece in document.pieces if piece.learned)
        assert learned == tokens.target_mask.sum()
        answers = "".join(piece.text for piece in document.pieces if piece.learned)
        assert answers == "".join(example.answer_texts)
        assert [piece.control for piece in document.pieces if piece.control] == [
            "BOS", *["EOS"] * len(example.answers),
        ]  # fmt: skip


def test_characters_of_several_tokens_are_one_piece(tokenizer: Tokenizer):
    (document,) = first_documents(stage_of([CHAT], tokenizer), tokenizer, 1)
    (clef,) = [piece for piece in document.pieces if "𝄞" in piece.text]
    assert (clef.text.strip(), clef.tokens) in [("𝄞", 4), ("𝄞", 5)]
    assert "\ufffd" not in "".join(piece.text for piece in document.pieces)


def test_samples_mark_what_is_learned_and_stay_in_one_line(tokenizer: Tokenizer):
    stage = stage_of([CHAT], tokenizer)
    assert sample_rows(stage, tokenizer, 1) == ["the dog?⏎「 red house 𝄞」⇥?⏎「old」"]


def test_documents_are_shown_row_after_row(monkeypatch: pytest.MonkeyPatch):
    tokenizer = tiny_tokenizer()
    stage = stage_of(tiny_translations()[:40], tokenizer, row_length_tokens=64)
    shown = first_documents(stage, tokenizer, 5)
    rows = [(document.row, document.segment) for document in shown]
    assert rows == sorted(rows)
    assert rows[0] == (1, 1)
    assert {row for row, _ in rows} == {1, 2}
    names = [stage.examples.by_entry["tiny"][index].text for _, index in stage.batches.examples(0)]
    assert ["".join(piece.text for piece in document.pieces) for document in shown] == names[:5]


def test_a_long_document_loses_its_middle_and_says_so():
    tokenizer = tiny_tokenizer()
    prompt = "0123456789" * 40 + "\n"  # digits are never joined: a token each
    example = Example("long", 0, "eng_Latn", prompt + "old", ((len(prompt), len(prompt) + 3),))
    (document,) = first_documents(stage_of([example], tokenizer, 512), tokenizer, 1)
    ends = describe.SHOWN_PIECES
    text = show.document_text(document, marks=True).plain.replace("│", "")
    first, last = ("0123456789" * 40)[: ends - 1], (prompt.replace("\n", "⏎"))[-ends:]
    assert text == f"⟨BOS⟩{first}⟨{402 - 2 * ends} tokens⟩{last}「old⟨EOS⟩」"


def test_a_language_of_which_nothing_is_left_is_in_the_mixture():
    stage = stage_of(tiny_translations()[:40], tiny_tokenizer())
    stage.examples.counts["tiny", "ell_Grek"] = Count(examples=3, dropped={"no text in ell_Grek": 3})
    rows = {row["language"]: row for row in describe_stage(stage)["mixture"]}
    assert (rows["tha_Thai"]["documents"], rows["tha_Thai"]["left out"]) == (40, "nothing")
    assert (rows["ell_Grek"]["documents"], rows["ell_Grek"]["left out"]) == (0, "3 no text in ell_Grek")
    assert rows["ell_Grek"].keys() == rows["tha_Thai"].keys()
    assert rows["ell_Grek"]["share of documents"] == 0


def test_directions_of_translations_are_told_by_entry():
    stage = stage_of(tiny_translations()[:40], tiny_tokenizer())
    assert describe_stage(stage)["directions"] == []
    stage.examples.directions["tiny"] = [("eng_Latn", "tha_Thai"), ("ell_Grek", "tha_Thai")]
    assert describe_stage(stage)["directions"] == [
        {"entry": "tiny", "source": source, "target": "tha_Thai"} for source in ("eng_Latn", "ell_Grek")
    ]


def test_escapes_in_a_text_do_not_reach_the_terminal():
    """They could color it, or write over what was printed before."""
    tokenizer = tiny_tokenizer()
    text = "red\x1b[31m\r[bold]house"
    example = Example("web", 0, "eng_Latn", text, ((0, len(text)),))
    console = Console(file=io.StringIO(), width=120, highlight=False)
    leaks = Leaks("refuse", 1, ())
    show.show(console, facts.describe_data({}, leaks, [stage_of([example], tokenizer)], tokenizer, "learned"))
    output = console.file.getvalue()
    assert "\x1b" not in output
    assert "␛[31m␍[bold]house" in output.replace("│", "")
