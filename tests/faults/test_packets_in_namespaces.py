"""Packets between two network namespaces under rotating keys: what crosses the wire, also when a part fails."""

from __future__ import annotations

import sys
import time
from contextlib import ExitStack, contextmanager

import pytest
from wire_recorder import require_namespaces, udp_records

from heliograph.consumer.keys import Role
from heliograph.encryptors.records import RecordType
from heliograph.encryptors.tun_device import OVERHEAD_BYTES
from heliograph.errors import ConfigurationError
from heliograph.lab.bulk import MARKER
from heliograph.lab.encryptors_side_by_side import (
    agent_pair,
    begin,
    packet_agents,
    programs,
    send,
    send_packets,
)
from heliograph.lab.network_path import NetworkPath
from heliograph.lab.wire import frames, recorded

pytestmark = pytest.mark.slow  # real processes in real time

QUICK = {"rekey_seconds": 1.0, "max_key_age_s": 20.0, "overlap_seconds": 5.0}
PATIENCE_S = 30.0
WORD = MARKER[:24]


def eventually(condition, what: str):
    """Ask until something is true: each question is a round trip to another process."""
    until = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < until, what


@contextmanager
def sinks(path: NetworkPath):
    """Run a TCP sink and a packet sink at site 1; yield their ports."""
    ports = path.ports(2)
    bulk = [sys.executable, "-m", "heliograph.lab.bulk"]
    commands = [[*bulk, kind, "0.0.0.0", str(port)] for kind, port in zip(("sink", "packet-sink"), ports, strict=True)]
    with programs(path, *((1, words) for words in commands)) as started:
        for each in started:
            assert each.stdout.readline() == "ready\n"
        yield ports


def carried_in_clear(file) -> int:
    return sum(WORD in frame for frame in frames(file))


def test_packets_cross_under_rotating_keys_without_a_loss_a_word_in_clear_or_a_nonce_twice(tmp_path):
    require_namespaces(tun=True)
    wire = tmp_path / "wire"
    with NetworkPath(namespaces=True) as path, sinks(path) as (tcp, udp):
        with recorded(path, wire), packet_agents(path, tcp, **QUICK) as at:
            sent = send_packets(path, at, udp, 6000, 1000.0)
            bulk = send(path, at, 8 << 20, 60.0)
            # No packet of 1500 bytes fits, and the inner network is told so: nothing is cut into pieces outside.
            assert path.inside(0, "cat", "/sys/class/net/hgtun0/mtu") == str(1500 - OVERHEAD_BYTES)
            ends = [at.status(side) for side in (0, 1)]
        # The search itself finds a packet that does go in clear.
        with recorded(path, tmp_path / "clear"):
            at.host = path.outer[1]
            send_packets(path, at, udp, 10, 1000.0)
    assert carried_in_clear(tmp_path / "clear") == 10
    assert sent["received"] == sent["sent"] == 6000
    assert bulk["received"] == bulk["sent"] == 8 << 20
    assert ends[0]["rekeys"] >= 2
    assert ends[0]["refused_records"] == ends[1]["refused_records"] == 0
    assert carried_in_clear(wire) == 0
    records = udp_records(wire)
    assert len(records) > 10_000
    assert {each.kind for each in records} == {RecordType.PACKET}
    nonces = {(each.key_id, each.sender, each.nonce()) for each in records}
    assert len(nonces) == len(records)
    assert len({each.key_id for each in records}) >= 3


