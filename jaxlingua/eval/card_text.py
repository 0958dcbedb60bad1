"""Words of a model card: repositories as the hub names them, text in tables, no local paths."""

import html
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any


def hub_name(path: str, folder: str = ".") -> str:
    """`path` where it is the name of a hub repository; empty where it is a folder, seen from `folder`."""
    local = Path(folder) / path
    is_name = re.fullmatch(r"\w[\w.-]*/\w[\w.-]*", path) and not local.exists() and not local.parent.is_dir()
    return path if is_name else ""


def cell(text: Any) -> str:
    r"""Text as a cell of a Markdown table that shows it as it is.

    Example:
        >>> cell("a|b\n<i> *c*")
        'a&#124;b<br>&lt;i&gt; \\*c\\*'
    """
    text = re.sub(r"([\\`*_~$\[\]])", r"\\\1", html.escape(str(text), quote=False)).replace("|", "&#124;")
    text = re.sub(r"\r\n|\r|\n", "<br>", text)
    return re.sub(r"[\x00-\x1f]", lambda control: chr(0x2400 + ord(control[0])), text)


def without_folders(command: str, names: Iterable[str] = ()) -> str:
    """A command in which of each path only the last part is left; `names` are of the hub, and kept.

    Example:
        >>> without_folders("train /home/me/a.yaml model.path=owner/model", ["owner/model"])
        'train a.yaml model.path=owner/model'
    """
    kept = set(names)
    return re.sub(
        r"(?:\b[A-Za-z]:(?=[/\\]))?[^\s=,:;'\"()\[\]{}]*[/\\][^\s=,;'\"()\[\]{}]*",
        lambda path: path[0] if path[0] in kept else last_part(path[0]),
        " ".join(command.split()),
    )


def last_part(path: str) -> str:
    """What a path ends with, without its folders."""
    return re.split(r"[/\\]", path.rstrip("/\\"))[-1]
