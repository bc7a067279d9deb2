"""The key manager under load: the promised fields, every key once, and a key that comes twice shows."""

import pytest

from heliograph.lab import bench_kme
from heliograph.lab.benchmarks import STAGES


@pytest.mark.slow
def test_the_stage_reports_the_promised_fields_and_no_key_twice():
    report = bench_kme.run(singles=64, batches=16, store_calls=64)
    assert "kme" in STAGES
    assert report["failures"] == []
    assert report["duplicates"] == 0
    assert report["delivered"] == 64 + 16 * 128 + 64
    assert min(report[name] for name in ("single_requests_per_s", "batched_keys_per_s", "p50_ms")) > 0
    assert report["p99_ms"] >= report["p50_ms"]
    assert len(report["results"]) == 7


def test_a_key_that_comes_twice_is_counted_under_any_name():
    assert bench_kme._Seen(["a", "b"], ["x", "y"]).duplicates() == 0
    assert bench_kme._Seen(["a", "a"], ["x", "y"]).duplicates() == 1
    assert bench_kme._Seen(["a", "b"], ["x", "x"]).duplicates() == 1
