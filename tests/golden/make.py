"""Writes the golden data again, with torch and transformers: python -m tests.golden.make"""

import importlib.metadata
import json
import platform
import tempfile
from pathlib import Path

import numpy as np
import torch
import transformers

from tests.golden import ARRAYS, FINGERPRINTS
from tests.golden.cases import CASES, Case, documents, fingerprint, write_folder

PACKAGES = ("transformers", "torch", "safetensors", "numpy", "ml_dtypes")


@torch.no_grad()
def outputs(case: Case) -> dict[str, np.ndarray]:
    """Logits [t v] and hidden states [l t d] of transformers in float32, documents one after the other.

    The hidden states are those after each layer, the last one normalized.
    """
    with tempfile.TemporaryDirectory() as folder:
        write_folder(case, Path(folder))
        model, told = transformers.AutoModelForCausalLM.from_pretrained(
            folder, dtype=torch.float32, attn_implementation="eager", output_loading_info=True
        )
    if any(told.values()):
        raise ValueError(f"transformers did not load the whole model, and nothing else: {told}")
    logits, states = [], []
    for tokens, positions in documents(case):
        out = model(
            input_ids=torch.tensor(tokens[None]).long(),
            position_ids=torch.tensor(positions[None]).long(),
            attention_mask=torch.ones(1, len(tokens)).long(),  # without it a gap would begin a new document
            output_hidden_states=True,
        )
        logits.append(out.logits[0])
        states.append(torch.cat(out.hidden_states[1:]))
    return {"logits": torch.cat(logits).numpy(), "hidden_states": torch.cat(states, dim=1).numpy()}


def golden_data() -> dict[str, np.ndarray]:
    """All arrays by "case/name"."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # the models are tiny; threads would wait for each other
    made = {name: outputs(case) for name, case in CASES.items()}
    torch.set_num_threads(threads)
    return {f"{name}/{array}": values for name, of_case in made.items() for array, values in of_case.items()}


def main() -> None:
    """Write both files."""
    transformers.utils.logging.disable_progress_bar()
    np.savez_compressed(ARRAYS, **golden_data())
    versions = {name: importlib.metadata.version(name) for name in PACKAGES}
    content = {
        "versions": {"python": platform.python_version(), **versions},
        "crc32 of weights": {name: fingerprint(case) for name, case in CASES.items()},
    }
    FINGERPRINTS.write_text(json.dumps(content, indent=2) + "\n")
    print(f"{ARRAYS}: {ARRAYS.stat().st_size:,} bytes, {len(CASES)} cases")


if __name__ == "__main__":
    main()
