"""Ports forwarded between two network namespaces: an agent killed, the line cut, keys that differ, an empty pool."""

from __future__ import annotations

import subprocess
import sys
import time
from contextlib import ExitStack, contextmanager

import pytest
from wire_recorder import require_namespaces

from heliograph.errors import ConfigurationError
from heliograph.lab.bulk import MARKER
from heliograph.lab.encryptors_side_by_side import agents, begin, programs, send
from heliograph.lab.network_path import NetworkPath
from heliograph.lab.wire import frames, recorded

pytestmark = pytest.mark.slow  # real processes in real time

PATIENCE_S = 30.0
CIPHERS = ["aes-256-gcm", "tls-psk"]
SIDE = [sys.executable, "-m", "heliograph.lab.encryptor_side"]


def eventually(condition, what: str):
    until = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < until, what


def both_encrypt(at) -> bool:
    ends = [at.status(side) for side in (0, 1)]
    return all(end["mode"] == "encrypting" and end["state"] == "Active" for end in ends) and (
        ends[0]["key_id"] == ends[1]["key_id"]
    )


@contextmanager
def sink(path: NetworkPath):
    (port,) = path.ports(1)
    with programs(path, (1, [sys.executable, "-m", "heliograph.lab.bulk", "sink", "0.0.0.0", str(port)])) as started:
        assert started[0].stdout.readline() == "ready\n"
        yield port


@contextmanager
def sending(path: NetworkPath, at):
    """Let a host send without an end; yield its process."""
    words = [sys.executable, "-m", "heliograph.lab.bulk", "source", at.host, str(at.port), str(1 << 50), "3600"]
    with programs(path, (0, words)) as started:
        received = at.status(1)["received_bytes"]
        eventually(lambda: at.status(1)["received_bytes"] > received + (1 << 20), "nothing came across")
        yield started[0]


def clear_words(file) -> int:
    seen = [MARKER[:24] in frame for frame in frames(file)]
    assert len(seen) > 10, "the recorder saw nothing"
    return sum(seen)


@pytest.mark.parametrize("side", [0, 1], ids=["initiator", "responder"])
@pytest.mark.parametrize("cipher", CIPHERS)
def test_kill_9_of_an_agent_cuts_its_connections_and_it_comes_back_under_a_fresh_key(cipher, side, tmp_path):
    require_namespaces()
    wire, orders = tmp_path / "wire", {}
    with (
        NetworkPath(namespaces=True) as path,
        sink(path) as port,
        recorded(path, wire),
        agents(path, port, cipher=cipher, keep=orders) as at,
        ExitStack() as restarted,
    ):
        with sending(path, at) as host:
            before = at.status(1 - side)["key_id"]
            at.agents[side].kill()
            at.agents[side].wait()
            assert "error" in host.stdout.readline()  # cut, and not the end of the data
        (at.agents[side],) = restarted.enter_context(programs(path, (side, SIDE)))
        begin(at.agents[side], orders[side])
        eventually(lambda: both_encrypt(at), "no fresh key after a restart")
        assert at.status(0)["key_id"] != before
        sent = send(path, at, 1 << 20, 60.0)
    assert sent["sent"] == sent["received"] == 1 << 20
    assert clear_words(wire) == 0


@pytest.mark.parametrize("cipher", CIPHERS)
def test_a_cut_line_ends_connections_with_their_key_and_heals_by_itself(cipher, tmp_path):
    require_namespaces()
    wire = tmp_path / "wire"
    quick = {"rekey_seconds": 1.0, "max_key_age_s": 4.0, "overlap_seconds": 2.0}
    with (
        NetworkPath(namespaces=True) as path,
        sink(path) as port,
        recorded(path, wire),
        agents(path, port, cipher=cipher, **quick) as at,
    ):
        with sending(path, at):
            path.cut(down=True)
            eventually(lambda: at.status(0)["mode"] == at.status(1)["mode"] == "fail-closed", "a key outlived its age")
            carried = [at.status(0)["sent_bytes"], at.status(1)["received_bytes"]]
            path.cut(down=False)
            eventually(lambda: both_encrypt(at), "the tunnel did not come back")
        assert at.status(0)["sent_bytes"] >= carried[0]
        sent = send(path, at, 1 << 20, 60.0)
    assert sent["sent"] == sent["received"] == 1 << 20
    assert clear_words(wire) == 0


@pytest.mark.parametrize("cipher", CIPHERS)
def test_two_sites_with_different_keys_under_the_same_names_carry_nothing(cipher, tmp_path):
    require_namespaces()
    wire = tmp_path / "wire"
    lie = {"seeds": ("11" * 32, "22" * 32), "ready": False}
    with (
        NetworkPath(namespaces=True) as path,
        sink(path) as port,
        recorded(path, wire),
        agents(path, port, cipher=cipher, **lie) as at,
    ):
        words = [sys.executable, "-m", "heliograph.lab.bulk", "source", at.host, str(at.port), "1000", "3600"]
        with programs(path, (0, words)) as host:
            eventually(lambda: at.status(0)["control_connected"], "the agents never spoke")
            with pytest.raises(subprocess.TimeoutExpired):
                host[0].wait(3)  # it waits: its first byte is not even read
        ends = [at.status(side) for side in (0, 1)]
    assert [end["mode"] for end in ends] == ["fail-closed"] * 2
    assert sum(end["sent_records"] for end in ends) == 0
    assert clear_words(wire) == 0


@pytest.mark.parametrize("cipher", CIPHERS)
def test_an_empty_pool_stops_a_connection_at_the_keys_greatest_age(cipher, tmp_path):
    require_namespaces()
    wire = tmp_path / "wire"
    with (
        NetworkPath(namespaces=True) as path,
        sink(path) as port,
        recorded(path, wire),
        agents(path, port, cipher=cipher, stock=1, rekey_seconds=1.0, max_key_age_s=4.0) as at,
        sending(path, at),
    ):
        eventually(lambda: at.status(0)["mode"] == at.status(1)["mode"] == "fail-closed", "a key outlived its age")
        assert "no key is left" in at.status(0)["last_refusal"]
        stopped = at.status(0)["sent_bytes"]
        with pytest.raises(ConfigurationError):
            send(path, at, 1000, 1.0)
        assert at.status(0)["sent_bytes"] == stopped
    assert clear_words(wire) == 0
