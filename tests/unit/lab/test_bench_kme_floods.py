"""`heliograph bench kme-floods`: strangers take no key, every key is accounted for, and each phase has its figures."""

import json

import pytest
from typer.testing import CliRunner

from heliograph.cli.main import app
from heliograph.lab import bench_kme_floods


@pytest.mark.slow
def test_floods_are_measured_beside_a_quiet_time_and_strangers_take_no_key():
    report = bench_kme_floods.run(seconds=0.5, rounds=1)
    assert report["failures"] == []
    assert report["keys_consumed_by_strangers"] == 0
    assert report["p99_ratio"].keys() == bench_kme_floods.PHASES.keys()
    assert report["p99_ratio"]["quiet"] == 1.0
    by_phase = dict(zip(bench_kme_floods.PHASES, report["results"], strict=True))
    assert all(found["requests"] > 0 and found["refused"] == 0 for found in by_phase.values())
    assert by_phase["quiet"]["flood_attempts"] == 0
    assert by_phase["limit"]["flood_served"] > 0
    assert by_phase["strangers"]["flood_attempts"] > 0
    assert by_phase["strangers"]["flood_served"] == by_phase["halves"]["flood_served"] == 0
    assert by_phase["strangers"]["keys_unaccounted"] == by_phase["halves"]["keys_unaccounted"] == 0


def test_the_stage_is_named():
    done = CliRunner().invoke(app, ["bench", "--json"])
    assert "kme-floods" in json.loads(done.stdout)["stages"]