def test_without_a_key_and_after_kill_9_no_packet_leaves_at_all(tmp_path):
    """An empty pool, then a killed agent; the network between offers a way round in clear, and nothing takes it."""
    require_namespaces(tun=True)
    with NetworkPath(namespaces=True) as path, sinks(path) as (tcp, udp):
        path.inside(0, "ip", "route", "add", "default", "via", path.outer[1])
        with packet_agents(path, tcp, stock=1, rekey_seconds=1.0, max_key_age_s=3.0) as at:
            assert send_packets(path, at, udp, 100, 1000.0)["received"] == 100
            eventually(lambda: at.status(0)["mode"] == at.status(1)["mode"] == "fail-closed", "a key outlived its age")
            assert "no key is left" in at.status(0)["last_refusal"]
            with recorded(path, tmp_path / "empty"), pytest.raises(ConfigurationError, match="does not answer"):
                send_packets(path, at, udp, 50, 1000.0)
            assert at.status(0)["turned_away"] >= 50
        assert udp_records(tmp_path / "empty") == []
        assert carried_in_clear(tmp_path / "empty") == 0
        with packet_agents(path, tcp, **QUICK) as at:
            assert send_packets(path, at, udp, 10, 1000.0)["received"] == 10
            at.agents[0].kill()
            at.agents[0].wait()
            with recorded(path, tmp_path / "killed"), pytest.raises(ConfigurationError):
                send_packets(path, at, udp, 50, 1000.0)
        # The other site's agent goes on under its key; from the killed one nothing comes.
        assert [each for each in udp_records(tmp_path / "killed") if each.sender is Role.INITIATOR] == []
        assert carried_in_clear(tmp_path / "killed") == 0


def both_encrypt(at) -> bool:
    ends = [at.status(side) for side in (0, 1)]
    return all(end["mode"] == "encrypting" and end["state"] == "Active" for end in ends) and (
        ends[0]["key_id"] == ends[1]["key_id"]
    )


def test_a_killed_agent_comes_back_under_a_fresh_key_and_no_nonce_is_used_twice(tmp_path):
    require_namespaces(tun=True)
    wire, orders = tmp_path / "wire", {}
    slow = {"rekey_seconds": 60.0, "max_key_age_s": 120.0}
    with (
        NetworkPath(namespaces=True) as path,
        sinks(path) as (tcp, udp),
        recorded(path, wire),
        packet_agents(path, tcp, keep=orders, **slow) as at,
        ExitStack() as restarted,
    ):
        for side in (0, 1):
            eventually(lambda: both_encrypt(at), "the tunnel did not come up")
            assert send_packets(path, at, udp, 200, 1000.0)["received"] == 200
            before = at.status(0)["key_id"]
            at.agents[side].kill()
            at.agents[side].wait()
            words = [sys.executable, "-m", "heliograph.lab.encryptor_side"]
            (at.agents[side],) = restarted.enter_context(programs(path, (side, words)))
            begin(at.agents[side], orders[side])
            eventually(lambda: both_encrypt(at), "no fresh key after a restart")
            assert at.status(0)["key_id"] != before
            assert send_packets(path, at, udp, 200, 1000.0)["received"] == 200
    records = udp_records(wire)
    assert len({(each.key_id, each.sender, each.nonce()) for each in records}) == len(records) >= 800
    assert carried_in_clear(wire) == 0


def test_a_partition_stops_packets_at_the_keys_greatest_age_and_heals_by_itself():
    require_namespaces(tun=True)
    quick = {"rekey_seconds": 1.0, "max_key_age_s": 4.0, "overlap_seconds": 2.0}
    with NetworkPath(namespaces=True) as path, sinks(path) as (tcp, udp), packet_agents(path, tcp, **quick) as at:
        assert send_packets(path, at, udp, 100, 1000.0)["received"] == 100
        path.cut(down=True)
        eventually(lambda: at.status(0)["mode"] == at.status(1)["mode"] == "fail-closed", "a key outlived its age")
        path.cut(down=False)
        eventually(lambda: both_encrypt(at), "the tunnel did not come back")
        assert send_packets(path, at, udp, 100, 1000.0)["received"] == 100


