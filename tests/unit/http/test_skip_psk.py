"""SKIP under external preshared keys of TLS 1.3, the draft's alternative to certificates: who gets in, who does not."""

import asyncio
import contextlib
import gc
import logging
import os
import shutil
import subprocess

import pytest
from OpenSSL import SSL
from psk_session import session_file

from heliograph.http.callers import PskCallers
from heliograph.http.psk_door import PskDoor
from heliograph.http.skip_server import SkipServer
from heliograph.kme.boundary import Boundary
from heliograph.kme.skip import SkipSystems
from heliograph.kme.supply import Limits, SaePair, Supply
from heliograph.openssl import AES_256_GCM_SHA384, CHACHA20_POLY1305_SHA256, psk_client, psk_server
from heliograph.testing.clock import ManualClock
from heliograph.testing.psk_client import Refused, ask, exchange, shake_hands
from heliograph.vault.randomness import SystemRandomness

PAIRS = [SaePair("sae-a", "sae-b", "kme-b"), SaePair("sae-2", "sae-b", "kme-b")]
SYSTEMS = SkipSystems("key-provider-a", {"site-b": ("sae-b",)})
PSK = {b"router-a": bytes(range(1, 33)), b"router-2": bytes(range(100, 164))}
IDENTITIES = {"router-a": "sae-a", "router-2": "sae-2"}
KEY = "/key?remoteSystemID=site-b"
needs_openssl = pytest.mark.skipif(shutil.which("openssl") is None, reason="apt-get install -y openssl")


def served(site, act, keys=PSK, identities=IDENTITIES, boundary=None):
    boundary = boundary or Boundary(psk=frozenset({"sae-a", "sae-2"}))

    async def main():
        supply = Supply(site.keys, "kme-a", PAIRS, Limits(), ManualClock(200.0), owner_reachable=lambda _: True)
        server = SkipServer(supply, SYSTEMS, SystemRandomness(), PskCallers(identities, boundary), boundary.networks)
        await server.start_psk("127.0.0.1", 0, keys.get)
        try:
            return await act(server.port)
        finally:
            await server.close()

    return asyncio.run(main())


def openssl_client(port, *words, path=KEY):
    """Ask with `openssl s_client`; returns everything it printed."""
    return subprocess.run(
        ["openssl", "s_client", "-connect", f"127.0.0.1:{port}", "-ign_eof", "-tls1_3", *words],
        input=f"GET {path} HTTP/1.1\r\nHost: kme\r\nConnection: close\r\n\r\n".encode(),
        capture_output=True,
        timeout=20,
        check=False,
    ).stdout.decode()


@needs_openssl
def test_openssl_s_client_gets_a_key_under_the_required_suite(site, tmp_path):
    (row,) = site.add_owned(1)
    session = tmp_path / "session.pem"
    session.write_text(session_file(PSK[b"router-a"]))
    words = ["-psk_identity", "router-a", "-psk_session", str(session)]
    printed = served(site, lambda port: asyncio.to_thread(openssl_client, port, *words))
    assert "HTTP/1.1 200 OK" in printed
    assert row.material.hex() in printed
    assert "Cipher is TLS_AES_256_GCM_SHA384" in printed
    # The key is beside a Diffie-Hellman exchange, not in place of it: psk_dhe_ke.
    assert "Server Temp Key: X25519" in printed


@needs_openssl
def test_openssl_s_client_with_a_key_of_sha256_is_refused_since_a_key_has_one_hash(site):
    """RFC 8446 4.2.11: a key belongs to one hash. openssl binds that of `-psk` to SHA-256, whatever the suite."""
    site.add_owned(1)
    words = ["-psk_identity", "router-a", "-psk", PSK[b"router-a"].hex(), "-ciphersuites", "TLS_AES_256_GCM_SHA384"]
    printed = served(site, lambda port: asyncio.to_thread(openssl_client, port, *words))
    assert "HTTP/1.1" not in printed


NOT_OURS_FIRST = [b"P-521:X25519", b"ffdhe8192:X25519", b"ffdhe2048:P-256"]


@pytest.mark.parametrize("groups", NOT_OURS_FIRST)
def test_a_client_whose_first_key_share_is_not_the_doors_is_asked_again_and_gets_its_key(site, groups):
    """RFC 8446 4.1.4: a HelloRetryRequest, and a second ClientHello with the binder over both (4.2.11.2)."""
    site.add_owned(1)
    looked_up = []

    class Keys(dict):
        def get(self, identity):
            looked_up.append(identity)
            return PSK.get(identity)

    status, document = served(site, lambda port: ask(port, b"router-a", PSK[b"router-a"], KEY, groups=groups), Keys())
    assert (status, len(document["key"])) == (200, 64)
    assert looked_up == [b"router-a"] * 3  # of each ClientHello, and once more when the handshake is complete


