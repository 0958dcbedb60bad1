"""A template as a jinja chat template, so that other tools prompt a model with the text it was trained on."""

import json

from jaxlingua.data.slots import parse_slots
from jaxlingua.data.templates import opening
from jaxlingua.data.wordings import Wording

# Every tag takes the white space around it away, so that all of the text stands in strings and no setting of
# the engine that renders it (trim_blocks, lstrip_blocks) matters.
_LAYOUT = """\
{%- if messages[0]["role"] == "system" -%}
    {{- <bos> -}}
{%- elif messages[0]["content"] is string and <input_mark> in messages[0]["content"] -%}
    {{- <bos> + <opening_with_input> -}}
{%- else -%}
    {{- <bos> + <opening> -}}
{%- endif -%}
{%- for message in messages -%}
    {%- if message["content"] is not string -%}
        {{- raise_exception("content of message " ~ loop.index ~ ": text is allowed, and nothing else") -}}
    {%- endif -%}
    {%- if not loop.first and messages[loop.index0 - 1]["role"] == "assistant" -%}
        {{- <after_answer> -}}
    {%- endif -%}
    {%- if message["role"] == "system" -%}
        {{- <system> -}}
    {%- elif message["role"] == "user" -%}
        {{- <user> -}}
    {%- elif message["role"] == "assistant" -%}
        {{- <assistant> + message["content"] + eos_token -}}
    {%- else -%}
        {{- raise_exception("role '" ~ message["role"] ~ "': system, user and assistant are allowed") -}}
    {%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}
    {%- if messages[-1]["role"] == "assistant" -%}
        {{- <after_answer> -}}
    {%- endif -%}
    {{- <assistant> -}}
{%- endif -%}
"""


def chat_template(wording: Wording, language: str, *, has_bos: bool, opens_with_space: bool = False) -> str:
    """The jinja text that lays out messages as `templates.render` lays out a conversation.

    BOS comes first where there is one, EOS after each answer, as in `tokens/masks.py`; with
    `add_generation_prompt` the text ends where an answer begins. Contents go in as they are. Unlike training,
    transformers reads control tokens out of them, unless it is asked for `sanitize_control_tokens=True`.

    Args:
        language: of the answers, which that of a localized frame is.
        has_bos: whether the tokenizer has a BOS.
        opens_with_space: write a space behind BOS, for tokenizers that transformers loads as `LlamaTokenizer`
            (version 5, or `legacy=False`). It puts the space that they begin a text with before the first
            character alone, which here is the BOS, so that the first word would have other tokens than in
            training. Tokenizers whose rules hold a `Prepend` normalizer need none.
    Same as: transformers' `apply_chat_template`, tokens and text, for one user turn and for many.
    """
    chat = wording.frames_of(language)["chat"]
    slots = {
        "bos": '""' if not has_bos else 'bos_token + " "' if opens_with_space else "bos_token",
        "opening": json.dumps(chat["opening"]),
        "opening_with_input": json.dumps(chat.get("opening_with_input", chat["opening"])),
        "input_mark": json.dumps(chat.get("input_mark", chat["opening"])),
        "system": _around(chat["system"]),
        "user": _around(chat["user"]),
        "assistant": json.dumps(chat["assistant"]),
        "after_answer": json.dumps(chat["after_answer"]),
    }
    layout = _LAYOUT
    for name, expression in slots.items():
        layout = layout.replace(f"<{name}>", expression)
    return layout


def as_message(prompt: str, wording: Wording, language: str) -> str:
    r"""What a user has to say for the chat template to make `prompt` of it.

    Example:
        >>> from jaxlingua.data.wordings import wording_of
        >>> as_message("English to German\nin 2 days\n", wording_of("short"), "deu_Latn")
        'English to German\nin 2 days'
    """
    chat = wording.frames_of(language)["chat"]
    (before, _), (after, _) = parse_slots(chat["user"])
    return prompt.removeprefix(opening(chat, prompt) + before).removesuffix(after + chat["assistant"])


def _around(frame: str) -> str:
    (before, _), (after, _) = parse_slots(frame)
    return f'{json.dumps(before)} + message["content"] + {json.dumps(after)}'
