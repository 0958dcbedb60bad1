"""Sentences of many scripts, some alike and some the same but for case, marks or the order of words."""

import numpy as np

from tests.tiny import tiny_parallel

_SYLLABLES = {
    "Latn": ("ba", "do", "ri", "ken", "sú", "ela", "Or", "int"),
    "Cyrl": ("ма", "то", "вер", "ний", "ку", "Сла", "дом", "ре"),
    "Hani": ("尼", "罗", "河", "流", "入", "地", "中", "海"),
    "Thai": ("กิ", "มา", "นู", "ตี้", "ปะ", "ไป", "ที่", "น้ำ"),
    "Deva": ("न", "दी", "कि", "स्त", "मा", "रा", "को", "ल्य"),
    "Arab": ("كت", "اب", "مد", "رسة", "بي", "ت", "ولد", "شم"),
    "Ethi": ("ሰላ", "ም", "ቤት", "አዲ", "ስ", "መን", "ገድ", "ውሃ"),
}


def made_up(count: int, seed: int = 0) -> list[str]:
    """`count` sentences of each script. A tenth are copies with another case or punctuation, and a tenth have
    the words of the one before in another order, so that there are ties."""
    rng = np.random.default_rng(seed)
    texts = [text for lines in tiny_parallel().values() for text in lines[:count]]
    for script, syllables in _SYLLABLES.items():
        space = "" if script in ("Hani", "Thai") else " "
        words = ["".join(rng.choice(syllables, rng.integers(1, 4))) for _ in range(60)]
        before = words[:3]
        for _ in range(count):
            ranks = np.minimum(rng.zipf(1.3, rng.integers(2, 15)), len(words)) - 1
            chosen = [words[rank] for rank in ranks]
            how = rng.integers(10)
            if how == 0:
                texts.append(space.join(before).upper() + "!")
            elif how == 1:
                texts.append(space.join(rng.permutation(before)))
            else:
                texts.append(space.join(chosen) + rng.choice([".", "", "。", " ?"]))
            before = chosen
    return texts
