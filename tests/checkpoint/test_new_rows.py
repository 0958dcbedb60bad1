"""A public checkpoint with a larger vocabulary, against rows written out by hand; old rows bit by bit."""

import json
from pathlib import Path

import jax
import numpy as np
import pytest
from safetensors import safe_open

from jaxlingua.checkpoint.huggingface import new_rows as new_rows_module
from jaxlingua.checkpoint.huggingface.model import PublicModel, load_params, open_model
from jaxlingua.checkpoint.huggingface.new_rows import EMBEDDING, HEAD, NewRows, rows_of, write_model
from jaxlingua.checkpoint.huggingface.safetensors_file import INDEX, SINGLE
from jaxlingua.config import ModelConfig
from jaxlingua.model.llama import Llama
from jaxlingua.model.presets import llama_config
from jaxlingua.sharding.rules import MeshFunction, padded_vocab_size
from tests.checkpoint.folders import LLAMA, QWEN3, draw, write_folder
from tests.train.world import mesh_of

# The tokenizer uses 290 of the file's 300 rows. Row 301 belongs to no piece.
USED, FILE_ROWS, ROWS = 290, 300, 320
OLD_IDS = {290: (5, 6), 291: (7, 7, 9), 295: (), 299: (289,), 300: (0, 150), 302: (1, 2, 3, 4)}
TIED = LLAMA | {"tie_word_embeddings": True}


@pytest.fixture(autouse=True)
def few_rows_at_once(monkeypatch):
    monkeypatch.setattr(new_rows_module, "_ROWS_AT_ONCE", 64)


def new_rows(begin: str = "pieces") -> NewRows:
    return NewRows(OLD_IDS, first_id=USED, rows=ROWS, begin=begin)


def expected(old: np.ndarray, begin: str, learned: np.ndarray | None = None) -> np.ndarray:
    """A matrix with its new rows, each written out."""
    exact = old.astype(np.float64)
    mean = exact[:USED].mean(0)
    rows = np.concatenate([exact, np.repeat(mean[None], ROWS - FILE_ROWS, 0)])
    for place, (number, ids) in enumerate(OLD_IDS.items()):
        rows[number] = mean if begin == "mean" or not ids else sum(exact[i] for i in ids) / len(ids)
        if learned is not None:
            rows[number] = learned[place]
    return rows.astype(np.float32).astype(old.dtype)


