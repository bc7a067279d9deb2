"""SKIP over TLS 1.2, which the draft recommends (table 1) and a site opens where an encryptor has nothing newer."""

import asyncio
import datetime as dt
import shutil
import ssl
import subprocess

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from psk_session import session_file

from heliograph.errors import ConfigurationError
from heliograph.http.callers import PskCallers
from heliograph.http.skip_server import SkipServer
from heliograph.http.tls import SKIP_SUITE, SKIP_TLS12_SUITE, skip_server_tls
from heliograph.kme.boundary import Boundary
from heliograph.kme.skip import SkipSystems
from heliograph.kme.supply import Limits, SaePair, Supply
from heliograph.openssl import TLS12_SUITES, ffdhe3072
from heliograph.testing.psk_client import Refused, ask
from heliograph.vault.randomness import SystemRandomness

OLD, NEW = bytes(range(1, 33)), bytes(range(100, 164))
PAIRS = [SaePair("sae-a", "sae-b", "kme-b"), SaePair("sae-2", "sae-b", "kme-b")]
KEY = "/key?remoteSystemID=site-b"
IDENTITIES = {"router-old": "sae-a", "router-new": "sae-2"}
pytestmark = pytest.mark.skipif(shutil.which("openssl") is None, reason="apt-get install -y openssl")


class StoppedClock:
    def now(self):
        return 200.0


def served(site, act, *, psk=False, tls12=True):
    async def main():
        supply = Supply(site.keys, "kme-a", PAIRS, Limits(), StoppedClock())
        systems = SkipSystems("key-provider-a", {"site-b": ("sae-b",)})
        boundary = Boundary(psk=frozenset({"sae-a", "sae-2"}))
        callers = PskCallers(IDENTITIES, boundary) if psk else None
        server = SkipServer(supply, systems, SystemRandomness(), callers)
        if psk:
            older = {b"router-old": OLD}.get if tls12 else None
            await server.start_psk("127.0.0.1", 0, {b"router-new": NEW}.get, older)
        else:
            await server.start("127.0.0.1", 0, skip_server_tls(*site.kme_files, tls12=tls12))
        try:
            return await act(server.port)
        finally:
            await server.close()

    return asyncio.run(main())


def s_client(port, *words, version="-tls1_2", path=KEY):
    """Ask with `openssl s_client`; returns everything it printed."""
    return subprocess.run(
        ["openssl", "s_client", "-connect", f"127.0.0.1:{port}", "-ign_eof", version, *words],
        input=f"GET {path} HTTP/1.1\r\nHost: kme\r\nConnection: close\r\n\r\n".encode(),
        capture_output=True,
        timeout=20,
        check=False,
    ).stdout.decode()


def with_psk(identity=b"router-old", psk=OLD, cipher=None):
    words = ["-psk_identity", identity.decode(), "-psk", psk.hex()]
    return [*words, "-cipher", cipher] if cipher else words


@pytest.mark.parametrize("suite", [suite.decode() for suite in TLS12_SUITES])
def test_openssl_s_client_gets_a_key_under_each_suite_of_a_preshared_key(site, suite):
    (row,) = site.add_owned(1)
    words = with_psk(cipher=suite)
    printed = served(site, lambda port: asyncio.to_thread(s_client, port, *words), psk=True)
    assert "HTTP/1.1 200 OK" in printed
    assert row.material.hex() in printed
    assert f"Cipher is {suite}" in printed
    # The preshared key is beside an exchange: who learns it later cannot read what was recorded.
    assert "Server Temp Key: DH, 3072 bits" in printed


def test_the_best_suite_is_taken_whatever_the_client_prefers(site):
    offered = ":".join(reversed([suite.decode() for suite in TLS12_SUITES]))
    words = with_psk(cipher=offered)
    printed = served(site, lambda port: asyncio.to_thread(s_client, port, *words), psk=True)
    assert "Cipher is DHE-PSK-AES256-GCM-SHA384" in printed


@pytest.mark.parametrize(
    "words",
    [
        with_psk(cipher="PSK-AES256-GCM-SHA384"),  # no Diffie-Hellman
        with_psk(cipher="PSK-AES256-CBC-SHA384"),
        with_psk(cipher="DHE-PSK-AES128-GCM-SHA256"),
        with_psk(cipher="ADH-AES256-GCM-SHA384:@SECLEVEL=0"),  # nobody is authenticated
        with_psk(psk=bytes(32)),
        with_psk(b"router-x"),
        with_psk(b"router-new", NEW),  # a key for TLS 1.3
    ],
)
def test_nothing_else_gets_in_by_tls_1_2(site, words):
    site.add_owned(1)

    async def act(port):
        printed = await asyncio.to_thread(s_client, port, *words)
        return printed, await asyncio.to_thread(s_client, port, *with_psk())

    printed, rightful = served(site, act, psk=True)
    assert "HTTP/1.1" not in printed
    assert "HTTP/1.1 200" in rightful  # and the key is still there


def test_without_the_option_no_preshared_key_gets_in_by_tls_1_2(site):
    site.add_owned(1)
    for words in (with_psk(), with_psk(b"router-new", NEW)):
        printed = served(
            site, lambda port, words=words: asyncio.to_thread(s_client, port, *words), psk=True, tls12=False
        )
        assert "HTTP/1.1" not in printed


