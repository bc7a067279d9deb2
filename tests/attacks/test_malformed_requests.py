"""Malformed ETSI 014 requests: no 5xx, nothing served, no key in an answer or in the log, no key lost."""

import json

import pytest
from typer.testing import CliRunner

from heliograph.cli.main import app
from heliograph.http import server
from heliograph.kme import etsi014
from heliograph.lab.memory import measure_memory


def chaos(*options):
    done = CliRunner().invoke(app, ["kme-chaos", "--json", *options])
    return done.exit_code, json.loads(done.stdout)


def test_twenty_thousand_malformed_requests_get_nothing_but_refusals():
    code, report = chaos("--malformed", "20000")
    assert code == 0
    assert report["sound"] is True
    assert sum(report["statuses"].values()) == 20_000
    assert set(report["statuses"]) == {"400", "401", "404", "405"}
    assert report["slowest_s"] < 1.0


def test_a_door_that_quotes_a_key_is_found_out(monkeypatch):
    monkeypatch.setattr(etsi014, "MESSAGE_UNAUTHORIZED", "Q0FOQVJZLU9GLUEtS0VZ and more")
    code, report = chaos("--malformed", "500")
    assert code == 1
    assert report["canaries_in_answers"] > 0


def test_a_door_that_fails_is_found_out(monkeypatch):
    def broken(*_):
        raise ZeroDivisionError

    monkeypatch.setattr(server.etsi014, "read_key_ids", broken)
    code, report = chaos("--malformed", "500")
    assert code == 1
    assert report["server_errors"] > 0


@pytest.mark.slow
def test_broken_http_and_broken_tls_get_nothing_but_refusals_and_valid_requests_their_own_keys():
    code, report = chaos("--malformed", "300", "--over-tls", "--seed", "3")
    assert code == 0, report["found"]
    assert report["sound"] is True
    assert sum(report["cases"].values()) == 300
    assert len(report["cases"]) == 14
    assert set(report["statuses"]) <= {"400", "401", "404", "405", "413"}
    assert report["valid"] == 28
    # Each case got an answer or the end of its connection, and some of them several answers.
    assert sum(report["statuses"].values()) + report["unanswered"] >= 300
    # Its memory is shown after each tenth, so that a leak can be told from what the allocator keeps.
    sent = [at["requests"] for at in report["memory"]]
    assert (len(sent), sent[0], sent[-1]) == (11, 0, 300)
    assert sent == sorted(sent)
    assert all(at["rss_kib"] > at["heap_kib"] for at in report["memory"])


def test_memory_that_is_not_given_back_shows_and_what_is_given_back_does_not():
    before = measure_memory()
    texts, large = [str(number) * 9 for number in range(10_000)], bytearray(64 << 20)
    during = measure_memory()
    assert during["python_blocks"] - before["python_blocks"] >= 9_000
    assert during["heap_kib"] - before["heap_kib"] >= len(large) >> 10
    del texts, large
    after = measure_memory()
    assert after["python_blocks"] - before["python_blocks"] < 1000
    assert after["heap_kib"] - before["heap_kib"] < 1 << 10
