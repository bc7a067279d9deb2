"""`heliograph kme-chaos --partitions` and `--front-end-kills`: nothing twice, nothing different, all services back."""

import json
import tempfile

import pytest
from typer.testing import CliRunner

from heliograph.cli.main import app
from heliograph.errors import ConfigurationError
from heliograph.lab.front_end_kills import FrontEndReport
from heliograph.lab.partitions import PairCuts, PartitionReport
from heliograph.lab.postgres import _room, postgres_programs

SHORT_SEED = "42"  # two short cuts, after which no connection stays silent


def chaos(*options):
    done = CliRunner().invoke(app, ["kme-chaos", "--json", *options])
    return done.exit_code, json.loads(done.stdout)


@pytest.mark.soak
def test_sites_that_are_cut_from_each_other_and_from_others_come_back_and_agree():
    code, report = chaos("--partitions", "24", "--seed", "2")
    assert code == 0, report
    assert report["sound"] is True
    assert sum(pair["cuts"] for pair in report["pairs"].values()) == 24
    assert len(report["pairs"]) + len(report["not_cut"]) == 10
    assert all(len(pair["resume_s"]) == pair["cuts"] for pair in report["pairs"].values())
    assert report["fetched"] > 50
    assert report["payloads"] > 20


@pytest.mark.slow
def test_nodes_that_are_cut_from_each_other_and_from_their_key_managers_come_back_and_agree():
    code, report = chaos("--partitions", "2", "--between", "nodes", "--seed", SHORT_SEED)
    assert code == 0, report
    assert [pair["cuts"] for pair in report["pairs"].values()] == [1, 1]
    assert [len(pair["resume_s"]) for pair in report["pairs"].values()] == [1, 1]
    assert report["fetched"] >= 10


@pytest.mark.soak
@pytest.mark.skipif(postgres_programs() is None, reason="PostgreSQL is not installed (apt-get install postgresql-15)")
def test_front_ends_that_are_killed_with_their_server_deliver_each_key_at_most_once():
    code, report = chaos("--front-end-kills", "10", "--seed", "2")
    assert code == 0, report
    assert report["sound"] is True
    assert report["server_kills"] == 1
    assert report["delivered"] + report["burnt"] == report["keys"]
    assert len(report["back_s"]) == 10


@pytest.mark.parametrize(
    "bad", ["duplicates", "disagreements", "under_unknown_key", "under_old_key", "bytes_in_clear", "log_errors"]
)
def test_a_partition_report_with_anything_wrong_is_not_sound(bad):
    assert PartitionReport(fetched=3, burnt=1, payloads=2, closed=1, outlived_s=0.2).sound
    assert not PartitionReport(**{bad: 1}).sound
    assert not PartitionReport(pairs={"site and site": PairCuts(cuts=1, stuck=1)}).sound


@pytest.mark.parametrize("bad", [{"duplicates": 1}, {"other_bytes": 1}, {"left": 1}, {"tracebacks": 1}, {"burnt": 1}])
def test_a_report_of_kills_with_anything_wrong_is_not_sound(bad):
    assert FrontEndReport(1).sound
    assert not FrontEndReport(1, **bad).sound


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (
            ["--partitions", "3", "--malformed", "5"],
            "give only one of --malformed, --partitions, --front-end-kills and --postgresql",
        ),
        (
            ["--malformed", "5", "--kill-points", "3"],
            "--kill-points belongs to the faults of disks, not to --malformed",
        ),
        (["--partitions", "3", "--rounds", "10"], "--rounds belongs to the faults of disks, not to --partitions"),
        (
            ["--front-end-kills", "3", "--images", "7"],
            "--images belongs to the faults of disks, not to --front-end-kills",
        ),
        (["--malformed", "5", "--directory", "."], "--directory belongs to the faults of disks, not to --malformed"),
        (["--partitions", "3", "--over-tls"], "--over-tls belongs to --malformed, not to --partitions"),
        (["--malformed", "3", "--between", "nodes"], "--between belongs to --partitions, not to --malformed"),
        (["--over-tls"], "--over-tls belongs to --malformed, not to the faults of disks: give --malformed too"),
    ],
)
def test_options_that_would_be_passed_over_are_refused_in_one_line(words, line):
    done = CliRunner().invoke(app, ["kme-chaos", *words])
    assert done.exit_code == 1
    assert done.stderr.startswith(f"heliograph: {line}")
    assert done.stderr.count("\n") == 1


def test_a_directory_that_the_servers_user_cannot_enter_is_named_with_the_remedy(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    tmp_path.chmod(0o700)
    with pytest.raises(ConfigurationError, match=f"nobody, who cannot enter {tmp_path}: set TMPDIR"):
        _room("nobody")
    assert _room(None) == tmp_path


def test_without_postgresql_the_remedy_is_named_for_root_and_for_others(monkeypatch):
    monkeypatch.setattr("heliograph.lab.postgres._PLACES", ())
    monkeypatch.setenv("PATH", "")
    done = CliRunner().invoke(app, ["kme-chaos", "--front-end-kills", "1"])
    assert done.exit_code == 1
    assert "apt-get install postgresql-15; without root" in done.stderr
