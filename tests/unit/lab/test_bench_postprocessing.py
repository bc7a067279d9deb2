"""The stages of post-processing in ``heliograph bench``: the promised fields, and failures that show."""

from __future__ import annotations

import pytest

from heliograph.bits import BitString
from heliograph.kernels.native import KERNELS
from heliograph.lab import bench_postprocessing as bench
from heliograph.lab.bench_simulator import simulator
from heliograph.lab.benchmarks import STAGES

FIELDS = {"name", "n_bits", "qber", "efficiency", "mbps", "seconds", "threads"}
SOCKETS = ((200_000, 0.01, 0.0, "cascade"), (200_000, 0.01, 0.001, "ldpc"))
SMALL = {
    "reconciliation": lambda: bench.reconciliation(
        (20_000,), ((200_000, 0.01, 0.0, "cascade"), (200_000, 0.01, 0.001, "ldpc"))
    ),
    "amplification": lambda: bench.amplification((4096, 8192)),
    "sifting": lambda: bench.sifting(50_000),
    "simulator": lambda: simulator((75.0,), (1e-2,), 40_000),
    "pipeline": lambda: bench.pipeline(400_000),
}


@pytest.mark.slow
@pytest.mark.parametrize("stage", SMALL)
def test_a_stage_reports_the_promised_fields(stage):
    report = SMALL[stage]()
    assert stage in STAGES
    assert (report["stage"], report["kernels"], report["failures"]) == (stage, KERNELS, [])
    assert report["results"]
    for line in report["results"]:
        assert set(line) >= FIELDS
        assert line["mbps"] == pytest.approx(line["n_bits"] / line["seconds"] / 1e6)
        if line["efficiency"] is not None:
            assert 1.0 < line["efficiency"] < (2.5 if "ldpc" in line["name"] else 1.3)


def test_bits_that_stay_wrong_are_a_failure_of_the_stage(monkeypatch):
    """A corrector that corrects nothing must not look fast."""
    honest = bench._reconcile

    def lazy(alice, bob, qber, pace):
        answerer, corrected = honest(alice, bob, qber, pace)
        return answerer, type(corrected)(bob, corrected.disclosed, corrected.rounds)

    monkeypatch.setattr(bench, "_reconcile", lazy)
    assert any("not corrected" in line for line in bench.reconciliation((5000,), ())["failures"])


def test_parities_that_are_not_counted_are_a_failure_of_the_stage(monkeypatch):
    class Forgetful:
        parities = 1

    done = Forgetful(), type("Done", (), {"bits": None, "rounds": 1})()

    def forget(alice, *_):
        done[1].bits = alice
        return done

    monkeypatch.setattr(bench, "_reconcile", forget)
    monkeypatch.setattr(bench, "_noisy", lambda n, _: (BitString(bytes(n // 8), n), BitString(b"\xff" * (n // 8), n)))
    monkeypatch.setattr(bench, "binary_entropy", lambda _: 0.1)
    monkeypatch.setattr(bench, "_one_way", lambda *_: {})  # it would not decode such noise
    assert any("not counted" in line for line in bench.reconciliation((1_000_000,), ())["failures"])
