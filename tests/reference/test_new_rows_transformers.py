"""A model with new pieces as transformers has it: the same on old pieces, and able to write with the new ones."""

import json
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from jaxlingua.tokens.__main__ import extend_model
from jaxlingua.tokens.extend.command import wanted_from
from tests.checkpoint.folders import LLAMA, QWEN3, write_folder
from tests.tiny import tiny_parallel, tiny_tokenizer

OLD = 300
GREEK, ENGLISH = (tiny_parallel()[language] for language in ("ell_Grek", "eng_Latn"))


@pytest.mark.parametrize("fields", [LLAMA, QWEN3], ids=["own head", "tied head"])
@torch.no_grad()
def test_transformers_has_the_same_logits_on_old_pieces_and_generates_with_new_ones(fields, tmp_path):
    base, out = tmp_path / "base", tmp_path / "out"
    write_folder(base, fields | {"vocab_size": OLD, "bos_token_id": 1, "eos_token_id": 2})
    tiny_tokenizer(OLD).save(base)
    (tmp_path / "greek.txt").write_text("\n".join(GREEK), "utf-8")
    (tmp_path / "english.txt").write_text("\n".join(ENGLISH), "utf-8")
    files = [str(tmp_path / name) for name in ("greek.txt", "english.txt")]
    extend_model(
        wanted_from([str(base), files[0], "--pieces", "30", "--output", str(out), "--old", files[1]])
    )
    old, new = (AutoModelForCausalLM.from_pretrained(folder) for folder in (base, out))
    tokenizer = AutoTokenizer.from_pretrained(out)
    assert new.get_input_embeddings().weight.shape[0] == 384
    known = tokenizer(ENGLISH[0], return_tensors="pt").input_ids
    assert known.max() < OLD
    assert torch.equal(old(known).logits, new(known).logits[..., :OLD])
    text = tokenizer(GREEK[0], return_tensors="pt").input_ids
    assert (text >= OLD).any()
    answer = new.generate(text, max_new_tokens=5, do_sample=False, pad_token_id=0)
    assert answer.shape[1] > text.shape[1]
    assert tokenizer.decode(text[0], skip_special_tokens=True) == GREEK[0]
    facts = json.loads((Path(out) / "extension.json").read_text())
    assert len(tokenizer) == facts["vocab_size"] == OLD + 30
