"""What InstructAlign's released code does to rows and to replay, for stages with `faithful`."""

import numpy as np
from jaxtyping import Int64

from jaxlingua.data.example import Example
from jaxlingua.data.records import Instruction
from jaxlingua.data.templates import why_unusable
from jaxlingua.errors import DataError

HELD_OUT_ROWS = 1000


def released_split(slots: int) -> tuple[Int64[np.ndarray, "train"], Int64[np.ndarray, "held_out"]]:
    """Rows that are learned and rows that are held out: 1,000 at random, or a tenth of fewer than 10,000.

    By row, as released: sentences of a row that is held out are in others that are learned. The order is
    ours, with seed 0; that of the released code goes by the version of its libraries.

    Example:
        >>> [len(part) for part in released_split(32144)]
        [31144, 1000]
    """
    # Numpy promises to keep these raw bits, not what its generators make of them.
    order = np.argsort(np.random.PCG64(np.random.SeedSequence(0)).random_raw(slots), kind="stable")
    held_out = min(HELD_OUT_ROWS, slots // 10)
    return np.sort(order[held_out:]), np.sort(order[:held_out])


def as_released(record: Instruction, *, source: str) -> Example:
    """An instruction as it is replayed: prompt, one space, answer, all of it learned, and no EOS.

    Args:
        source: name of the mixture entry.
    Raises: DataError naming entry and record where prompt or answer is empty.
    Example:
        >>> as_released(Instruction(3, "eng_Latn", "Say yes.", "", "yes"), source="xp3").answer_texts
        ('Say yes. yes',)
    """
    reason = why_unusable(record)
    if reason:
        raise DataError(
            f"{source} (record {record.index}): {reason}; an example needs a prompt and an answer; "
            f"mend the record or leave it out"
        )
    prompt = "\n".join(part for part in (record.instruction, record.input) if part.strip())
    text = f"{prompt} {record.output}"
    return Example(source, record.index, record.language, text, ((0, len(text)),), ends=False)
