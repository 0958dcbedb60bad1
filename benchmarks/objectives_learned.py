"""Each objective of InstructAlign alone, learned from nothing by a tiny model on a CPU.

    python benchmarks/objectives_learned.py [--items 400] [--only denoising …]

0.66M parameters, CLDR phrases in English and German, 9,600 to learn from. The answers to draws of held-out
sentences, greedy, are compared with what was to be answered, exactly. Similarity is learned from random
mismatches alone; it is then also asked about hard ones and about noised sentences, and half of all answers
are yes. Denoising is told by recipe, since a shuffle cannot always be undone.
"""

import argparse
import contextlib
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path

import yaml
from scipy.stats import binomtest
from train_cpu import cpu_model

# Similarity has one word to learn from in each example, the others a sentence.
STEPS = {"denoising": 3000, "translation": 3000, "bilingual_denoising": 3000, "similarity": 5000}
PEAK_LR = {"denoising": 3e-3, "translation": 3e-3, "bilingual_denoising": 3e-3, "similarity": 1e-3}
LEAST_SIMILARITY = 0.9


def configured(objective: str, folder: Path) -> Path:
    """The configuration of one run."""
    path = folder / f"{objective}.yaml"
    entry = {"objectives": objective}
    if objective == "similarity":
        entry["negatives"] = {"random": 1.0}
    content = {
        "run": {"folder": str(folder / objective)},
        "model": {"preset": "tiny-0.6m", "compute_dtype": "float32"},
        "data": {
            "template": "short",
            "sources": {
                "phrases": {"kind": "cldr", "languages": ["eng_Latn", "deu_Latn"], "held_out_records": 400}
            },
        },
        "tokens": {"vocab_size": 768, "row_length_tokens": 96},
        "stages": [{"name": "align", "mixture": {"phrases": entry}, "steps": STEPS[objective]}],
        "train": {
            "batch_rows": 16,
            "remat": "none",
            "held_out_documents": 0,
            "optimizer": {
                "peak_lr": PEAK_LR[objective],
                "schedule": "wsd",
                "decay_ratio": 0.3,
                "warmup_steps": 100,
                "beta2": 0.99,
            },
        },
        "checkpoint": {"save_every_steps": STEPS[objective]},
        "eval": {"tasks": []},
    }
    path.write_text(yaml.safe_dump(content))
    return path


def asked(config, negatives: list[str], items: int):
    """Draws of held-out sentences with what was drawn, and their kind."""
    from jaxlingua.data.objectives import objectives_of
    from jaxlingua.data.wordings import load_wording
    from jaxlingua.tokens.stages import open_sources

    [stage] = config.stages
    source = open_sources(config)["phrases"]
    for negative in negatives or [""]:
        entry = stage.mixture["phrases"]
        if negative:
            entry = entry.model_copy(update={"negatives": {negative: 1.0}})
        held_out = objectives_of(
            "phrases",
            entry,
            source,
            source.records("held_out"),
            stage=stage.name,
            seed=config.run.seed,
            wording=load_wording(config.data),
            faithful=False,
            split="held_out",
        )
        for slot in range(min(items, len(held_out))):
            drawn = held_out.drawn(slot, 0)
            yield drawn.example, negative or "+".join(drawn.recipe) or drawn.objective


def answered(config, examples) -> list[str]:
    """Greedy answers of the trained model."""
    from jaxlingua.generate.decoding import Decoding, Request
    from jaxlingua.generate.engine import generate
    from jaxlingua.sharding.mesh import make_mesh
    from jaxlingua.tokens.masks import prompt_tokens
    from jaxlingua.train.open_model import open_step
    from jaxlingua.train.run_folder import opened_run

    mesh = make_mesh(config.sharding)

    @contextlib.contextmanager
    def quiet(what: str):
        yield lambda done, total: None

    with opened_run(config.run.folder, print) as home:
        opened = open_step(config, home.path, home.step, mesh, quiet)
    prompts = prompt_tokens(examples, opened.tokenizer)
    answers = generate(
        opened.model,
        opened.params,
        [Request(prompt, max_new_tokens=48) for prompt in prompts],
        decoding=Decoding(),
        tokenizer=opened.tokenizer,
        eos_ids=opened.eos_ids or (opened.tokenizer.eos_id,),
        batch_rows=64,
        mesh=mesh,
    )
    return [answer.text for answer in answers]


def main() -> None:
    """Train, answer, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--items", type=int, default=400)
    parser.add_argument("--only", nargs="+", choices=STEPS, default=list(STEPS))
    given = parser.parse_args()

    from jaxlingua.command_line import load_config

    print(
        "| objective | asked | exactly right | of | 95 % | steps | training |\n|---|---|---|---|---|---|---|"
    )
    similarity = None
    with tempfile.TemporaryDirectory() as folder:
        for objective in given.only:
            path = configured(objective, Path(folder))
            begin = time.perf_counter()
            subprocess.run(
                [sys.executable, "-m", "jaxlingua.train", str(path)], check=True, stdout=subprocess.DEVNULL
            )
            seconds = time.perf_counter() - begin
            config = load_config(str(path))
            negatives = ["random", "hard", "noised"] if objective == "similarity" else []
            examples, kinds = zip(*asked(config, negatives, given.items), strict=True)
            right = defaultdict(list)
            for example, kind, text in zip(examples, kinds, answered(config, list(examples)), strict=True):
                is_right = text == example.answer_texts[0]
                right[kind].append(is_right)
                if objective != "similarity":
                    right["all"].append(is_right)
            for kind, each in sorted(right.items()):
                within = binomtest(sum(each), len(each)).proportion_ci(method="wilson")
                share, low, high = (100 * x for x in (sum(each) / len(each), within.low, within.high))
                interval = f"{low:.1f} to {high:.1f}"
                line = [
                    objective,
                    kind,
                    f"{share:.1f} %",
                    str(len(each)),
                    interval,
                    f"{STEPS[objective]:,}",
                    f"{seconds:.0f} s",
                ]
                print(f"| {' | '.join(line)} |", flush=True)
            if objective == "similarity":
                similarity = sum(right["random"]) / len(right["random"])
    print(f"\n- {cpu_model()}; steps of 16 rows of 96 tokens")
    if similarity is not None and similarity < LEAST_SIMILARITY:
        sys.exit(f"similarity with random negatives: {similarity:.1%}, less than {LEAST_SIMILARITY:.0%}")


if __name__ == "__main__":
    main()
