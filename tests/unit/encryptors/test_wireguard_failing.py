"""WireGuard whose program fails when it matters: a stand-in for ``wg`` that keeps what it was told, or refuses."""

import asyncio
import base64
import contextlib
import os
from pathlib import Path

import pytest

from heliograph.agent.agent import Agent
from heliograph.agent.config import AgentConfig
from heliograph.consumer.keys import Cipher, Role, derive
from heliograph.consumer.messages import Confirm
from heliograph.encryptors.wireguard import WireGuard, WireGuardConfig
from heliograph.errors import ConfigurationError
from heliograph.testing.clock import ManualClock
from heliograph.testing.keysource import MemoryKeyManagers
from heliograph.testing.randomness import SeededRandom
from heliograph.types import DeliveredKey

PEER = base64.b64encode(bytes(range(32))).decode()
PROGRAM = """#!/bin/sh
[ -e "{place}/broken" ] && exit 1
[ -e "{place}/hangs" ] && cat "{place}/gate"
case "$1" in
set) cat > "{place}/preshared"; echo "$@" > "{place}/words";;
show) [ "$3" = transfer ] && cat "{place}/transfer" || printf '%s\\t%s\\n' '{peer}' $(cat "{place}/handshake");;
esac
"""


@pytest.fixture
def place(tmp_path, monkeypatch):
    program = tmp_path / "wg"
    program.write_text(PROGRAM.format(place=tmp_path, peer=PEER))
    program.chmod(0o755)
    (tmp_path / "transfer").write_text(f"{PEER}\t0\t0\n")
    (tmp_path / "handshake").write_text("0")
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    return tmp_path


def wireguard(clock, role=Role.INITIATOR):
    config = WireGuardConfig(interface="wg0", peer=PEER, allowed_ips=["10.2.0.0/24"], endpoint="192.0.2.2:51820")
    nothing = lambda _: None  # noqa: E731
    told = {"on_nearly_used": nothing, "on_drained": nothing, "on_in_place": nothing, "on_not_taken": nothing}
    return WireGuard(role, config, 300.0, clock, SeededRandom(1), **told)


def in_place(place: Path) -> bytes:
    return base64.b64decode((place / "preshared").read_bytes())


async def carried_out(tunnel):
    async with asyncio.timeout(20):
        await tunnel._settler._idle.wait()


async def with_key(place, role=Role.INITIATOR):
    clock = ManualClock()
    tunnel = wireguard(clock, role)
    await tunnel.start()
    keys = derive(DeliveredKey("3f2b8c1e-6c1f-4f6e-9d3a-0a1b2c3d4e5f", bytes(range(32))), Cipher.AES_256_GCM)
    tunnel.install(keys, 0.0)
    tunnel.activate(keys.key_id)
    assert not tunnel.holds(keys.key_id)  # not before wg has done it
    await carried_out(tunnel)
    assert tunnel.holds(keys.key_id)
    assert in_place(place) == keys.initiator_key.to_bytes()
    return clock, tunnel, keys


def test_an_order_to_shut_that_failed_is_repeated_until_the_key_is_gone(place):
    async def scenario():
        clock, tunnel, keys = await with_key(place)
        (place / "broken").touch()
        tunnel.retire(keys.key_id)
        await carried_out(tunnel)
        assert "may still be in use" in tunnel.report().alarm
        clock.advance(60)
        tunnel.check()
        await carried_out(tunnel)
        assert "may still be in use" in tunnel.report().alarm
        (place / "broken").unlink()
        clock.advance(60)
        tunnel.check()
        await carried_out(tunnel)
        assert in_place(place) != keys.initiator_key.to_bytes()
        assert "endpoint" not in (place / "words").read_text()  # nothing to look up: shutting never waits for a name
        assert tunnel.report().alarm is None
        await tunnel.close()

    asyncio.run(scenario())


def test_an_order_that_failed_is_carried_out_when_the_interface_is_back(place):
    async def scenario():
        clock, tunnel, keys = await with_key(place)
        (place / "broken").touch()
        clock.advance(60)
        tunnel.check()
        await carried_out(tunnel)
        assert not tunnel.holds(keys.key_id)  # whoever made the interface again did not know the key
        (place / "broken").unlink()
        (place / "preshared").unlink()
        clock.advance(60)
        tunnel.check()
        await carried_out(tunnel)
        assert tunnel.holds(keys.key_id)
        assert in_place(place) == keys.initiator_key.to_bytes()
        await tunnel.close()

    asyncio.run(scenario())


CANDIDATE = derive(DeliveredKey("4f2b8c1e-6c1f-4f6e-9d3a-0a1b2c3d4e5f", bytes(range(1, 33))), Cipher.AES_256_GCM)


async def look(clock, tunnel, seconds=1.0):
    clock.advance(seconds)
    tunnel.check()
    await carried_out(tunnel)
    await asyncio.sleep(0)


