"""strongSwan whose table cannot work, whose package or daemon is missing, or whose daemon hangs."""

from __future__ import annotations

import asyncio
import importlib
import shutil
import signal
import socket
import sys

import msgspec
import pytest
from strongswan_pair import Gateways, require_strongswan

from heliograph.agent.config import AgentConfig
from heliograph.consumer.keys import Cipher, Role, derive
from heliograph.encryptors.charon import Charon
from heliograph.encryptors.strongswan import StrongSwan
from heliograph.encryptors.strongswan_config import StrongSwanConfig
from heliograph.encryptors.strongswan_work import CharonWork
from heliograph.errors import ConfigurationError, EncryptorUnavailable
from heliograph.testing.clock import ManualClock
from heliograph.types import DeliveredKey

TABLE = {
    "local": "192.0.2.1",
    "remote": "192.0.2.2",
    "local_id": "gw-a.example",
    "remote_id": "gw-b.example",
    "certificate": "/etc/gw.pem",
    "key": "/etc/gw.key",
    "ca": "/etc/ca.pem",
    "local_networks": ["10.1.0.0/24"],
    "remote_networks": ["10.2.0.0/24"],
}


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"local": "gw-a"}, "local"),
        ({"remote": "192.0.2.1"}, "two IP addresses"),
        ({"remote": "2001:db8::1"}, "one family"),
        ({"local_id": 'x" } evil {'}, "local_id"),
        ({"remote_id": "gw-a.example"}, "both gateways"),
        ({"key": "gw.key"}, "absolute path"),
        ({"ca": "/etc/ca.pem\n}"}, "absolute path"),
        ({"local_networks": []}, "local_networks"),
        ({"remote_networks": ["10.2.0.1/24"]}, "remote_networks"),
        ({"remote_networks": ["0.0.0.0/0"]}, "outer address"),
        ({"name": "A"}, "name"),
        ({"netns": "x y"}, "netns"),
        ({"proposal": "aes256gcm16-prfsha384-modp1024"}, "proposal"),
        ({"esp_proposal": "null-sha1"}, "esp_proposal"),
        ({"esp_proposal": "aes256gmac"}, "esp_proposal"),  # authenticates, and encrypts nothing
        ({"esp_proposal": "aes256"}, "esp_proposal"),  # encrypts, and authenticates nothing
        ({"esp_proposal": "aes256gcm16-sha256"}, "esp_proposal"),
        ({"esp_proposal": "3des-md5_128"}, "esp_proposal"),
        ({"esp_proposal": "aes128gcm16-aes256gcm16"}, "esp_proposal"),
        ({"proposal": "aes256gcm16-prfsha384"}, "proposal"),  # no secret is exchanged
        ({"proposal": "aes256-sha1-x25519"}, "proposal"),
        ({"proposal": "default"}, "proposal"),
        ({"local": "fe80::1%e\n    ppk_required = no\n    #"}, "local"),
        ({"remote_networks": ["fe80::%x; id #/64"]}, "remote_networks"),
        ({"ppk_required": False}, "ppk_required"),
    ],
    ids=str,
)
def test_a_table_that_cannot_work_is_refused_by_name(change, named):
    document = {"role": "initiator", "control": "127.0.0.1:1", "strongswan": TABLE}
    assert AgentConfig.from_mapping(document).rotation.cipher is Cipher.STRONGSWAN
    with pytest.raises(ConfigurationError, match=named):
        AgentConfig.from_mapping(document | {"strongswan": TABLE | change})


@pytest.mark.parametrize(
    "change",
    [
        {"targets": {"x": "127.0.0.1:1"}, "outer_listen": "127.0.0.1:0"},
        {"cipher": "chacha20-poly1305"},
        {"cipher": "one-time-pad", "peer_key": "x"},
        {"cipher": "strongswan", "strongswan": None},
        {"rekey_seconds": 1.0},
        {
            "wireguard": {
                "interface": "wg0",
                "peer": "A" * 43 + "=",
                "allowed_ips": ["10.2.0.0/24"],
                "endpoint": "192.0.2.2:1",
            }
        },
    ],
    ids=str,
)
def test_strongswan_beside_what_does_not_go_with_it_is_refused(change):
    document = {"role": "initiator", "control": "127.0.0.1:1", "strongswan": TABLE}
    with pytest.raises(ConfigurationError):
        AgentConfig.from_mapping(document | change)


def driver(config, clock, told=None):
    def tell(name):
        return lambda key_id: None if told is None else told.append((name, key_id))

    names = ("on_nearly_used", "on_drained", "on_in_place", "on_not_taken")
    return StrongSwan(Role.RESPONDER, config, 300.0, 1 << 30, clock, **{name: tell(name) for name in names})


def test_without_its_package_it_says_what_to_install(monkeypatch):
    def without(name, *rest, there=importlib.import_module):
        if name == "vici":
            raise ImportError(name)
        return there(name, *rest)

    monkeypatch.setattr(importlib, "import_module", without)
    with pytest.raises(ConfigurationError, match="pip install"):
        driver(msgspec.convert(TABLE, StrongSwanConfig), ManualClock())


