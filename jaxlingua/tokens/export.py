"""A tokenizer and the frame that its model was trained in, for programs that know neither of ours."""

import json
import os
from pathlib import Path

from jaxlingua.data.chat_template import chat_template
from jaxlingua.data.records import Instruction
from jaxlingua.data.templates import render
from jaxlingua.data.wordings import Wording
from jaxlingua.tokens.interface import Tokenizer
from jaxlingua.tokens.masks import prompt_tokens

CHAT_TEMPLATE = "chat_template.jinja"
_ASKED = "What is a fox?"


def save_with_chat_template(tokenizer: Tokenizer, folder: Path, wording: Wording, language: str) -> bool:
    """Write the tokenizer's files with the frame of `wording` as its chat template; False if it is left out.

    It is written only if transformers makes of a question the very tokens that the model was trained on. With
    some of its classes that takes a space behind BOS.

    Args:
        language: of the answers, which that of a localized frame is.
    """
    tokenizer.save(folder)
    settings = folder / "tokenizer_config.json"
    if settings.is_file():
        fields = json.loads(settings.read_bytes())
        fields.pop("chat_template", None)
        settings.write_text(json.dumps(fields, indent=2, ensure_ascii=False) + "\n", "utf-8")
    example = render(
        Instruction(0, language, _ASKED, "", "An animal."), wording, source="export", training=False
    )
    wanted = prompt_tokens([example], tokenizer)[0].tolist()
    for opens_with_space in (False, True):
        text = chat_template(
            wording, language, has_bos=tokenizer.bos_id is not None, opens_with_space=opens_with_space
        )
        (folder / CHAT_TEMPLATE).write_text(text, "utf-8")
        if _read_by_transformers(folder) == wanted:
            return True
    (folder / CHAT_TEMPLATE).unlink()
    return False


def _read_by_transformers(folder: Path) -> list[int] | None:
    """The tokens of a question; None where transformers cannot load the tokenizer."""
    os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")  # that PyTorch is not there
    from transformers import AutoTokenizer  # two seconds, and only exports need it

    messages = [{"role": "user", "content": _ASKED}]
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
        return list(tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=False))
    except Exception:  # code of its own, a class that is not known: a dozen types
        return None
