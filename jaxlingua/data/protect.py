"""What a translation must leave as it is: code, placeholders, tags, addresses, the layout of lines.

A text becomes parts, which joined are the text. Those that are asked for are sentences or lines with letters
in them; all others are kept byte for byte. What is protected inside a line stays in the part that is asked
for, since a good model copies it and needs it to understand the sentence: `agree` tells whether it did, and
`around` has the line in parts between which nothing can be lost where it did not.
"""

from dataclasses import dataclass

import regex

# Lines of up to so many characters are asked for whole; longer ones at the ends of their sentences.
LONG_LINE = 400

# From ``` or ~~~ at the beginning of a line to a line of the same, or to the end of the text, as in Markdown;
# or from three and more backticks inside a line to the next as many.
_BLOCK = regex.compile(
    r"^[ \t]*+(?P<fence>`{3,}+|~{3,}+)[^`\n]*+(?:\n[\s\S]*?(?:^[ \t]*+(?P=fence)[`~]*+[ \t\r]*+$|\Z)|\Z)"
    r"|(?P<ticks>`{3,}+)[\s\S]*?(?P=ticks)",
    regex.MULTILINE,
)
# A line's own layout: indentation, marks of lists, headings and quotes.
_LEADING = regex.compile(r"[^\S\n]*+(?:(?:[-*+•‣]|\(?\d{1,3}[.)]|#{1,6}|>++)[^\S\n]++)*+")
_SPANS = regex.compile(
    "|".join(
        (
            r"(?<!`)(?P<tick>`{1,2}+)(?!`)[^\n]+?(?<!`)(?P=tick)(?!`)",  # `code`
            r"<!--[\s\S]*?-->|</?\p{L}[^<>\n]{0,300}+>|<\|[^|<>\n]{1,80}+\|>",  # <tag>, </b>, <|end|>
            # An address ends before punctuation that belongs to the sentence.
            r"(?:https?|ftp)://[^\s<>\"“”«»、。，；：！？（）「」『』【】]*[^\s<>\"“”«»、。，；：！？（）「」『』【】.,;:!?)\]}'’*_]",
            r"\bwww\.[A-Za-z0-9-]++(?:\.[A-Za-z0-9-]++)++(?:/[^\s<>\"“”«»、。，；：！？（）]*[^\s<>\"“”«»、。，；：！？（）.,;:!?)\]}'’*_])?",
            r"[A-Za-z0-9._%+-]++@[A-Za-z0-9-]++(?:\.[A-Za-z0-9-]++)++",  # an e-mail address
            r"\{\{[^{}\n]++\}\}|\$?\{[^\s{}]*+\}|\$\{[^{}\n]++\}",  # {{ name }}, {name}, {0:>8}, ${NAME}
            r"\$[A-Za-z_][A-Za-z0-9_]*+",  # $NAME
            r"%\([A-Za-z_]\w*+\)[a-zA-Z]",  # %(name)s
            r"(?<![\w%])%[-+#0]?\d*+(?:\.\d++)?[sdifgxXeEcru](?![\p{L}\d%])",  # %s, %.2f
            r"\[\[?[A-Z][A-Z0-9_ -]*+\]\]?",  # [MASK], [SEP], [YOUR NAME]
            r"_{3,}+",  # a blank to fill in
        )
    )
)
_ENDS = regex.compile(
    r"[.!?…]++[\"'”’»)\]]*+\s++(?=[^\p{Ll}])|[।॥۔؟።፧។៕။]++[\"'”’»)\]]*+\s*+|[。！？｡]++[」』”’）】]*+\s*+"
)
# What ends a phrase, and belongs to what stands before it.
_CLOSING = regex.compile(r"[\s,.;:!?)\]}、。，；：！？）。।؟،]*+")
_LETTER = regex.compile(r"\p{L}")


@dataclass(frozen=True, slots=True)
class Part:
    """A piece of a text, and whether its translation is asked for."""

    text: str
    is_asked: bool


