"""A sample of `heliograph kme-chaos`: nothing twice, nothing on one side only, nothing burnt comes back; and the
checks find it when it does."""  # noqa: D205, D209

import json
import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

from heliograph.cli.main import app
from heliograph.lab.chaos import Plan, run_chaos

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler: apt-get install -y gcc"),
]

# In memory where there is such a place: the faults do not depend on the disk, the time does.
WHERE = next((Path(name) for name in ("/dev/shm",) if Path(name).is_dir()), None)


def test_stores_survive_a_sample_of_every_fault():
    words = ["--rounds", "2", "--kill-points", "40", "--images", "120", "--error-points", "25", "--json"]
    done = CliRunner().invoke(app, ["kme-chaos", *words, *(["--directory", str(WHERE)] if WHERE else [])])
    assert done.exit_code == 0, done.output
    report = json.loads(done.stdout)
    assert report["verdict"] == "holds"
    assert report["found"] == []
    assert report["calls"] > 200
    points = {"kill": 40, "torn_kill": 40, "power_loss": 120, "io_error": 25, "disk_full": 25}
    assert {name: report[name] for name in points} == {
        name: {"points": number, "violations": 0} for name, number in points.items()
    }


@pytest.mark.parametrize(
    ("plant", "kind", "words"),
    [("answer-first", "kill", "would be delivered twice"), ("no-sync", "power_loss", "")],
)
def test_a_planted_bug_is_found(plant, kind, words):
    """Keys handed out before they are erased, and a store that does not wait for the disk."""
    plan = Plan(rounds=1, kill_points=60 if kind == "kill" else 1, images=80, error_points=1, plant=plant)
    report = run_chaos(plan, WHERE)
    assert report.verdict == "fails"
    assert getattr(report, kind).violations > 0
    assert any(words in line for line in report.found)


def test_no_blocks_are_refused_in_one_line():
    done = CliRunner().invoke(app, ["kme-chaos", "--rounds", "10000"])
    assert done.exit_code == 1
    assert "between 1 and" in done.stderr
