"""The key manager under load: the promised fields, every key once, and a key that comes twice shows."""

import pytest
import typer

from heliograph.cli.bench import bench
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


@pytest.mark.slow
def test_a_large_pool_is_measured_beside_a_small_one_in_the_same_run(monkeypatch):
    monkeypatch.setattr(bench_kme, "_SMALL_POOL", 2000)
    report = bench_kme.run(singles=64, batches=8, pool=10_000)
    assert report["failures"] == []
    assert report["delivered"] == 2 * (64 + 8 * 128)
    assert [row["name"][:19] for row in report["results"]] == ["pool of 2,000 keys:"] * 2 + ["pool of 10,000 keys"] * 2
    assert min(report[name] for name in ("single_ratio", "batched_ratio", "memory_ratio", "filled_keys_per_s")) > 0


def test_a_pool_is_asked_of_the_key_manager_only(capsys):
    with pytest.raises(typer.Exit) as ended:
        bench("sifting", pool=10)
    assert ended.value.exit_code == 2
    assert capsys.readouterr().err == "heliograph: --pool belongs to `heliograph bench kme`\n"
