"""The retriever that asks the evaluated model itself: the mean of its hidden states in a middle layer."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Float

from jaxlingua.errors import ConfigError
from jaxlingua.eval.in_context.retrieval.rank import Retriever
from jaxlingua.eval.in_context.retrieval.vectors import KeptVectors, VectorRetriever
from jaxlingua.generate.states import sentence_vectors
from jaxlingua.model.llama import Llama
from jaxlingua.tokens.interface import Tokenizer


def check_layer(layer: int | str, layers: int) -> None:
    """Raises: ConfigError for a layer that a model of `layers` does not have."""
    if layer != "auto" and layer > layers:
        raise ConfigError(
            f"eval.in_context.layer: {layer} given; the model has 0, its embeddings, to {layers}; "
            f"give one of these"
        )


def states_retriever(
    model: Llama,
    params: Any,
    tokenizer: Tokenizer,
    *,
    layer: int | str,
    mesh: Mesh,
    batch_rows: int,
    folder: Path | None = None,
    fingerprint: str = "",
) -> Retriever:
    """Cosine of mean states of one layer (`generate.states`).

    They are compared as they are. With the pool's mean subtracted, translations and sentences that lack a
    word were found as often in the demo's model: in no layer 3 more of 100, in some 2 fewer.

    Args:
        layer: 0, the embeddings, to the number of layers, or "auto", half of it.
        folder: where vectors are kept, such as one in the folder of the run; in several processes they are
            in memory only, since all of them must read the same texts together.
        fingerprint: names weights and tokenizer; needed with `folder`.
    Raises: ConfigError for a layer that the model does not have; as `sentence_vectors`.
    Cost: that of `sentence_vectors` for each text that is not known yet; 4 × embed bytes a text.
    """
    check_layer(layer, model.config.layers)
    if layer == "auto":
        layer = model.config.layers // 2
    if folder and not fingerprint:
        raise ValueError("vectors that are kept need the fingerprint of their model")
    # The weights alone do not tell how they are computed with, nor where a long text is cut.
    of_model = (fingerprint, model.config.compute_dtype, model.config.max_positions)
    kept = KeptVectors(folder if jax.process_count() == 1 else None, "states", layer, *of_model)

    def make(texts: Sequence[str]) -> Float[np.ndarray, "texts embed"]:
        return sentence_vectors(model, params, tokenizer, texts, batch_rows=batch_rows, mesh=mesh).mean[layer]

    return VectorRetriever("states", kept, make)