async def encrypting(place, role):
    """Return a tunnel whose key a handshake has used, at second 1700000000."""
    clock, tunnel, keys = await with_key(place, role)
    (place / "handshake").write_text("1700000000")
    await look(clock, tunnel)
    assert tunnel.report().sending
    return clock, tunnel, keys


def test_a_responder_that_gives_a_candidate_up_says_at_once_and_for_good_that_the_session_before_goes_on(place):
    """It waited for a handshake that nothing calls for, and said after 15 s that nothing passes."""

    async def scenario():
        clock, tunnel, keys = await encrypting(place, Role.RESPONDER)
        tunnel.install(CANDIDATE, clock.now())
        await carried_out(tunnel)
        assert in_place(place) == CANDIDATE.initiator_key.to_bytes()
        tunnel.retire(CANDIDATE.key_id)
        await carried_out(tunnel)
        await asyncio.sleep(0)
        assert in_place(place) == keys.initiator_key.to_bytes()
        assert "remove" not in (place / "words").read_text()  # the session is not touched
        for _ in range(40):
            assert tunnel.report().sending
            assert tunnel.report().alarm is None
            assert tunnel.report().key_id == keys.key_id
            await look(clock, tunnel)
        await tunnel.close()

    asyncio.run(scenario())


def test_a_session_that_may_be_the_candidates_ends_with_it_and_is_said_to_have_ended(place):
    async def scenario():
        clock, tunnel, keys = await encrypting(place, Role.RESPONDER)
        tunnel.install(CANDIDATE, clock.now())
        await carried_out(tunnel)
        (place / "handshake").write_text("1700000009")
        tunnel.retire(CANDIDATE.key_id)
        await carried_out(tunnel)
        await asyncio.sleep(0)
        assert in_place(place) == keys.initiator_key.to_bytes()
        assert "remove" in (place / "words").read_text()
        await tunnel.close()

    asyncio.run(scenario())


def test_an_initiator_that_goes_back_to_a_key_whose_session_stands_says_so_at_once(place):
    async def scenario():
        clock, tunnel, keys = await encrypting(place, Role.INITIATOR)
        (place / "broken").touch()
        tunnel.install(CANDIDATE, clock.now())
        tunnel.activate(CANDIDATE.key_id)
        await carried_out(tunnel)
        await asyncio.sleep(0)
        assert not tunnel.report().sending
        (place / "broken").unlink()
        tunnel.activate(keys.key_id)  # as the rotation does when a key was not taken
        tunnel.retire(CANDIDATE.key_id)
        await carried_out(tunnel)
        await asyncio.sleep(0)
        assert tunnel.report().sending
        assert tunnel.report().alarm is None
        assert tunnel.report().key_id == keys.key_id
        assert in_place(place) == keys.initiator_key.to_bytes()
        assert "remove" not in (place / "words").read_text()
        await tunnel.close()

    asyncio.run(scenario())


def test_an_initiator_that_goes_back_to_a_key_whose_session_is_gone_waits_for_a_handshake(place):
    async def scenario():
        clock, tunnel, keys = await encrypting(place, Role.INITIATOR)
        tunnel.install(CANDIDATE, clock.now())
        tunnel.activate(CANDIDATE.key_id)
        (place / "handshake").write_text("0")  # the peer was removed and added, and nobody has shaken hands
        await carried_out(tunnel)
        tunnel.activate(keys.key_id)
        tunnel.retire(CANDIDATE.key_id)
        await carried_out(tunnel)
        await asyncio.sleep(0)
        assert "remove" in (place / "words").read_text()
        assert not tunnel.report().sending
        (place / "handshake").write_text("1700000020")
        await look(clock, tunnel)
        assert tunnel.report().sending
        await tunnel.close()

    asyncio.run(scenario())


def test_a_program_that_hangs_holds_up_nobody_and_is_an_alarm(place):
    """The site's loop goes on while wg does not end; what was wished meanwhile is carried out afterwards."""

    async def scenario():
        clock, tunnel, keys = await with_key(place)
        os.mkfifo(place / "gate")
        (place / "hangs").touch()
        tunnel.retire(keys.key_id)
        turns = 0
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(0.2):
                while True:
                    await asyncio.sleep(0)
                    turns += 1
        assert turns > 100
        assert tunnel._settler.busy
        clock.advance(60)
        tunnel.check()
        assert "does not end" in tunnel.report().alarm
        assert not tunnel.report().sending
        (place / "hangs").unlink()
        (place / "gate").write_text("")  # the program reads its gate, and goes on
        await carried_out(tunnel)
        assert in_place(place) != keys.initiator_key.to_bytes()
        await tunnel.close()

    asyncio.run(scenario())