def parts(text: str) -> list[Part]:
    """Lines, long ones by sentences, with code blocks, line breaks, layout and lines without letters kept.

    Example:
        >>> [part.text for part in parts("1. Say hello.\\n```\\nx = 1\\n```\\n42") if part.is_asked]
        ['Say hello.']
        >>> "".join(part.text for part in parts(" a\\r\\n\\n b ")) == " a\\r\\n\\n b "
        True
    """
    found, end = [], 0
    for block in _BLOCK.finditer(text):
        found += _lines(text[end : block.start()])
        found.append(Part(block.group(), False))
        end = block.end()
    return _merged([*found, *_lines(text[end:])])


def around(text: str) -> list[Part]:
    """What stands between the protected spans of a part that was asked for.

    Example:
        >>> [part.text for part in around("Use `x` or write to a@b.org today.") if part.is_asked]
        ['Use', 'or write to', 'today.']
    """
    found, end = [], 0
    for start, stop in spans(text):
        found += [*_trimmed(text[end:start]), Part(text[start:stop], False)]
        end = _CLOSING.match(text, stop).end()
        found.append(Part(text[stop:end], False))
    return _merged([*found, *_trimmed(text[end:])])


def spans(text: str) -> list[tuple[int, int]]:
    """Where protected spans begin and end inside a line, in order."""
    return [match.span() for match in _SPANS.finditer(text)]


def agree(text: str, translation: str) -> bool:
    """Whether a translation has the protected spans of its text, byte for byte, in order, and no others.

    Example:
        >>> agree("Send {n} to a@b.org", "Schicke {n} an a@b.org"), agree("Send {n}", "Schicke {N}")
        (True, False)
    """
    return [text[slice(*span)] for span in spans(text)] == [
        translation[slice(*span)] for span in spans(translation)
    ]


def unprotected(text: str) -> str:
    """A text without what is protected in it, to tell its language by.

    Example:
        >>> unprotected("Gib `print(x)` ein.")
        'Gib   ein.'
    """
    return _SPANS.sub(" ", _BLOCK.sub(" ", text))


def count_protected(text: str) -> int:
    """How many code blocks and protected spans a text has."""
    blocks = len(_BLOCK.findall(text))
    return blocks + sum(len(spans(part)) for part in _BLOCK.split(text)[:: 1 + _BLOCK.groups])


def _lines(text: str) -> list[Part]:
    found = []
    for line in text.split("\n"):
        found.append(Part("\n", False))
        leading = _LEADING.match(line).end()
        found.append(Part(line[:leading], False))
        for sentence in _sentences(line[leading:]):
            found += _trimmed(sentence)
    return found[1:]


def _sentences(line: str) -> list[str]:
    """A line of at most LONG_LINE characters, or its sentences joined up to so many; one may be longer."""
    if len(line) <= LONG_LINE:
        return [line]
    kept = spans(line)
    ends = [match.end() for match in _ENDS.finditer(line)]
    ends = [end for end in ends if not any(start < end < stop for start, stop in kept)]
    found, start, last = [], 0, 0
    for end in [*ends, len(line)]:
        if end - start > LONG_LINE and last > start:
            found.append(line[start:last])
            start = last
        last = end
    return [*found, line[start:]]


def _trimmed(text: str) -> list[Part]:
    """White space around what is asked for is kept; a text without letters is kept whole."""
    if not _LETTER.search(_SPANS.sub("", text)):
        return [Part(text, False)]
    inner = text.strip()
    start = text.index(inner)
    end = start + len(inner)
    return [Part(text[:start], False), Part(inner, True), Part(text[end:], False)]


def _merged(found: list[Part]) -> list[Part]:
    """Without empty parts, and with neighbors that are kept in one."""
    merged: list[Part] = []
    for part in found:
        if part.text and merged and not (merged[-1].is_asked or part.is_asked):
            merged[-1] = Part(merged[-1].text + part.text, False)
        elif part.text:
            merged.append(part)
    return merged
