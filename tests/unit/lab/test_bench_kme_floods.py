"""`heliograph bench kme-floods`: strangers take no key, every key is accounted for, and each phase has its figures."""

import json
import os

import pytest
from typer.testing import CliRunner

from heliograph.cli.main import app
from heliograph.lab import bench_kme_floods


@pytest.mark.slow
def test_floods_are_measured_beside_a_quiet_time_and_strangers_take_no_key():
    report = bench_kme_floods.run(seconds=0.5, rounds=1)
    assert report["failures"] == []
    assert report["keys_consumed_by_strangers"] == 0
    placements = 1 + (len(os.sched_getaffinity(0)) > 1)
    phases = list(bench_kme_floods.PHASES)
    assert len(report["results"]) == placements * len(phases)
    for number, name in enumerate(("p99_ratio", "p99_ratio_server_alone")[:placements]):
        assert list(report[name]) == phases
        assert report[name]["quiet"] == 1.0
        where = name.removeprefix("p99_ratio")
        assert list(report[f"server_cpu{where}"]) == list(report[f"flooder_cpu{where}"]) == phases
        by_phase = dict(zip(phases, report["results"][number * len(phases) :][: len(phases)], strict=True))
        assert all(found["requests"] > 0 and found["refused"] == 0 for found in by_phase.values())
        assert all(found["server_cpu"] > 0 for found in by_phase.values())
        assert by_phase["quiet"]["flood_attempts"] == by_phase["quiet"]["flooder_cpu"] == 0
        assert all(by_phase[phase]["flooder_cpu"] > 0 for phase in phases[1:])
        assert by_phase["limit"]["flood_served"] > 0
        assert by_phase["strangers"]["flood_attempts"] > 0
        assert by_phase["strangers"]["flood_served"] == by_phase["halves"]["flood_served"] == 0
        assert by_phase["strangers"]["keys_unaccounted"] == by_phase["halves"]["keys_unaccounted"] == 0


def test_the_stage_is_named():
    done = CliRunner().invoke(app, ["bench", "--json"])
    assert "kme-floods" in json.loads(done.stdout)["stages"]