def test_words_that_make_no_sense_are_an_alarm_and_no_crash(place):
    async def scenario():
        clock, tunnel, _ = await with_key(place)
        for odd in (f"{PEER}\n", f"{PEER}\tmany\tmore\n", f"{PEER}\t1\n", ""):
            (place / "transfer").write_text(odd)
            clock.advance(60)
            tunnel.check()
            await carried_out(tunnel)
            assert tunnel.report().alarm
        await tunnel.close()

    asyncio.run(scenario())


def test_an_endpoint_by_name_is_refused():
    with pytest.raises(ConfigurationError, match="write its IP address"):
        WireGuardConfig(interface="wg0", peer=PEER, allowed_ips=["10.2.0.0/24"], endpoint="vpn.example:51820").check()


# Two interfaces on one disk: a handshake is there, and new with each key, where both have the same preshared key.
TWO = """#!/bin/sh
cd "{place}"
[ -e "broken-$2" ] && exit 1
case "$1" in
set) cat > "key-$2"; echo x >> count;;
show) [ "$3" = transfer ] && words="0 0" || words=0
  [ "$3" = latest-handshakes ] && cmp -s key-wga key-wgb && words=$(wc -l < count)
  echo '{peer}' $words;;
esac
"""


async def two_agents(tmp_path, monkeypatch, story):
    """Run ``story(a, b, go_on)`` once both sides encrypt."""
    program = tmp_path / "wg"
    program.write_text(TWO.format(place=tmp_path, peer=PEER))
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    clock, keys = ManualClock(), MemoryKeyManagers()

    def agent(interface, role, control, source):
        table = {"interface": interface, "peer": PEER, "allowed_ips": ["10.2.0.0/24"], "endpoint": "192.0.2.2:51820"}
        return Agent(AgentConfig.from_mapping({"role": role, "control": control, "wireguard": table}), source, clock)

    b = agent("wgb", "responder", "127.0.0.1:0", keys.slave)
    await b.start()
    a = agent("wga", "initiator", str(b.control_address), keys.master)
    await a.start()

    async def go_on(condition, steps=2000):
        for _ in range(steps):
            if condition():
                return True
            clock.advance(0.05)
            for one in (a, b):
                one.tick()
            for _ in range(20):
                await asyncio.sleep(0)
            for one in (a, b):
                await carried_out(one._encryptor)
        return False

    try:
        assert await go_on(lambda: a.status().mode == b.status().mode == "encrypting")
        await story(a, b, clock, go_on)
    finally:
        await a.close()
        await b.close()


def test_no_agent_says_that_a_key_is_ready_which_its_interface_did_not_take(tmp_path, monkeypatch):
    """Else the other side would switch to it alone, and drop the session that still works."""

    async def story(a, b, clock, go_on):
        before, rekeys = a.status().key_id, a.status().rekeys
        (tmp_path / "broken-wgb").touch()  # from now on the responder takes no key
        clock.advance(61)
        assert not await go_on(lambda: a.status().rekeys != rekeys, steps=200)
        assert a.status().key_id == before
        (tmp_path / "broken-wgb").unlink()
        assert await go_on(lambda: a.status().rekeys > rekeys and b.status().mode == "encrypting")

    asyncio.run(two_agents(tmp_path, monkeypatch, story))


def test_an_initiator_whose_interface_takes_no_key_commits_to_none_and_goes_back_to_the_one_before(
    tmp_path, monkeypatch
):
    async def story(a, b, clock, go_on):
        before, rekeys = b.status().key_id, b.status().rekeys
        (tmp_path / "broken-wga").touch()
        clock.advance(61)
        assert await go_on(lambda: a._state.held.failures >= 1, steps=800)  # given up after 15 s
        assert a._state.held.current.key_id == b._state.held.current.key_id
        assert b.status().key_id == before  # it was never told to change
        (tmp_path / "broken-wga").unlink()
        assert await go_on(lambda: b.status().rekeys > rekeys and a.status().mode == "encrypting")
        assert clock.now() < 200  # long before the key that was not taken is too old

    asyncio.run(two_agents(tmp_path, monkeypatch, story))


def test_a_key_that_the_peer_was_told_to_change_to_is_never_given_up(tmp_path, monkeypatch):
    async def story(a, b, clock, go_on):
        send = b._send
        b._send = lambda message, origin: None if isinstance(message, Confirm) else send(message, origin)
        clock.advance(61)
        assert await go_on(lambda: a.status().state == "AwaitingConfirm" and b.status().rekeys == 1)
        told = a._state.held.current.key_id
        a._give_up(told)  # the interface broke just now
        assert a._state.held.current.key_id == told == b._state.held.current.key_id
        b._send = send
        assert await go_on(lambda: a.status().rekeys == 1 and a.status().mode == b.status().mode == "encrypting")

    asyncio.run(two_agents(tmp_path, monkeypatch, story))