def test_a_key_that_is_replaced_between_two_client_hellos_opens_nothing(site):
    site.add_owned(1)

    class Keys(dict):
        def get(self, _identity):
            return self.pop("first", bytes(32))

    async def act(port):
        with pytest.raises(Refused):
            await ask(port, b"router-a", PSK[b"router-a"], KEY, groups=NOT_OURS_FIRST[0])

    served(site, act, Keys(first=PSK[b"router-a"]))
    assert site.keys.stored_key_count("sae-a", "sae-b") == 1


@needs_openssl
def test_openssl_s_client_that_takes_its_key_back_after_a_hello_retry_request_gets_nothing(site, tmp_path):
    """openssl/openssl#22335: its second ClientHello has no pre_shared_key, which RFC 8446 4.1.2 does not allow."""
    site.add_owned(1)
    session = tmp_path / "session.pem"
    session.write_text(session_file(PSK[b"router-a"]))
    words = ["-psk_identity", "router-a", "-psk_session", str(session), "-groups", "P-521:X25519", "-trace"]
    printed = served(site, lambda port: asyncio.to_thread(openssl_client, port, *words))
    if "extension_type=psk(41)" in printed.split("ClientHello, Length")[2]:
        pytest.skip("this openssl offers its key in both: it was mended")
    assert "HTTP/1.1" not in printed
    assert site.keys.stored_key_count("sae-a", "sae-b") == 1


def test_each_identity_is_its_own_sae(site):
    site.add_owned(1)

    async def act(port):
        mine = await ask(port, b"router-a", PSK[b"router-a"], KEY)
        other = await ask(port, b"router-2", PSK[b"router-2"], KEY)
        return mine, other

    mine, other = served(site, act)
    assert mine[0] == 200
    assert (other[0], other[1]["message"].split(":")[0]) == (503, "insufficient keys")  # the key was of sae-a's pair


@pytest.mark.parametrize(
    ("identity", "psk", "suite"),
    [
        (b"router-a", bytes(32), None),
        (b"router-a", PSK[b"router-2"], None),
        (b"router-2", PSK[b"router-a"], None),
        (b"router-b", PSK[b"router-a"], None),
        (b"router-a\0", PSK[b"router-a"], None),
        (b"\xff" * 200, PSK[b"router-a"], None),
        (b"router-a", PSK[b"router-a"], CHACHA20_POLY1305_SHA256),
    ],
)
def test_whoever_lacks_the_key_of_an_identity_gets_no_byte_of_an_answer(site, identity, psk, suite):
    site.add_owned(1)

    async def act(port):
        with pytest.raises(Refused):
            await ask(port, identity, psk, KEY, **({"suite": suite} if suite else {}))

    served(site, act)
    assert site.keys.stored_key_count("sae-a", "sae-b") == 1


def test_a_client_with_a_certificate_and_no_key_is_refused(site, wire):
    async def act(port):
        with pytest.raises(OSError, match=r"(?i)handshake|reset|closed|EOF|lost"):
            await wire.ask(port, site.sae_tls("sae-a"), "GET", KEY)

    served(site, act)


def test_an_identity_whose_sae_has_another_way_is_not_admitted(site):
    """ADR 0030: one way for each consumer. The door looks at the boundary, whatever its table says."""
    for boundary in (Boundary(), Boundary(users={"encryptor": "sae-a"}), Boundary(in_process=frozenset({"sae-a"}))):
        status, _ = served(site, lambda port: ask(port, b"router-a", PSK[b"router-a"], KEY), boundary=boundary)
        assert status == 401


def test_a_key_that_was_taken_out_opens_nothing_any_more(site):
    keys = dict(PSK)

    async def act(port):
        before = await ask(port, b"router-a", PSK[b"router-a"], "/capabilities")
        del keys[b"router-a"]
        with pytest.raises(Refused):
            await ask(port, b"router-a", PSK[b"router-a"], "/capabilities")
        return before[0]

    assert served(site, act, keys) == 200


def test_no_preshared_key_and_no_delivered_key_reach_the_log(site, caplog, capfd, monkeypatch):
    monkeypatch.setattr("heliograph.http.tls._logged", {})  # one line a second for each cause
    (row,) = site.add_owned(1)
    caplog.set_level(logging.DEBUG)

    async def act(port):
        await ask(port, b"router-a", PSK[b"router-a"], KEY)
        with pytest.raises(Refused):
            await ask(port, b"router-a", PSK[b"router-2"], KEY)

    served(site, act)
    shown = caplog.text + "".join(capfd.readouterr())
    assert "TLS refused" in shown
    for secret in (*PSK.values(), row.material):
        assert secret.hex() not in shown
        assert repr(secret) not in shown
    assert PSK[b"router-a"].hex() not in repr(psk_server(CHACHA20_POLY1305_SHA256, PSK.get))


