"""Work shared out among processes of this machine; tests/clusters has what Dask does."""

from __future__ import annotations

import os
import time

import numpy as np
import pytest

from jet_diffusion.parallel import workers

KEPT = []


def sleep_and_square(number):
    time.sleep(0.2)
    return number**2


def grow(number):
    """A task whose process keeps 400 MB, which joblib takes for a leak."""
    KEPT.append(np.ones(50_000_000))
    time.sleep(1.2)
    return number, os.getpid()


def test_results_come_in_order_under_a_bar(capsys):
    with workers(1, progress=True) as pool:
        assert pool.run(sleep_and_square, ((number,) for number in range(4))) == [0, 1, 4, 9]
    assert "2/4" in capsys.readouterr().err
    with workers(1) as pool:
        assert pool.run(sleep_and_square, [(3,)]) == [9]
    assert not capsys.readouterr().err


@pytest.mark.slow
def test_a_process_that_grows_is_replaced_without_a_word():
    """Warnings are errors here."""
    with workers(2) as pool:
        done = pool.run(grow, [(number,) for number in range(8)])
    assert [number for number, _ in done] == list(range(8))
    assert len({process for _, process in done}) > 2
