"""Two real processes of two devices each answer as one process of four does."""

import numpy as np
import pytest

from tests.processes.generate_rows import ask
from tests.processes.together import run_together

FP32_SUM = 1e-4  # of a sum of up to 17 log-probabilities


@pytest.mark.slow
def test_two_processes_answer_as_one():
    alone = ask()
    assert {ended_by for _, _, ended_by, _ in alone["greedy"]} >= {"choice", "length"}
    assert len({text for _, text, _, _ in alone["drawn"]}) > 3
    logprobs = alone.pop("logprobs")
    for one in run_together("tests.processes.generate_rows"):
        np.testing.assert_allclose(one.pop("logprobs"), logprobs, rtol=0, atol=FP32_SUM)
        assert one == alone