def test_a_key_for_tls_1_2_opens_nothing_in_tls_1_3_and_the_others_go_on(site, tmp_path):
    """RFC 8446 E.7: one key in both versions is not known to be safe."""

    async def act(port):
        with pytest.raises(Refused):
            await ask(port, b"router-old", OLD, KEY)
        session = tmp_path / "session.pem"
        session.write_text(session_file(OLD))
        words = ["-psk_identity", "router-old", "-psk_session", str(session)]
        by_session = await asyncio.to_thread(s_client, port, *words, version="-tls1_3")
        by_hash = await asyncio.to_thread(s_client, port, *with_psk(), version="-tls1_3")
        return by_session, by_hash, await ask(port, b"router-new", NEW, "/capabilities")

    by_session, by_hash, rightful = served(site, act, psk=True)
    assert "HTTP/1.1" not in by_session + by_hash
    assert rightful[0] == 200


def test_no_session_is_given_out_that_could_be_resumed_past_the_key(site, tmp_path):
    kept = tmp_path / "session"

    async def act(port):
        return await asyncio.to_thread(s_client, port, *with_psk(), "-sess_out", str(kept), path="/capabilities")

    printed = served(site, act, psk=True)
    assert "HTTP/1.1 200" in printed
    assert "Session-ID: \n" in printed
    assert "session ticket" not in printed
    assert not kept.exists()


def test_the_group_is_that_of_rfc_7919(tmp_path):
    mine, theirs = tmp_path / "mine.pem", tmp_path / "theirs.pem"
    mine.write_bytes(ffdhe3072())
    make = ["openssl", "genpkey", "-genparam", "-algorithm", "DH", "-pkeyopt", "group:ffdhe3072", "-out", str(theirs)]
    subprocess.run(make, check=True, capture_output=True, timeout=20)
    shown = [
        subprocess.run(
            ["openssl", "pkeyparam", "-in", str(path), "-text", "-noout"], check=True, capture_output=True, timeout=20
        ).stdout
        for path in (mine, theirs)
    ]
    assert shown[0] == shown[1]
    assert b"ffdhe3072" in shown[0]


# -- certificates ------------------------------------------------------------------------------------------------------


def by_certificate(site, *words):
    certificate, key, ca = site.sae_files("sae-a")
    return ["-cert", str(certificate), "-key", str(key), "-CAfile", str(ca), *words]


def test_a_certificate_gets_a_key_by_tls_1_2_under_the_recommended_suite(site):
    (row,) = site.add_owned(1)
    words = by_certificate(site)
    printed = served(site, lambda port: asyncio.to_thread(s_client, port, *words))
    assert "HTTP/1.1 200 OK" in printed
    assert row.material.hex() in printed
    assert f"Cipher is {SKIP_TLS12_SUITE}" in printed


@pytest.mark.parametrize("suite", ["ECDHE-ECDSA-AES128-GCM-SHA256", "ECDHE-ECDSA-CHACHA20-POLY1305", "AES256-SHA256"])
def test_another_suite_of_tls_1_2_is_refused(site, suite):
    site.add_owned(1)
    words = by_certificate(site, "-cipher", suite)
    assert "HTTP/1.1" not in served(site, lambda port: asyncio.to_thread(s_client, port, *words))


def test_tls_1_2_without_a_client_certificate_gets_no_answer(site):
    site.add_owned(1)
    assert "HTTP/1.1" not in served(site, lambda port: asyncio.to_thread(s_client, port))
    assert site.keys.stored_key_count("sae-a", "sae-b") == 1


def test_without_the_option_no_certificate_gets_in_by_tls_1_2(site):
    words = by_certificate(site)
    assert "HTTP/1.1" not in served(site, lambda port: asyncio.to_thread(s_client, port, *words), tls12=False)


def test_who_has_tls_1_3_gets_tls_1_3_with_its_required_suite(site):
    tls = site.sae_tls("sae-a")

    async def act(port):
        _, writer = await asyncio.open_connection("127.0.0.1", port, ssl=tls, server_hostname="127.0.0.1")
        inside = writer.get_extra_info("ssl_object")
        writer.close()
        return inside.version(), inside.cipher()[0]

    assert served(site, act) == ("TLSv1.3", SKIP_SUITE)


def test_a_certificate_that_has_no_suite_of_tls_1_2_is_refused_at_the_start(site, tmp_path):
    private = rsa.generate_private_key(65537, 2048)
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "kme")])
    now = dt.datetime.now(dt.UTC)
    builder = x509.CertificateBuilder(name, name, private.public_key(), 1, now, now + dt.timedelta(days=1))
    files = tmp_path / "rsa.pem", tmp_path / "rsa.key"
    files[0].write_bytes(builder.sign(private, hashes.SHA256()).public_bytes(Encoding.PEM))
    files[1].touch(0o600)
    files[1].write_bytes(private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    with pytest.raises(ConfigurationError, match=r"rsa\.pem: holds no ECDSA key.*take tls12 out of \[skip\]"):
        skip_server_tls(*files, site.kme_files[2], tls12=True)
    assert skip_server_tls(*files, site.kme_files[2]).minimum_version is ssl.TLSVersion.TLSv1_3