def test_requests_of_one_connection_are_answered_in_order_and_pieces_do_not_matter(site):
    """Two requests in one TLS record, and one request in many."""

    async def act(port):
        request = b"GET /capabilities HTTP/1.1\r\nHost: kme\r\n\r\n"
        last = b"GET /entropy?minentropy=8192 HTTP/1.1\r\nHost: kme\r\nConnection: close\r\n\r\n"
        return await exchange(port, b"router-a", PSK[b"router-a"], request + request + last)

    answer = served(site, act)
    assert answer.count(b"HTTP/1.1 200 OK") == 3
    assert answer.count(b"localSystemID") == 2
    assert answer.index(b"randomStr") > answer.rindex(b"localSystemID")


def test_a_stranger_who_never_shakes_hands_is_cut_off(site, monkeypatch):
    monkeypatch.setattr("heliograph.doors.waiting.HANDSHAKE_SECONDS", 0.05)

    async def act(port):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
            await asyncio.wait_for(reader.readexactly(1), 10)
        writer.close()

    served(site, act)


@pytest.mark.parametrize("junk", [b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01\xff\xff" + bytes(100), os.urandom(300)])
def test_what_is_no_tls_is_cut_off_and_the_door_stays_open(site, junk):
    async def act(port):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(junk)
        writer.write_eof()
        await asyncio.wait_for(reader.read(), 10)
        writer.close()
        return await ask(port, b"router-a", PSK[b"router-a"], "/capabilities")

    assert served(site, act)[0] == 200


def test_a_changed_record_ends_the_connection_before_its_request_is_served(site):
    site.add_owned(1)

    async def act(port):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        tls = psk_client(AES_256_GCM_SHA384, b"router-a", PSK[b"router-a"])
        await shake_hands(tls, reader, writer)
        tls.connection.sendall(f"GET {KEY} HTTP/1.1\r\nHost: kme\r\n\r\n".encode())
        record = bytearray(tls.give())
        record[-1] ^= 1
        writer.write(record)
        with contextlib.suppress(ConnectionError):
            await asyncio.wait_for(reader.read(), 10)
        writer.close()

    served(site, act)
    assert site.keys.stored_key_count("sae-a", "sae-b") == 1


@pytest.mark.parametrize("now", [None, bytes(32)])
def test_a_handshake_begun_under_a_key_that_goes_meanwhile_opens_nothing(site, now):
    keys = dict(PSK)

    async def act(port):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        tls = psk_client(AES_256_GCM_SHA384, b"router-a", PSK[b"router-a"])
        with pytest.raises(SSL.WantReadError):
            tls.connection.do_handshake()
        writer.write(tls.give())
        tls.take(await reader.read(65536))  # the door has taken the key
        del keys[b"router-a"]
        if now:
            keys[b"router-a"] = now
        tls.connection.do_handshake()
        tls.connection.sendall(b"GET /capabilities HTTP/1.1\r\nHost: kme\r\n\r\n")
        writer.write(tls.give())
        answer = b""
        with contextlib.suppress(ConnectionError):
            answer = await asyncio.wait_for(reader.read(65536), 10)
        writer.close()
        return answer

    assert served(site, act, keys) == b""


def test_a_silent_stranger_costs_no_tls_connection():
    def held():
        return sum(isinstance(one, SSL.Connection) for one in gc.get_objects())

    async def main():
        before = held()
        door = PskDoor(PSK.get, asyncio.Protocol, 60.0)
        door.connection_made(asyncio.Transport())
        silent = held() - before
        door.connection_lost(None)
        return silent

    gc.collect()
    assert asyncio.run(main()) == 0


@pytest.mark.parametrize("end", ["server", "client"])
def test_a_fault_while_a_key_is_looked_up_fails_the_handshake_and_prints_nothing(end, capfd):
    def find(identity):
        raise ValueError(f"a fault beside a secret: {identity}")

    client = psk_client(AES_256_GCM_SHA384, b"router-a", None if end == "client" else PSK[b"router-a"])
    server = psk_server(AES_256_GCM_SHA384, find)
    with pytest.raises(SSL.Error) as refused:  # noqa: PT012  - whichever end has the fault
        with contextlib.suppress(SSL.WantReadError):
            client.connection.do_handshake()
        server.take(client.give())
        server.connection.do_handshake()
    assert not isinstance(refused.value, SSL.WantReadError)
    assert "".join(capfd.readouterr()) == ""
