"""Two real processes read a public checkpoint together, each what it will hold, and one of them writes it."""

from tests.checkpoint.folders import LLAMA, write_folder
from tests.processes.together import run_together


def test_two_processes_read_what_they_hold_and_write_the_same_bytes(tmp_path):
    """Rows of matrices that are split along their inputs are read by both: o and down, a third here."""
    folder = write_folder(tmp_path / "public", LLAMA | {"vocab_size": 384, "num_key_value_heads": 8})
    told = run_together("tests.processes.public_weights", folder, tmp_path / "out")
    for one in told:
        assert one["is_right"]
        assert one["shards"] == 4
        assert one["read"] < 0.7 * one["of"]
    assert (tmp_path / "out" / "model.safetensors").read_bytes() == (
        folder / "model.safetensors"
    ).read_bytes()
    assert not list(tmp_path.glob(".out*"))
