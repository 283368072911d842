"""JetNet 0.2.5's own figures on fixed inputs.

Made with jetnet 0.2.5, energyflow 1.4.0 and wasserstein 1.1.0 (each installed with --no-deps, coffea and pot beside
them), numpy 2.4, on the arrays of `samples`:

    fpd(real, generated, min_samples=1000, max_samples=2500, num_batches=5, num_points=10, seed=7)
    kpd(real, generated, num_batches=5, batch_size=1000, seed=7)
    gen_metrics.rng = np.random.default_rng(7)
    w1p(real[:, None, :3], generated[:, None, :3], num_eval_samples=1000, num_batches=5)
"""

from __future__ import annotations

import numpy as np
import pytest

from jet_diffusion.metrics.jetnet import fpd_samples, jetnet_fpd, jetnet_kpd, jetnet_wasserstein


@pytest.fixture(scope="module")
def samples():
    rng = np.random.default_rng(20261121)
    mix = rng.normal(size=(6, 6))
    real = np.exp(0.3 * rng.normal(size=(3000, 6)) @ mix)
    return real, np.exp(0.3 * (rng.normal(size=(2500, 6)) + 0.1) @ mix)


def test_fpd_is_jetnets(samples):
    assert jetnet_fpd(*samples, 1000, 2500, 5, 10, seed=7) == pytest.approx(
        (0.0007937777799104206, 0.0001428589827769921), rel=1e-6
    )


def test_kpd_is_jetnets(samples):
    assert jetnet_kpd(*samples, 5, 1000, seed=7) == pytest.approx(
        (9.232670836123447e-05, 8.253396850999595e-05), rel=1e-6
    )


def test_w1_is_jetnets(samples):
    mean, spread = jetnet_wasserstein(samples[0][:, :3], samples[1][:, :3], 1000, 5, seed=7)
    np.testing.assert_allclose(mean, [0.0756716, 0.07009811, 0.09580305], rtol=1e-6)
    np.testing.assert_allclose(spread, [0.01083724, 0.02914435, 0.03747332], rtol=1e-6)


def test_fewer_jets_keep_the_proportion_of_the_samples():
    assert fpd_samples(100_000) == (20_000, 50_000)
    assert fpd_samples(5_000) == (2_000, 5_000)
