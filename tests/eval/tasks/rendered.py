"""What is asked about the made-up records, as golden_prompts.jsonl keeps it.

`python -m tests.eval.tasks.rendered` writes that file anew: after the wording has changed on purpose, and with
`version` of the task files raised.
"""

import json
from pathlib import Path

from jaxlingua.config import Config
from jaxlingua.eval.tasks.item import Task
from jaxlingua.eval.tasks.make import make_tasks

MADE_UP = Path(__file__).parent / "made_up"
GOLDEN = Path(__file__).parent / "golden_prompts.jsonl"

# Entries of the made-up files, and how many records each has.
ENTRIES = {
    "belebele.eng_Latn": 4,
    "belebele.ind_Latn": 4,
    "belebele.tur_Latn": 4,
    "mi_eval.eng_Latn": 4,
    "mi_eval.spa_Latn": 4,
    "mi_eval.zho_Hans": 4,
    "nusaparagraph_emotion.jav_Latn": 7,
    "nusaparagraph_emotion.min_Latn": 4,
    "nusaparagraph_emotion.sun_Latn": 4,
    "paws_x.deu_Latn": 4,
    "paws_x.eng_Latn": 4,
    "paws_x.zho_Hans": 4,
    "xnli.deu_Latn": 6,
    "xnli.eng_Latn": 6,
    "xnli.vie_Latn": 6,
    "xstorycloze.eng_Latn": 4,
    "xstorycloze.ind_Latn": 4,
    "xstorycloze.spa_Latn": 4,
}


def tasks_of(entry: str, folder: Path = MADE_UP, prompts: str = "all", **eval_config: object) -> list[Task]:
    """The tasks of one entry, without a frame around the wording."""
    asked = {"tasks": [entry], "prompts": [prompts], "data_folder": str(folder), **eval_config}
    return make_tasks(Config.model_validate({"data": {"template": "raw"}, "eval": asked}), {})


def rendered() -> list[dict]:
    """Every record in the first English and the first native prompt, the first record in all others."""
    return [
        {
            "entry": entry,
            "prompt": task.prompt,
            "id": item.id,
            "asked": item.prompt,
            "choices": list(item.choices),
            "targets": list(item.targets),
        }
        for entry in ENTRIES
        for task in tasks_of(entry)
        for item in (task.items if task.prompt.endswith(".0") else task.items[:1])
    ]


if __name__ == "__main__":
    lines = [json.dumps(each, ensure_ascii=False) + "\n" for each in rendered()]
    GOLDEN.write_text("".join(lines), "utf-8")
