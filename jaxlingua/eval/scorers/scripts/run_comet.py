"""Scores translations with COMET; runs in an environment that has unbabel-comet, and without jaxlingua.

    python run_comet.py ITEMS.jsonl RESULT.json MODEL

ITEMS has a line {"source", "prediction", "target"} per segment. MODEL is a name on the Hugging Face hub, a
checkpoint file, or auto. RESULT tells the scores, the model, the library's version and the settings.
"""

import json
import os
import sys
from importlib.metadata import version

MODEL = "Unbabel/wmt22-comet-da"
SEGMENTS_AT_ONCE = 16


def main():
    items_path, result_path, model_name = sys.argv[1:]
    import comet
    import torch

    model_name = MODEL if model_name == "auto" else model_name
    is_file = model_name.endswith(".ckpt") and os.path.exists(model_name)
    model = comet.load_from_checkpoint(model_name if is_file else comet.download_model(model_name))
    with open(items_path, encoding="utf-8") as lines:
        items = [json.loads(line) for line in lines]
    segments = [{"src": item["source"], "mt": item["prediction"], "ref": item["target"]} for item in items]
    gpus = int(torch.cuda.is_available())
    found = model.predict(segments, batch_size=SEGMENTS_AT_ONCE, gpus=gpus, progress_bar=False)
    result = {
        "scores": [float(score) for score in found["scores"]],
        "model": model_name,
        "library": "unbabel-comet " + version("unbabel-comet"),
        "settings": "fp32",
    }
    with open(result_path, "w", encoding="utf-8") as file:
        json.dump(result, file)


if __name__ == "__main__":
    main()
