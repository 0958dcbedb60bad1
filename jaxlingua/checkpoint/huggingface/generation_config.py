"""generation_config.json: where generation of an exported model begins and ends."""

import copy
import json
from pathlib import Path
from typing import Any


def generation_config(
    published: dict[str, Any] | None, *, bos_id: int | None, eos_id: int, pad_id: int, is_trained: bool
) -> dict[str, Any]:
    """The content of generation_config.json beside exported weights.

    A published one is kept as it is where nothing was trained. A trained model ends its answers with our EOS,
    so generation has to stop there, and where the authors had it stop before.

    Args:
        published: that of the base model; None where it has none.
    Example:
        >>> generation_config({"eos_token_id": 9, "top_p": 1}, bos_id=1, eos_id=2, pad_id=0, is_trained=True)
        {'eos_token_id': [2, 9], 'top_p': 1, 'bos_token_id': 1, 'pad_token_id': 0}
    """
    if published is not None and not is_trained:
        return copy.deepcopy(published)
    content = {"do_sample": False} if published is None else copy.deepcopy(published)
    for name, token in (("bos_token_id", bos_id), ("pad_token_id", pad_id)):
        if content.get(name) is None and token is not None:
            content[name] = token
    stops = content.get("eos_token_id")
    if not isinstance(stops, list):
        stops = [] if stops is None else [stops]
    if eos_id not in stops:
        content["eos_token_id"] = [eos_id, *stops] if stops else eos_id
    return content


def ends_of(folder: Path) -> tuple[int, ...]:
    """Tokens that end an answer, by generation_config.json or else config.json of a folder; maybe none.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     _ = (Path(folder) / "config.json").write_text('{"eos_token_id": [2, 5]}')
        ...     ends_of(Path(folder))
        (2, 5)
    """
    for name in ("generation_config.json", "config.json"):
        path = folder / name
        ends = json.loads(path.read_bytes()).get("eos_token_id") if path.is_file() else None
        if ends is not None:
            return tuple(ends) if isinstance(ends, list) else (ends,)
    return ()
