"""The encryptors side by side: the promised fields, every missing program by name, and a loss shows."""

import pytest

from heliograph.lab import bench_encryptors
from heliograph.lab.benchmarks import STAGES
from heliograph.lab.encryptors_side_by_side import CARRIERS, Running, send
from heliograph.lab.network_path import NetworkPath


@pytest.mark.slow
def test_the_stage_reports_every_encryptor_or_why_not_and_nothing_is_lost_while_keys_rotate():
    report = bench_encryptors.run(mebibytes=2, rounds=1, loss_seconds=3.0)
    assert "encryptors" in STAGES
    assert report["failures"] == []
    measured, missing = set(report["mbps"]), {each["name"].partition(":")[0] for each in report["not_measured"]}
    assert measured | missing == {each.name for each in CARRIERS}
    assert measured & missing == set()
    assert {each.name for each in CARRIERS if each.ours and not each.namespaces} <= measured
    assert all(each["mbps"] > 0 and each["lost_bytes"] == 0 for each in report["results"])
    assert all(each["rekeys"] >= 1 and each["lost_share"] == 0 for each in report["while_keys_rotate"])
    others = [report["mbps"][name] for name in ("wireguard-go", "stunnel") if name in measured]
    assert (report["ratio_to_slower"] is None) is (others == [])


def test_a_program_that_is_not_installed_is_named(monkeypatch):
    monkeypatch.setenv("PATH", "/nonexistent")
    path = NetworkPath(namespaces=False)
    assert {each.name: each.missing(path) for each in CARRIERS if each.needs} == {
        "wireguard-go": "wireguard-go, wg not installed",
        "stunnel": "stunnel4 not installed",
    }


def test_bytes_that_did_not_arrive_are_counted():
    found = bench_encryptors._row("x", [({"sent": 1000, "received": 900, "seconds": 1.0}, 0.5)])
    assert found["lost_bytes"] == 100


def test_a_connection_that_is_refused_is_one_line_and_no_figure():
    from heliograph.errors import ConfigurationError  # noqa: PLC0415

    path = NetworkPath(namespaces=False)
    with pytest.raises(ConfigurationError, match="a connection was cut"):
        send(path, Running("127.0.0.1", path.ports(1)[0]), 1000, 1.0)