def test_agents_with_different_keys_under_the_same_name_pass_nothing(tmp_path):
    require_namespaces(tun=True)
    wire = tmp_path / "wire"
    lie = {"seeds": ("11" * 32, "22" * 32), "ready": False}
    with (
        NetworkPath(namespaces=True) as path,
        sinks(path) as (tcp, udp),
        recorded(path, wire),
        packet_agents(path, tcp, **lie, **QUICK) as at,
    ):
        with pytest.raises(ConfigurationError):
            send_packets(path, at, udp, 50, 1000.0)
        ends = [at.status(side) for side in (0, 1)]
    assert [end["mode"] for end in ends] == ["fail-closed"] * 2
    assert ends[0]["control_connected"]  # they did speak
    assert ends[0]["turned_away"] >= 50
    assert udp_records(wire) == []
    assert carried_in_clear(wire) == 0


def test_an_interface_that_is_missing_or_too_large_is_refused_with_the_command_that_mends_it():
    require_namespaces(tun=True)
    with NetworkPath(namespaces=True) as path:
        ends = [f"{address}:7005" for address in path.outer]
        tables = tuple(
            {"outer_listen": ends[side], "outer_connect": ends[1 - side], "tun": {"interface": "hgtun0"}}
            for side in (0, 1)
        )
        with pytest.raises(ConfigurationError, match="ip tuntap add dev hgtun0 mode tun"), agent_pair(path, tables):
            pass
        path.inside(1, "ip", "tuntap", "add", "dev", "hgtun0", "mode", "tun")
        with pytest.raises(ConfigurationError, match=f"mtu {1500 - OVERHEAD_BYTES}"), agent_pair(path, tables):
            pass


def test_an_interface_made_anew_is_attached_again_and_its_absence_is_an_alarm():
    """Deleted by another program, with a default route left that would take its packets: nothing of ours leaves."""
    require_namespaces(tun=True)
    slow = {"rekey_seconds": 60.0, "max_key_age_s": 120.0}
    with NetworkPath(namespaces=True) as path, sinks(path) as (tcp, udp), packet_agents(path, tcp, **slow) as at:
        eventually(lambda: both_encrypt(at), "the tunnel did not come up")
        path.inside(0, "ip", "link", "del", "hgtun0")
        eventually(lambda: at.status(0)["mode"] == "fail-closed", "an interface that is gone is not noticed")
        alarm = at.status(0)["alarm"]
        assert "hgtun0" in alarm
        assert "ip tuntap add dev hgtun0 mode tun" in alarm
        assert "in clear" in alarm
        assert both_told(at.status(1))  # the other site's interface is whole, and its packets are refused nowhere
        # An interface whose MTU does not fit is not taken; the alarm says what mends it.
        path.inside(0, "ip", "tuntap", "add", "dev", "hgtun0", "mode", "tun")
        eventually(lambda: "mtu" in at.status(0)["alarm"], "an MTU that does not fit was taken")
        path.inside(0, "ip", "addr", "add", "10.98.0.1/24", "dev", "hgtun0")
        path.inside(0, "ip", "link", "set", "hgtun0", "mtu", str(1500 - OVERHEAD_BYTES), "up")
        eventually(lambda: both_encrypt(at), "the interface was not attached again")
        assert at.status(0)["alarm"] is None
        assert send_packets(path, at, udp, 100, 1000.0)["received"] == 100
        # Deleted and made again between two looks, as a script does: still ours afterwards.
        for words in (
            ("link", "del", "hgtun0"),
            ("tuntap", "add", "dev", "hgtun0", "mode", "tun"),
            ("addr", "add", "10.98.0.1/24", "dev", "hgtun0"),
            ("link", "set", "hgtun0", "mtu", str(1500 - OVERHEAD_BYTES), "up"),
        ):
            path.inside(0, "ip", *words)
        eventually(lambda: passes(path, at, udp), "the interface was not attached again")


def both_told(status) -> bool:
    return status["mode"] == "encrypting" and status["alarm"] is None


def passes(path, at, udp) -> bool:
    try:
        return send_packets(path, at, udp, 20, 1000.0)["received"] == 20
    except ConfigurationError:
        return False
