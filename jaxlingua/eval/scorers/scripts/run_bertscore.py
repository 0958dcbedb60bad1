"""Scores texts with BERTScore F1; runs in an environment that has bert-score, and without jaxlingua.

    python run_bertscore.py [--layer N] ITEMS.jsonl RESULT.json MODEL

ITEMS has a line {"source", "prediction", "target"} per segment; the source is not read. MODEL is a name on
the Hugging Face hub or a folder; auto is multilingual BERT, cased. The layer is the library's own choice for
a model that it knows, 9 for multilingual BERT; for others --layer is needed. RESULT tells the scores, the
model, the library's version and the settings. An empty text scores 0, as in the library.
"""

import json
import sys
from importlib.metadata import version

MODEL = "bert-base-multilingual-cased"
SEGMENTS_AT_ONCE = 64
NO_LIMIT = 10**6  # what tokenizers without a stated longest input claim is larger


def main():
    arguments = sys.argv[1:]
    layer = int(arguments[1]) if arguments[0] == "--layer" else None
    items_path, result_path, model_name = arguments[2:] if layer is not None else arguments
    model_name = MODEL if model_name == "auto" else model_name
    import bert_score
    from bert_score.utils import model2layers

    if layer is None and model_name not in model2layers:
        sys.exit(f"bert-score knows no layer for {model_name}; put --layer N behind the script")
    scorer = bert_score.BERTScorer(model_type=model_name, num_layers=layer, idf=False)
    if scorer._tokenizer.model_max_length > NO_LIMIT:  # else the tokenizer fails on the number
        scorer._tokenizer.model_max_length = scorer._model.config.max_position_embeddings - 2
    with open(items_path, encoding="utf-8") as lines:
        items = [json.loads(line) for line in lines]
    scores = [0.0] * len(items)
    # bert-score fails on empty texts beside transformers 5.
    full = [at for at, item in enumerate(items) if item["prediction"].strip() and item["target"].strip()]
    if full:
        predictions = [items[at]["prediction"] for at in full]
        targets = [items[at]["target"] for at in full]
        f1 = scorer.score(predictions, targets, batch_size=SEGMENTS_AT_ONCE)[2]
        for place, score in enumerate(f1.tolist()):
            scores[full[place]] = float(score)
    rules = f"F1, layer {scorer.num_layers}, no idf, no rescaling"
    result = {
        "scores": scores,
        "model": model_name,
        "library": "bert-score " + version("bert-score"),
        "settings": f"{rules}, transformers {version('transformers')}",
    }
    with open(result_path, "w", encoding="utf-8") as file:
        json.dump(result, file)


if __name__ == "__main__":
    main()
