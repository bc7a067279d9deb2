"""`heliograph kme-chaos --postgresql`: whatever the delivery server does, nothing twice, nothing lost, all back."""

import json
import shutil

import pytest
from front_end_processes import short_directory
from typer.testing import CliRunner

from heliograph.cli.main import app
from heliograph.errors import HeliographError
from heliograph.lab.pg_door_faults import DoorReport
from heliograph.lab.pg_fault_rounds import Rounds
from heliograph.lab.pg_faults import LOGGING, PgFaultReport, PgPlan, PgTally, try_kills, try_points
from heliograph.lab.pg_proxy import Fault, What
from heliograph.lab.tmpfs import why_no_disk
from heliograph.storage import outbox
from heliograph.storage.pg_server import PgServer

pytestmark = pytest.mark.slow
MASTERS_COMMIT, SLAVES_COMMIT = 13, 17  # which COMMIT of a round is that of the first delivery, of the first fetch


@pytest.fixture
def rounds(postgres):
    """Give two sites over the shared server, which logs everything that it can meanwhile."""
    directory = short_directory()
    names = [line.split(" = ")[0] for line in LOGGING]
    with postgres.session() as session:
        for line in LOGGING:
            session.execute(f"ALTER SYSTEM SET {line}")
    postgres.reload()
    rounds = Rounds(directory, postgres)
    yield rounds
    rounds.close()
    with postgres.session() as session:
        for name in names:
            session.execute(f"ALTER SYSTEM RESET {name}")
    postgres.reload()
    shutil.rmtree(directory)


def test_two_sites_outlive_a_sample_of_cuts_and_errors(rounds):
    report = PgFaultReport()
    try_points(report, rounds, PgPlan(points=6, kills=0, full_disks=0, answers=0))
    report.search(rounds)
    assert report.found == []
    assert report.sound
    assert sum(tally.points for tally in report.tallies.values()) == 6
    assert sum(tally.refused for tally in report.tallies.values()) > 0
    assert report.delivered > 0
    assert report.messages > report.requests > 100


def delivers_although_nobody_said_that_it_is_durable(monkeypatch):
    honest = PgServer._commit

    def hasty(server, cursor):
        try:
            honest(server, cursor)
        except Exception:  # noqa: BLE001  - the planted bug
            server._drop()

    monkeypatch.setattr(PgServer, "_commit", hasty)


def test_a_front_end_that_answers_before_its_commit_is_sure_is_found(rounds, monkeypatch):
    delivers_although_nobody_said_that_it_is_durable(monkeypatch)
    # On a busy machine a step may be given up, and then another COMMIT of the round is that of a delivery.
    near = range(MASTERS_COMMIT, MASTERS_COMMIT + 4)
    found = (rounds.run(Fault(What.CUT_BEFORE, at, only=b"COMMIT")).wrong for at in near)
    assert any("twice to sae-a" in text for wrong in found for text in wrong)


def test_a_commit_whose_answer_is_lost_costs_an_answer_and_nothing_else(rounds):
    for at in (MASTERS_COMMIT, SLAVES_COMMIT):
        seen = rounds.run(Fault(What.CUT_AFTER, at, only=b"COMMIT"))
        assert (seen.fired, seen.wrong) == (True, [])
        assert seen.burnt == (at == MASTERS_COMMIT)


def test_a_blocks_key_that_crosses_as_a_parameter_is_found_in_the_servers_log(rounds, monkeypatch):
    def careless(server, epoch, block, sealed_key):
        server.execute(
            "INSERT INTO segment_keys VALUES (%s, %s, %s) ON CONFLICT DO NOTHING", (epoch, block, sealed_key)
        )

    monkeypatch.setattr(outbox, "_offer", careless)
    report = PgFaultReport()
    report.play(rounds, "no fault", Fault(What.NOTHING))
    report.search(rounds)
    assert report.sealed_in_logs >= 4
    assert report.key_in_logs == 0
    assert not report.sound


def test_a_front_end_whose_first_word_to_the_server_was_never_answered_is_not_taken_for_a_copy(rounds):
    """Its use was counted, and the answer lost, before it had an anchor: twice in a row."""
    (front,) = rounds._sites[1].fronts
    for _ in range(2):
        rounds.proxy.arm(Fault(What.CUT_AFTER, 1, only=b"COMMIT"))
        with pytest.raises(HeliographError, match="delivery server: "):
            front.tidy()
        assert rounds.proxy.disarm()
    front.tidy()


@pytest.mark.soak
def test_two_sites_outlive_a_sample_of_killed_servers(server):
    directory = short_directory()
    rounds, report = Rounds(directory, server), PgFaultReport()
    try:
        try_points(report, rounds, PgPlan(points=1, kills=0, full_disks=0, answers=0))
        try_kills(report, rounds, PgPlan(points=1, kills=6, full_disks=0, answers=0))
    finally:
        rounds.close()
        shutil.rmtree(directory)
    assert report.found == []
    assert report.tallies["kill -9 of a backend"] == PgTally(3, 3)
    assert report.tallies["kill -9 of the server"] == PgTally(3, 3)


@pytest.mark.soak
def test_the_command_breaks_everything_and_says_that_it_held(server):  # noqa: ARG001  - skips where there is none
    done = CliRunner().invoke(app, ["kme-chaos", "--postgresql", "60", "--seed", "2", "--json"])
    report = json.loads(done.stdout)
    assert done.exit_code == 0, report["found"]
    assert report["sound"] is True
    points = {name: tally["points"] for name, tally in report["tallies"].items()}
    assert sum(points[name] for name in points if name.startswith(("cut", "error"))) == 60
    if why_no_disk():
        assert "full disk" in report["not_tried"]
    else:
        assert points["full disk: data"] >= 1
        assert points["full disk: WAL"] >= 1
    assert set(report["door"]["statuses"]) <= {"200", "400", "503"}
    assert report["door"]["faults"] == 15


@pytest.mark.parametrize(
    "bad",
    [
        {"key_in_logs": 1},
        {"sealed_in_logs": 1},
        {"door": DoorReport(burnt=-1, statuses={503: 5})},
        {"tallies": {"kill": PgTally(1, 1, 1)}},
        *(
            {"door": DoorReport(**{name: 1})}
            for name in (
                "duplicates",
                "other_bytes",
                "wrong",
                "stuck",
                "bugs_in_log",
                "key_in_logs",
                "sealed_in_logs",
                "burnt",
            )
        ),
    ],
)
def test_a_report_with_anything_wrong_is_not_sound(bad):
    assert PgFaultReport(door=DoorReport()).sound
    assert not PgFaultReport(**bad).sound
