"""`heliograph kme-chaos --partitions` and `--front-end-kills`: nothing twice, nothing different, all services back."""

import json

import pytest
from typer.testing import CliRunner

from heliograph.cli.main import app
from heliograph.lab.front_end_kills import FrontEndReport
from heliograph.lab.partitions import PairCuts, PartitionReport
from heliograph.lab.postgres import postgres_programs


def chaos(*options):
    done = CliRunner().invoke(app, ["kme-chaos", "--json", *options])
    return done.exit_code, json.loads(done.stdout)


@pytest.mark.soak
def test_sites_that_are_cut_from_each_other_and_from_others_come_back_and_agree():
    code, report = chaos("--partitions", "12", "--seed", "2")
    assert code == 0, report
    assert report["sound"] is True
    assert sum(pair["cuts"] for pair in report["pairs"].values()) == 12
    assert len(report["pairs"]) + len(report["not_cut"]) == 5
    assert all(len(pair["resume_s"]) == pair["cuts"] for pair in report["pairs"].values())
    assert report["fetched"] > 50


@pytest.mark.soak
@pytest.mark.skipif(postgres_programs() is None, reason="PostgreSQL is not installed (apt-get install postgresql-15)")
def test_front_ends_that_are_killed_with_their_server_deliver_each_key_at_most_once():
    code, report = chaos("--front-end-kills", "10", "--seed", "2")
    assert code == 0, report
    assert report["sound"] is True
    assert report["server_kills"] == 1
    assert report["delivered"] + report["burnt"] == report["keys"]
    assert len(report["back_s"]) == 10


@pytest.mark.parametrize("bad", [{"duplicates": 1}, {"disagreements": 1}, {"log_errors": 1}])
def test_a_partition_report_with_anything_wrong_is_not_sound(bad):
    assert PartitionReport({}, {}).sound
    assert not PartitionReport({}, {}, **bad).sound
    assert not PartitionReport({"site and site": PairCuts(cuts=1, stuck=1)}, {}).sound


@pytest.mark.parametrize("bad", [{"duplicates": 1}, {"other_bytes": 1}, {"left": 1}, {"tracebacks": 1}, {"burnt": 1}])
def test_a_report_of_kills_with_anything_wrong_is_not_sound(bad):
    assert FrontEndReport(1).sound
    assert not FrontEndReport(1, **bad).sound


def test_two_kinds_at_once_are_refused_in_one_line():
    done = CliRunner().invoke(app, ["kme-chaos", "--partitions", "3", "--malformed", "5"])
    assert done.exit_code == 1
    assert done.stderr.strip().endswith("one of --malformed, --partitions, --front-end-kills and --postgresql")
