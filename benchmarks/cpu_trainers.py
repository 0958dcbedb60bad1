"""The two trainers of train_cpu.py, ours and its peer; each imports its framework in its own process."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

LEARNING_RATE = 1e-3
Run = Callable[[str, int], tuple[float, int]]  # (job, step) -> (mean loss, target tokens)


class Sizes(NamedTuple):
    """The model, the padded batch, and the documents with the batches that they go into."""

    vocab: int = 4096
    embed: int = 256
    layers: int = 6
    heads: int = 8
    mlp: int = 688
    padded_rows: int = 8
    padded_length: int = 256
    documents: int = 384
    longest: int = 512  # and the length of a packed row
    packed_rows: int = 4  # 4 rows of 512 hold about 16 documents of the lengths drawn here
    documents_per_batch: int = 16


TINY = Sizes(vocab=64, embed=16, layers=2, heads=2, mlp=32, padded_length=32, documents=64, longest=64)


def draw(sizes: Sizes) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Random tokens. For the padded batch, half a row to a whole one; else of log-normal lengths.

    These are a quarter of the longest on average and 1/32 of it at least.
    """
    rng = np.random.default_rng(0)
    padded = rng.integers(sizes.padded_length // 2, sizes.padded_length + 1, sizes.padded_rows)
    mixed = rng.lognormal(np.log(0.195 * sizes.longest), 0.7, sizes.documents)
    mixed = np.clip(mixed, sizes.longest // 32, sizes.longest).astype(int)
    return tuple([rng.integers(3, sizes.vocab, n + 1).astype(np.int32) for n in ns] for ns in (padded, mixed))


def pad(documents: list[np.ndarray], length: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Tokens, targets and mask, all [b t]; of n + 1 tokens n are read and n are learned."""
    tokens, targets = np.zeros((2, len(documents), length), np.int32)
    mask = np.zeros((len(documents), length), bool)
    for row, document in enumerate(documents):
        n = len(document) - 1
        tokens[row, :n], targets[row, :n], mask[row, :n] = document[:-1], document[1:], True
    return tokens, targets, mask


def jaxlingua_config(sizes: Sizes):
    """Our model, with an untied head and the settings that are fastest on a CPU, each measured on one core.

    remat "minimal" against "none": 13 % less time, since memory comes fresh from the system each step and
    every new page costs time. Blocks of 128 against whole rows of 512: 14 % less, since three of eight pairs
    of blocks are skipped.
    """
    from jaxlingua.model.presets import LlamaConfig

    vocab, d, layers, n, mlp, *_ = sizes
    return LlamaConfig(
        vocab, d, layers, n, n, d // n, mlp,
        tie_embeddings=False, remat="minimal", attention="blockwise", attention_block_tokens=128,
    )  # fmt: skip


def jaxlingua_trainer(sizes: Sizes, params: Any) -> tuple[Run, dict[str, int]]:
    """Jobs padded and packed: the train step, the batches and the feeding of `python -m jaxlingua.train`."""
    import jax
    import jax.numpy as jnp

    from jaxlingua.config import OptimizerConfig, ShardingConfig, StageConfig
    from jaxlingua.model.llama import Llama
    from jaxlingua.sharding.feed import place_rows
    from jaxlingua.sharding.mesh import make_mesh
    from jaxlingua.tokens.batches import Batch, stage_batches
    from jaxlingua.tokens.store import Documents
    from jaxlingua.train.objective import Objective
    from jaxlingua.train.optimizer import make_optimizer
    from jaxlingua.train.state import abstract_state, initial_state, shardings_of
    from jaxlingua.train.step import make_train_step

    padded, texts = draw(sizes)
    lengths = np.array([len(text) for text in texts])
    starts, zeros = np.concatenate([[0], np.cumsum(lengths)]), np.zeros(len(texts), np.int32)
    target_mask = np.ones(starts[-1], bool)
    target_mask[starts[:-1]] = False
    documents = Documents(
        np.concatenate(texts), target_mask, starts, groups=zeros, indices=np.arange(len(texts)),
        target_tokens=lengths - 1, target_bytes=zeros, group_names=(("drawn", "eng_Latn"),), counts={},
        fingerprint="drawn",
    )  # fmt: skip
    batches = stage_batches(
        {"drawn": documents}, StageConfig(name="drawn", mixture={"drawn": {}}, epochs=1.0), seed=0,
        row_length_tokens=sizes.longest, batch_rows=sizes.packed_rows, packing=True,
    )  # fmt: skip

    tokens, targets, mask = pad(padded, sizes.padded_length)
    positions = np.tile(np.arange(sizes.padded_length, dtype=np.int32), (sizes.padded_rows, 1))
    padded_batch = Batch(tokens, targets, mask, positions, mask.astype(np.int32), np.zeros_like(tokens))

    model, mesh = Llama(jaxlingua_config(sizes)), make_mesh(ShardingConfig())
    settings = OptimizerConfig(peak_lr=LEARNING_RATE, schedule="constant", warmup_steps=0)
    optimizer, schedule = make_optimizer(settings, steps=1_000_000)
    shardings = shardings_of(abstract_state(model, optimizer, mesh))
    objective = Objective(sizes.vocab, groups=1, loss_chunk_tokens=8192)
    train_step = make_train_step(model, optimizer, schedule, objective, shardings)
    jobs = {
        "padded": (
            lambda step, start, stop: Batch(*(x[start:stop] for x in padded_batch)),
            sizes.padded_rows,
        ),
        "packed": (batches.batch, sizes.packed_rows),
    }
    states = {job: initial_state(model, optimizer, mesh, seed=0) for job in jobs}
    for job, state in states.items():
        own = jax.tree.map(jnp.array, params)  # each its own copy, since a step gives its state away
        states[job] = state.replace(params=jax.device_put(own, shardings.params))

    def run(job: str, step: int) -> tuple[float, int]:
        batch_fn, rows = jobs[job]
        batch = place_rows(batch_fn, step, rows, mesh)
        states[job], metrics = train_step(states[job], batch)
        return float(metrics.loss), int(metrics.target_tokens)

    return run, {"packed": batches.steps}


def torch_model(sizes: Sizes):
    """The peer's model, drawn as transformers draws it."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=sizes.vocab, hidden_size=sizes.embed, intermediate_size=sizes.mlp,
            num_hidden_layers=sizes.layers, num_attention_heads=sizes.heads, rms_norm_eps=1e-5,
            max_position_embeddings=2048, tie_word_embeddings=False, attn_implementation="sdpa",
        )
    )  # fmt: skip


def torch_trainer(sizes: Sizes, threads: int) -> tuple[Run, dict[str, int]]:
    """Jobs padded, shuffled and grouped: the loop that one writes with PyTorch and transformers.

    Rows are padded at the right, where a causal model needs no attention mask: leaving it out lets sdpa skip
    half of the scores, the faster of the two ways, with the same loss.
    """
    import torch
    from transformers.trainer_pt_utils import get_length_grouped_indices

    torch.set_num_threads(threads)
    padded, texts = draw(sizes)
    lengths = [len(text) - 1 for text in texts]
    per_batch = sizes.documents_per_batch
    steps = -(-len(texts) // per_batch)

    def documents(job: str, step: int) -> list[np.ndarray]:
        epoch, batch = divmod(step, steps)
        draw = torch.Generator().manual_seed(epoch)
        if job == "shuffled":
            order = torch.randperm(len(texts), generator=draw).tolist()
        else:
            order = get_length_grouped_indices(lengths, per_batch, generator=draw)
        return [texts[i] for i in order[batch * per_batch :][:per_batch]]

    trainers = {}
    for job in ("padded", "shuffled", "grouped"):
        model = torch_model(sizes).train()
        trainers[job] = model, torch.optim.AdamW(
            model.parameters(), lr=LEARNING_RATE, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.0, fused=True
        )  # fmt: skip

    def run(job: str, step: int) -> tuple[float, int]:
        model, optimizer = trainers[job]
        batch = padded if job == "padded" else documents(job, step)
        longest = sizes.padded_length if job == "padded" else max(map(len, batch)) - 1
        tokens, targets, mask = pad(batch, longest)
        labels = torch.from_numpy(np.where(mask, targets, -100).astype(np.int64))
        logits = model(input_ids=torch.from_numpy(tokens.astype(np.int64)), use_cache=False).logits
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), labels.flatten())
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        return loss.item(), int(mask.sum())

    return run, {"shuffled": steps, "grouped": steps}