def tensors(folder: Path) -> dict[str, np.ndarray]:
    found = {}
    for path in folder.glob("*.safetensors"):
        with safe_open(path, "np") as file:
            found |= {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 — no dict
    return found


def same(one: np.ndarray, other: np.ndarray) -> bool:
    return one.dtype == other.dtype and one.tobytes() == other.tobytes()


CASES = {
    "bfloat16, in shards": (LLAMA, "bfloat16", 3, "pieces"),
    "float16, tied": (TIED, "float16", 1, "pieces"),
    "float32, tied, of another family": (QWEN3, "float32", 2, "mean"),
    "float32": (LLAMA, "float32", 1, "mean"),
}


@pytest.mark.parametrize("case", CASES)
def test_new_rows_are_means_and_all_else_is_the_same_bit_by_bit(case, tmp_path):
    fields, dtype, shards, begin = CASES[case]
    old = draw(fields, dtype)
    public = open_model(str(write_folder(tmp_path / "old", fields, old, shards)))
    (tmp_path / "new").mkdir()
    write_model(tmp_path / "new", public, new_rows(begin), shard_gib=5)
    new = tensors(tmp_path / "new")
    assert new.keys() == old.keys()
    for name, matrix in old.items():
        if name in (EMBEDDING, HEAD):
            assert same(new[name][:USED], matrix[:USED])
            assert same(new[name], expected(matrix, begin))
        else:
            assert same(new[name], matrix)
    config = json.loads((tmp_path / "new" / "config.json").read_text())
    assert config == {**fields, "vocab_size": ROWS, "torch_dtype": dtype}
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == ["config.json", SINGLE]


def test_a_tied_head_that_is_there_twice_is_written_once(tmp_path):
    old = draw(TIED)
    public = open_model(str(write_folder(tmp_path, TIED, {**old, HEAD: old[EMBEDDING]})))
    (tmp_path / "new").mkdir()
    write_model(tmp_path / "new", public, new_rows(), shard_gib=5)
    assert tensors(tmp_path / "new").keys() == old.keys()


def test_learned_rows_go_into_the_embedding_and_the_head_begins_as_pieces(tmp_path):
    old = draw(LLAMA, "bfloat16")
    public = open_model(str(write_folder(tmp_path, LLAMA, old)))
    learned = np.random.default_rng(1).standard_normal((len(OLD_IDS), LLAMA["hidden_size"]), np.float32)
    (tmp_path / "new").mkdir()
    write_model(tmp_path / "new", public, new_rows(), shard_gib=5, embedding=learned)
    new = tensors(tmp_path / "new")
    assert same(new[EMBEDDING], expected(old[EMBEDDING], "pieces", learned))
    assert same(new[HEAD], expected(old[HEAD], "pieces"))


def test_large_models_are_split_and_generation_config_goes_along(tmp_path):
    old = draw(LLAMA)
    folder = write_folder(tmp_path / "old", LLAMA | {"_name_or_path": "old/home"}, old)
    (folder / "generation_config.json").write_text('{"eos_token_id": [2, 5]}')
    (tmp_path / "new").mkdir()
    sizes = []
    write_model(
        tmp_path / "new",
        open_model(str(folder)),
        new_rows(),
        shard_gib=1e-4,
        on_progress=lambda *at: sizes.append(at),
    )
    again = open_model(str(tmp_path / "new"))
    assert len({tensor.file for tensor in again.tensors.values()}) > 2
    assert (tmp_path / "new" / INDEX).is_file()
    assert again.config.vocab_size == ROWS
    assert again.generation == {"eos_token_id": [2, 5]}
    assert "_name_or_path" not in again.fields
    assert sizes[-1][0] == sizes[-1][1] == again.file_bytes


def test_a_file_of_several_types_becomes_float32_with_the_same_numbers(tmp_path):
    old = draw(LLAMA, "bfloat16")
    old["model.norm.weight"] = draw(LLAMA)["model.norm.weight"]
    (tmp_path / "new").mkdir()
    write_model(
        tmp_path / "new", open_model(str(write_folder(tmp_path, LLAMA, old))), new_rows(), shard_gib=5
    )
    new = tensors(tmp_path / "new")
    assert {array.dtype for array in new.values()} == {np.dtype(np.float32)}
    for name, matrix in old.items():
        exact = expected(matrix, "pieces") if name in (EMBEDDING, HEAD) else matrix
        assert same(new[name], exact.astype(np.float32))
    assert json.loads((tmp_path / "new" / "config.json").read_text())["torch_dtype"] == "float32"


@pytest.mark.parametrize("fields", [LLAMA, TIED], ids=["own head", "tied head"])
def test_logits_on_old_pieces_are_those_of_the_old_model_bit_by_bit(fields, tmp_path):
    """Issue 11: a model with new rows gives the same logits on old ids until it is trained."""
    public = open_model(str(write_folder(tmp_path / "old", fields)))
    (tmp_path / "new").mkdir()
    more = NewRows(OLD_IDS, first_id=USED, rows=448, begin="pieces")
    write_model(tmp_path / "new", public, more, shard_gib=5)
    tokens = np.random.default_rng(0).integers(0, USED, (2, 16), np.int32)
    old, new = logits(public, tokens), logits(open_model(str(tmp_path / "new")), tokens)
    assert (old.shape[2], new.shape[2]) == (384, 512)
    np.testing.assert_array_equal(new[..., :USED], old[..., :USED])
    assert not np.array_equal(new[..., USED:FILE_ROWS], old[..., USED:FILE_ROWS])


def logits(public: PublicModel, tokens: np.ndarray) -> np.ndarray:
    rows = padded_vocab_size(public.config.vocab_size)
    model = Llama(llama_config(ModelConfig(compute_dtype="float32"), rows, public=public.config))
    mesh = mesh_of()
    positions = np.broadcast_to(np.arange(tokens.shape[1], dtype=np.int32), tokens.shape)
    apply = MeshFunction(jax.jit(model.apply), mesh)
    params = load_params(public, model, mesh)
    return np.asarray(apply({"params": params}, tokens, positions, np.ones_like(tokens)))


@pytest.mark.parametrize(
    ("pieces", "file_rows", "multiple", "rows"),
    [(32_064, 32_000, 64, 32_064), (32_065, 32_000, 64, 32_128), (290, 300, 64, 320), (290, 300, 1, 300)],
)
def test_rows_are_a_multiple_and_none_of_the_file_is_lost(pieces, file_rows, multiple, rows):
    assert rows_of(pieces, file_rows, multiple) == rows
