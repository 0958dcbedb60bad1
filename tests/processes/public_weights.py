"""One of several processes: reads a public checkpoint onto the shared mesh and writes it again.

Run as: python -m tests.processes.public_weights PORT PROCESSES PROCESS FOLDER OUT
"""

import json
import os
import sys
from pathlib import Path

from tests.compiling import xla_flags

if __name__ == "__main__":
    port, processes, process = (int(argument) for argument in sys.argv[1:4])
    os.environ["XLA_FLAGS"] = xla_flags(8 // processes)
    os.environ["JAX_PLATFORMS"] = "cpu"

import jax
import numpy as np

from jaxlingua.checkpoint.huggingface.export import whole_folder, write_weights
from jaxlingua.checkpoint.huggingface.model import load_params, open_model
from jaxlingua.checkpoint.huggingface.safetensors_file import StoredTensor
from jaxlingua.model.llama import Llama
from tests.train.world import mesh_of


def read_and_write(folder: str, out: Path) -> dict:
    """Bytes that were read here, and whether all devices here hold what the file has; export to `out`."""
    public, mesh = open_model(folder), mesh_of(tensor=8)
    real, read = StoredTensor.read_rows, []

    def noted(self, first, stop):
        rows = real(self, first, stop)
        read.append(rows.nbytes)
        return rows

    StoredTensor.read_rows = noted
    try:
        params = load_params(public, Llama(public.config), mesh)
    finally:
        StoredTensor.read_rows = real
    embedding = public.tensors["model.embed_tokens.weight"]
    whole = embedding.read_rows(0, embedding.shape[0])
    shards = params["embed"]["embedding"].addressable_shards
    is_right = all(np.array_equal(shard.data, whole[shard.index]) for shard in shards)
    with whole_folder(out, {}) as home:
        options = {"dtype": "float32", "shard_gib": 1.0, "mesh": mesh}
        write_weights(home, params, public.config, public.fields, **options)
    return {"read": sum(read), "of": public.file_bytes, "is_right": is_right, "shards": len(shards)}


if __name__ == "__main__":
    jax.distributed.initialize(f"127.0.0.1:{port}", processes, process)
    print("TOLD " + json.dumps(read_and_write(sys.argv[4], Path(sys.argv[5]))), flush=True)
    jax.distributed.shutdown()
