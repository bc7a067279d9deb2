"""The maximiser finds what can be worked out by hand, the same each time, and asks only inside its box."""

import numpy as np
import pytest

from heliograph.postprocessing.secrecy.search import Effort, maximise


def test_a_single_hill_is_climbed_to_its_top():
    top = np.array([0.3, 0.71, 0.05, 0.5])
    found = maximise(lambda x: -np.sum((x - top) ** 2, axis=1), 4)
    assert found == pytest.approx(top, abs=2e-3)


def test_a_narrow_bent_ridge_is_followed():
    def rosenbrock(x):
        a, b = 4 * x[:, 0] - 2, 4 * x[:, 1] - 2
        return -((1 - a) ** 2) - 100 * (b - a * a) ** 2

    assert maximise(rosenbrock, 2) == pytest.approx((0.75, 0.75), abs=2e-3)


def test_the_higher_of_two_peaks_is_found_though_it_is_the_narrower():
    def peaks(x):
        wide = np.exp(-np.sum((x - 0.2) ** 2, axis=1) / 0.1)
        return wide + 1.5 * np.exp(-np.sum((x - 0.8) ** 2, axis=1) / 0.01)

    assert maximise(peaks, 3) == pytest.approx((0.8, 0.8, 0.8), abs=1e-2)


def test_a_best_point_at_the_edge_is_reached():
    assert maximise(lambda x: x[:, 0] - x[:, 1], 2) == (1.0, 0.0)


def test_small_steps_do_not_stop_it():
    """As those of whole counts do to a climb along slopes."""
    found = maximise(lambda x: -np.floor(200 * np.sum(np.abs(x - 0.37), axis=1)), 4)
    assert np.sum(np.abs(np.array(found) - 0.37)) < 0.02


def test_points_without_a_value_are_passed_over_and_a_start_is_used():
    def island(x):
        inside = np.all(np.abs(x - 0.9137) < 1e-3, axis=1)
        return np.where(inside, -np.abs(x[:, 0] - 0.9137), -np.inf)

    start = (0.9134, 0.9134, 0.9134, 0.9134)
    assert np.isfinite(island(np.array([maximise(island, 4, starts=[start])]))[0])
    assert island(np.array([maximise(island, 4)]))[0] == -np.inf, "the scan alone does not meet it"


def test_it_is_the_same_each_time_and_never_leaves_the_box():
    def score(x):
        assert x.min() >= 0
        assert x.max() <= 1
        return np.sin(37 * x[:, 0]) * np.cos(11 * x[:, 1]) + x[:, 2]

    effort = Effort(scan=256, crowd=20, generations=40)
    assert maximise(score, 3, effort=effort) == maximise(score, 3, effort=effort)
