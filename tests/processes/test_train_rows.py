"""Two real processes of four devices each train as one process of eight does, each building half of the rows."""

import numpy as np
import pytest

from tests.processes.together import run_together
from tests.processes.train_rows import train_rows
from tests.train.world import FP32_STEPS


@pytest.mark.slow
def test_two_processes_train_as_one_and_each_builds_only_its_rows():
    alone = train_rows()
    told = run_together("tests.processes.train_rows")
    assert [one["asked"] for one in told] == [[[0, 8]] * 3, [[8, 16]] * 3]
    for one in told:
        np.testing.assert_allclose(one["losses"], alone["losses"], rtol=FP32_STEPS)
    assert alone["losses"][2] < alone["losses"][0]
