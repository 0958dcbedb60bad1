"""Scores texts with BLEURT; runs in an environment that has it, and without jaxlingua.

    python run_bleurt.py ITEMS.jsonl RESULT.json MODEL

ITEMS has a line {"source", "prediction", "target"} per segment; BLEURT does not read the source. MODEL is the
folder of an unpacked checkpoint; auto is BLEURT-20 in the current folder. RESULT tells the scores, the model,
the library's version and the settings.
"""

import json
import os
import sys
from importlib.metadata import version

MODEL = "BLEURT-20"
SEGMENTS_AT_ONCE = 16


def main():
    items_path, result_path, model_name = sys.argv[1:]
    model_name = MODEL if model_name == "auto" else model_name
    if not os.path.isdir(model_name):  # without a folder BLEURT would take a tiny test model
        sys.exit(f"no folder {model_name}; download and unpack the checkpoint, and give its folder as model")
    from bleurt import score as bleurt_score

    with open(items_path, encoding="utf-8") as lines:
        items = [json.loads(line) for line in lines]
    scorer = bleurt_score.BleurtScorer(model_name)
    scores = scorer.score(
        references=[item["target"] for item in items],
        candidates=[item["prediction"] for item in items],
        batch_size=SEGMENTS_AT_ONCE,
    )
    result = {
        "scores": [float(score) for score in scores],
        "model": model_name,
        "library": "BLEURT " + version("BLEURT"),
        "settings": "none",
    }
    with open(result_path, "w", encoding="utf-8") as file:
        json.dump(result, file)


if __name__ == "__main__":
    main()
