"""What the stages show the model, in numbers and samples: for the console, data.json and the report."""

from typing import Any

import numpy as np

from jaxlingua.data.records import RecordSource
from jaxlingua.tokens.interface import Tokenizer
from jaxlingua.tokens.stages import Stage


def describe_stage(stage: Stage) -> dict[str, Any]:
    """What a stage shows the model, for the console, data.json and the report."""
    batches = stage.batches
    counts = {group: count for store in batches.corpus.stores for group, count in store.counts.items()}
    rows = []
    for (entry, language), shown in batches.describe().items():
        made, kept = stage.examples.counts[entry, language], counts[entry, language]
        left_out = dict(made.dropped)
        left_out |= {"too long": kept.dropped_too_long, "without target": kept.dropped_without_target}
        rows.append(
            {
                "entry": entry,
                "language": language,
                "records": made.examples,
                "left out": ", ".join(f"{count:,} {why}" for why, count in left_out.items() if count)
                or "nothing",
                "documents": kept.documents,
                "cut": kept.cut_documents,
                "tokens cut": kept.cut_tokens,
                "passes": round(shown.epochs, 3),
                "documents seen": shown.documents,
                "target tokens seen": shown.target_tokens,
                "share of target tokens": round(shown.share_of_target_tokens, 4),
            }
        )
    return {
        "name": stage.config.name,
        "steps": batches.steps,
        "epochs": round(batches.epoch(batches.steps), 3),
        "batch_rows": batches.batch_rows,
        "row_length_tokens": batches.row_length_tokens,
        "use": round(batches.use, 4),
        "mixture": rows,
    }


def describe_source(source: RecordSource) -> dict[str, Any]:
    """What was read of a source, for data.json and the report."""
    return {
        "name": source.name,
        "languages": list(source.languages),
        "train": len(source.records("train")),
        "held_out": len(source.records("held_out")),
        "skipped": dict(source.skipped),
        "fingerprint": source.fingerprint,
    }


def sample_rows(stage: Stage, tokenizer: Tokenizer, count: int = 3) -> list[str]:
    """The first documents of the first batch as the model sees them, learned tokens between 「 and 」."""
    batch = stage.batches.batch(0, 0, 1)
    shown = []
    for segment in range(1, min(count, int(batch.segments.max())) + 1):
        places = np.flatnonzero(batch.segments[0] == segment)
        tokens = [int(batch.tokens[0, places[0]]), *map(int, batch.targets[0, places])]
        learned = [False, *map(bool, batch.target_mask[0, places])]
        text, start = "", 0
        for end in range(1, len(tokens) + 1):
            if end == len(tokens) or learned[end] != learned[start]:
                part = tokenizer.decode(tokens[start:end])
                text += f"「{part}」" if learned[start] else part
                start = end
        shown.append(text.replace("\n", "⏎"))
    return shown