@pytest.mark.parametrize("there", [None, b"what?"], ids=["nobody", "somebody else"])
def test_a_site_whose_charon_does_not_answer_does_not_start_and_says_where(tmp_path, there):
    pytest.importorskip("vici")
    path = tmp_path / "vici"
    config = msgspec.convert(TABLE | {"socket": str(path), "guard": False}, StrongSwanConfig)

    async def scenario():
        with socket.socket(socket.AF_UNIX) as server:
            if there is not None:
                server.bind(str(path))
                server.listen()
                server.settimeout(10)

            def answer():
                line, _ = server.accept()
                with line:
                    line.recv(1000)

            answering = asyncio.to_thread(answer) if there is not None else asyncio.sleep(0)
            starting = driver(config, ManualClock()).start()
            done = await asyncio.gather(starting, answering, return_exceptions=True)
            assert isinstance(done[0], ConfigurationError)
            assert len(str(done[0]).splitlines()) == 1
            assert "strongswan" in str(done[0])

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("told", "proposals"),
    [
        ({"ke": {"CURVE_25519": b"openssl", "ML_KEM_768": b"ml"}}, 2),
        ({"ke": {"CURVE_25519": b"openssl"}}, 1),
        ({"dh": {"CURVE_25519": b"openssl"}}, 1),  # strongSwan 5
    ],
    ids=["6.1", "6.0", "5.9"],
)
def test_ml_kem_is_proposed_first_where_charon_has_it(tmp_path, told, proposals):
    """What charon lists, as 5.9.8 and 6.1.0 put it; the daemon with ML-KEM itself is not among the tests' programs."""
    pytest.importorskip("vici")
    files = {name: str(tmp_path / name) for name in ("certificate", "key", "ca")}
    for name in files:
        (tmp_path / name).write_text("PEM")
    config = msgspec.convert(TABLE | files, StrongSwanConfig)

    class Session:
        load_cert = load_key = staticmethod(lambda _: None)
        get_algorithms = staticmethod(lambda: told)

    found = Charon(config).introduce(Session())
    assert len(found) == proposals
    assert found[-1] == "aes256gcm16-prfsha384-x25519"
    assert found[0].endswith("-ke1_mlkem768") is (proposals == 2)


def test_a_charon_that_hangs_holds_up_nobody_and_is_an_alarm(tmp_path):
    require_strongswan()
    with Gateways(tmp_path) as pair:
        config = msgspec.convert(pair.table(1), StrongSwanConfig)

        async def scenario():
            clock, told = ManualClock(), []
            tunnel = driver(config, clock, told)
            await tunnel.start()
            pair.charons[1].send_signal(signal.SIGSTOP)
            keys = derive(DeliveredKey("3f2b8c1e-6c1f-4f6e-9d3a-0a1b2c3d4e5f", bytes(32)), Cipher.STRONGSWAN)
            tunnel.install(keys, 0.0)
            for _ in range(1000):
                await asyncio.sleep(0)
            assert tunnel._settler.busy
            clock.advance(16)
            tunnel.check()
            assert "does not answer" in tunnel.report().alarm
            assert not tunnel.report().sending
            assert told == []  # nothing is in place
            pair.charons[1].send_signal(signal.SIGCONT)
            async with asyncio.timeout(10):
                while ("on_in_place", keys.key_id) not in told:
                    clock.advance(1)
                    tunnel.check()
                    await tunnel._settler._idle.wait()
            assert pair.shared_keys(1) == [b"heliograph-3f2b8c1e-6c1f-4f6e-9d3a-0a1b2c3d4e5f"]
            await tunnel.close()
            assert pair.shared_keys(1) == []

        asyncio.run(scenario())


@pytest.mark.parametrize("entry", ["certificate", "key", "ca"])
def test_a_file_that_is_missing_is_named_at_the_start(tmp_path, entry):
    require_strongswan()
    with Gateways(tmp_path) as pair:
        config = msgspec.convert(pair.table(1) | {entry: "/nowhere/file.pem"}, StrongSwanConfig)
        with pytest.raises(ConfigurationError, match=f"{entry} /nowhere/file.pem"):
            asyncio.run(driver(config, ManualClock()).start())


def test_no_key_is_written_to_charons_log_or_told_by_our_records(tmp_path, capsys):
    require_strongswan()
    with Gateways(tmp_path) as pair:
        config = msgspec.convert(pair.table(1), StrongSwanConfig)
        keys = derive(DeliveredKey("3f2b8c1e-6c1f-4f6e-9d3a-0a1b2c3d4e5f", bytes(range(32))), Cipher.STRONGSWAN)
        secret = keys.initiator_key.to_bytes()

        async def scenario():
            tunnel = driver(config, ManualClock())
            await tunnel.start()
            tunnel.install(keys, 0.0)
            await tunnel._settler._idle.wait()
            sys.stdout.write(f"{tunnel._generations} {tunnel.report()}")
            await tunnel.close()

        asyncio.run(scenario())
        everything = pair.log(1) + capsys.readouterr().out
        assert secret.hex() not in everything.lower()
        assert repr(secret)[2:-1] not in everything


@pytest.mark.parametrize("words", ["aes256gcm16", "aes256-sha256-ecp384", "chacha20poly1305-x25519"])
def test_sound_ciphers_for_packets_are_taken(words):
    document = {"role": "initiator", "control": "127.0.0.1:1", "strongswan": {**TABLE, "esp_proposal": words}}
    assert AgentConfig.from_mapping(document).strongswan.esp_proposal == words


@pytest.mark.skipif(shutil.which("ip") is None, reason="ip is missing: apt-get install -y iproute2")
def test_a_guard_that_cannot_be_set_is_tried_again_at_each_look_and_never_taken_for_set():
    work = CharonWork(Role.INITIATOR, StrongSwanConfig(**{**TABLE, "netns": "hg-no-such-namespace"}))
    for _ in range(3):
        with pytest.raises(EncryptorUnavailable, match="nothing is started"):
            work._guarded()
