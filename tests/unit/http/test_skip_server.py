"""SKIP (draft-cisco-skip-02), clause by clause, against a real key provider over real TLS 1.3."""

import asyncio
import json
import shutil
import ssl
import subprocess

import pytest

from heliograph.errors import ConfigurationError
from heliograph.http.skip_server import SkipServer
from heliograph.http.tls import SKIP_SUITE, skip_server_tls
from heliograph.kme.boundary import Boundary
from heliograph.kme.quotas import Quota, Quotas
from heliograph.kme.skip import SkipSystems
from heliograph.kme.supply import Limits, SaePair, Supply
from heliograph.testing.clock import ManualClock
from heliograph.vault.randomness import SystemRandomness

PAIRS = [SaePair("sae-a", "sae-b", "kme-b"), SaePair("sae-2", "sae-b", "kme-b"), SaePair("sae-a", "sae-c", "kme-c")]
SYSTEMS = SkipSystems("key-provider-a", {"site-b-[0-9]": ("sae-b",), "site-c*": ("sae-c",), "*-[!0-9]": ("sae-c",)})
ID = "00000000000040008000000000000000"
KEY = "/key?remoteSystemID=site-b-1"


def served(site, act, callers=None, systems=SYSTEMS, quotas=None):
    async def main():
        supply = Supply(
            site.keys,
            "kme-a",
            PAIRS,
            Limits(),
            ManualClock(200.0),
            owner_reachable=lambda _: site.owner_reachable,
            quotas=quotas,
        )
        server = SkipServer(supply, systems, SystemRandomness(), callers)
        await server.start("127.0.0.1", 0, skip_server_tls(*site.kme_files))
        try:
            return await act(server)
        finally:
            await server.close()

    return asyncio.run(main())


def ask_all(site, wire, requests, sae="sae-a"):
    tls = site.sae_tls(sae)

    async def act(server):
        return [await wire.ask(server.port, tls, verb, path) for verb, path in requests]

    return served(site, act)


def test_capabilities_have_every_member_and_the_callers_own_systems(site, wire):
    ((status, headers, answer),) = ask_all(site, wire, [("GET", "/capabilities")])
    assert status == 200
    assert headers["cache-control"] == "no-store"
    assert answer == {
        "entropy": True,
        "key": True,
        "algorithm": "QKD",
        "localSystemID": "key-provider-a",
        "remoteSystemID": ["site-b-[0-9]", "site-c*", "*-[!0-9]"],
    }
    ((_, _, answer),) = ask_all(site, wire, [("GET", "/capabilities")], sae="sae-2")
    assert answer["remoteSystemID"] == ["site-b-[0-9]"]


def test_a_key_is_served_with_its_id_and_is_gone_at_once(site, wire):
    (row,) = site.add_owned(1)
    first, second = ask_all(site, wire, [("GET", "/key?remoteSystemID=site-b-1&size=256")] * 2)
    assert (first[0], first[2]) == (200, {"keyId": row.key_id.replace("-", ""), "key": row.material.hex()})
    assert (second[0], second[1]["retry-after"]) == (503, "1")
    assert "insufficient keys" in second[2]["message"]


def test_the_other_side_gets_the_same_key_by_its_id_and_only_once(site, wire):
    (row,) = site.add_held(1)
    path = f"/key/{row.key_id.replace('-', '').upper()}?remoteSystemID=site-b-1"
    first, second = ask_all(site, wire, [("GET", path)] * 2)
    assert (first[0], first[2]["key"]) == (200, row.material.hex())
    assert (second[0], second[2]["message"]) == (400, "keyId is not found at this key provider")


def test_a_delivered_key_is_zeroised_in_the_store_before_it_is_answered(site, wire):
    """No ciphertext of it is left, in the file or in its log."""
    (row,) = site.add_owned(1)
    with site.database.reading() as cursor:
        (ciphertext,) = cursor.execute("SELECT ciphertext FROM key_records WHERE key_id = ?", (row.key_id,)).fetchone()
    files = [site.directory / "site" / name for name in ("store.db", "store.db-wal")]
    assert any(ciphertext in path.read_bytes() for path in files if path.exists())
    ((status, _, _),) = ask_all(site, wire, [("GET", "/key?remoteSystemID=site-b-1")])
    assert status == 200
    assert not any(ciphertext in path.read_bytes() for path in files if path.exists())


@pytest.mark.parametrize(
    ("remote", "status"),
    [("site-b-1", 200), ("site-b-9", 200), ("site-b-x", 503), ("site-b-10", 400), ("site-b", 503), ("SITE-B-1", 400)],
)
def test_remote_systems_are_matched_as_posix_globs(site, wire, remote, status):
    """site-b-[0-9] is sae-b, whose pool has a key; *-[!0-9] is sae-c, whose pool is empty; the rest is nobody."""
    site.add_owned(1)
    ((found, _, _),) = ask_all(site, wire, [("GET", f"/key?remoteSystemID={remote}")])
    assert found == status


def test_a_name_that_fits_two_consumers_is_refused_not_guessed(site, wire):
    site.add_owned(1)
    tls = site.sae_tls("sae-a")
    systems = SkipSystems("here", {"s*": ("sae-b",), "*t": ("sae-c",)})

    async def act(server):
        return await wire.ask(server.port, tls, "GET", "/key?remoteSystemID=st")

    status, _, answer = served(site, act, systems=systems)
    assert (status, answer["message"]) == (
        400,
        "remoteSystemID matches several systems that share keys with this SAE; name one",
    )


REFUSALS = {
    "unknown path": ("GET", "/", 404),
    "below capabilities": ("GET", "/capabilities/x", 404),
    "empty id": ("GET", "/key/", 404),
    "deeper": ("GET", f"/key/{ID}/x", 404),
    "doubled slash": ("GET", "//key", 404),
    "post": ("POST", "/key?remoteSystemID=site-b-1", 405),
    "put": ("PUT", f"/key/{ID}", 405),
    "delete": ("DELETE", "/entropy", 405),
    "head": ("OPTIONS", "/capabilities", 405),
    "no system": ("GET", "/key", 400),
    "blank system": ("GET", "/key?remoteSystemID=", 400),
    "system not UTF-8": ("GET", "/key?remoteSystemID=%ff", 400),
    "unprintable system": ("GET", "/key?remoteSystemID=site-b-1%00", 400),
    "long system": ("GET", "/key?remoteSystemID=" + "x" * 300, 400),
    "two systems": ("GET", "/key?remoteSystemID=site-b-1&remoteSystemID=site-b-2", 400),
    "unknown parameter": ("GET", "/key?remoteSystemID=site-b-1&count=2", 400),
    "other size": ("GET", "/key?remoteSystemID=site-b-1&size=128", 400),
    "size zero": ("GET", "/key?remoteSystemID=site-b-1&size=0", 400),
    "size text": ("GET", "/key?remoteSystemID=site-b-1&size=big", 400),
    "id short": ("GET", "/key/12ab?remoteSystemID=site-b-1", 400),
    "id with dashes": ("GET", "/key/00000000-0000-4000-8000-000000000000?remoteSystemID=site-b-1", 400),
    "id not hex": ("GET", f"/key/{'g' * 32}?remoteSystemID=site-b-1", 400),
    "id unknown": ("GET", f"/key/{ID}?remoteSystemID=site-b-1", 400),
    "id without system": ("GET", f"/key/{ID}", 400),
    "size with an id": ("GET", f"/key/{ID}?remoteSystemID=site-b-1&size=256", 400),
    "query": ("GET", "/capabilities?x=1", 400),
    "entropy sign": ("GET", "/entropy?minentropy=-1", 400),
    "entropy zero": ("GET", "/entropy?minentropy=0", 400),
    "entropy other": ("GET", "/entropy?bits=1", 400),
    "too much entropy": ("GET", "/entropy?minentropy=8193", 503),
}


def test_every_wrong_request_has_the_drafts_code_and_burns_nothing(site, wire):
    site.add_owned(1)
    answers = ask_all(site, wire, [request[:2] for request in REFUSALS.values()])
    found = {case: answer[0] for case, answer in zip(REFUSALS, answers, strict=True)}
    assert found == {case: request[2] for case, request in REFUSALS.items()}
    assert all(isinstance(answer[2]["message"], str) for answer in answers)
    assert site.keys.stored_key_count("sae-a", "sae-b") == 1


def test_entropy_is_fresh_and_of_the_size_asked_for(site, wire):
    answers = ask_all(site, wire, [("GET", "/entropy"), ("GET", "/entropy?minentropy=257"), ("GET", "/entropy")])
    # 4.3: "The default length of the entropy supplied by randomStr field is 256 bits."
    assert [(len(a["randomStr"]) * 4, a["minentropy"]) for _, _, a in answers] == [(256, 256), (264, 264), (256, 256)]
    assert answers[0][2]["randomStr"] != answers[2][2]["randomStr"]


def test_a_stranger_learns_nothing_and_takes_nothing(site, wire):
    site.add_owned(1)
    paths = [
        "/capabilities",
        "/key?remoteSystemID=site-b-1",
        "/key?remoteSystemID=NOBODY",
        f"/key/{ID}?remoteSystemID=site-b-1",
        "/entropy",
    ]
    for status, _, answer in ask_all(site, wire, [("GET", path) for path in paths], sae="stranger"):
        assert (status, answer) == (401, {"message": "Unauthorized"})
    assert site.keys.stored_key_count("sae-a", "sae-b") == 1


def test_the_boundary_holds_here_too(site, wire):
    from heliograph.http.callers import CertificateCallers  # noqa: PLC0415

    site.add_owned(1)
    tls = site.sae_tls("sae-a")

    async def act(server):
        return await wire.ask(server.port, tls, "GET", "/key?remoteSystemID=site-b-1")

    status, _, _ = served(site, act, callers=CertificateCallers(Boundary(in_process=frozenset({"sae-a"}))))
    assert status == 401
    assert site.keys.stored_key_count("sae-a", "sae-b") == 1


def test_a_key_of_another_consumer_is_not_found_and_stays(site, wire):
    (theirs,) = site.add_held(1, slave="sae-2")
    path = f"/key/{theirs.key_id.replace('-', '')}?remoteSystemID=site-b-1"
    assert ask_all(site, wire, [("GET", path)])[0][0] == 400
    assert ask_all(site, wire, [("GET", path)], sae="sae-2")[0][2]["key"] == theirs.material.hex()


def test_an_unknown_key_is_503_while_its_owner_cannot_be_reached(site, wire):
    site.owner_reachable = False
    ((status, headers, _),) = ask_all(site, wire, [("GET", f"/key/{ID}?remoteSystemID=site-b-1")])
    assert (status, headers["retry-after"]) == (503, "1")


def test_a_store_that_cannot_zeroise_is_500_and_no_key(site, wire):
    (row,) = site.add_owned(1)
    tls = site.sae_tls("sae-a")

    async def act(server):
        site.database.close()
        return await wire.ask(server.port, tls, "GET", "/key?remoteSystemID=site-b-1")

    status, _, answer = served(site, act)
    assert (status, answer) == (500, {"message": "the key store is unavailable; nothing was issued"})
    assert row.material.hex() not in json.dumps(answer)


def test_the_required_suite_is_used(site):
    tls = site.sae_tls("sae-a")

    async def act(server):
        _, writer = await asyncio.open_connection("127.0.0.1", server.port, ssl=tls, server_hostname="127.0.0.1")
        used = writer.get_extra_info("ssl_object").cipher()[0], writer.get_extra_info("ssl_object").version()
        writer.close()
        return used

    assert served(site, act) == (SKIP_SUITE, "TLSv1.3")


def test_tls_1_2_is_refused(site, wire):
    tls = site.sae_tls("sae-a")
    tls.maximum_version = ssl.TLSVersion.TLSv1_2

    async def act(server):
        with pytest.raises((ssl.SSLError, ConnectionError)):
            await wire.ask(server.port, tls, "GET", "/capabilities")

    served(site, act)


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl is not installed: apt-get install -y openssl")
def test_a_client_that_offers_only_another_suite_gets_no_answer(site):
    site.add_owned(1)
    certificate, key, ca = site.sae_files("sae-a")

    def client(port, suite):
        command = ["openssl", "s_client", "-quiet", "-no_ign_eof", "-connect", f"127.0.0.1:{port}", "-CAfile", str(ca)]
        command += ["-cert", str(certificate), "-key", str(key), "-ciphersuites", suite]
        request = "GET /key?remoteSystemID=site-b-1 HTTP/1.1\r\nHost: k\r\nConnection: close\r\n\r\n"
        return subprocess.run(
            [*command, "-ign_eof"], input=request, capture_output=True, text=True, timeout=30, check=False
        ).stdout

    async def act(server):
        other = await asyncio.to_thread(client, server.port, "TLS_CHACHA20_POLY1305_SHA256:TLS_AES_128_GCM_SHA256")
        left = site.keys.stored_key_count("sae-a", "sae-b")
        return other, left, await asyncio.to_thread(client, server.port, SKIP_SUITE)

    other, left, required = served(site, act)
    assert (other, left) == ("", 1)
    assert required.startswith("HTTP/1.1 200")


@pytest.mark.parametrize(
    ("local", "remote"),
    [("", {"x": ("sae-b",)}), ("a\n", {"x": ("sae-b",)}), ("a", {}), ("a", {"x": ()}), ("a", {" ": ("sae-b",)})],
)
def test_names_that_cannot_be_systems_are_refused(local, remote):
    with pytest.raises(ConfigurationError):
        SkipSystems(local, remote)


def test_long_system_ids_are_taken_as_the_draft_wants(site, wire):
    """At least 32 bytes must be."""
    site.add_owned(1)
    tls = site.sae_tls("sae-a")

    async def act(server):
        return await wire.ask(server.port, tls, "GET", f"/key?remoteSystemID={'r' * 256}")

    assert served(site, act, systems=SkipSystems("s" * 256, {"r" * 256: ("sae-b",)}))[0] == 200


def test_the_rate_of_requests_bounds_every_request_of_one_sae_and_of_no_other(site, wire):
    """SKIP has no status of its own for it: 503, as for too little key, and nothing is taken."""
    site.add_owned(3)
    one, two = site.sae_tls("sae-a"), site.sae_tls("sae-2")

    async def act(server):
        mine = [await wire.ask(server.port, one, "GET", path) for path in ("/capabilities", "/entropy", KEY, KEY)]
        return mine, await wire.ask(server.port, two, "GET", "/capabilities")

    mine, other = served(site, act, quotas=Quotas(ManualClock(200.0), requests=Quota(3, 0.001)))
    assert [status for status, _, _ in mine] == [200, 200, 200, 503]
    assert mine[3][1]["retry-after"] == "1"
    assert other[0] == 200
    assert site.keys.stored_key_count("sae-a", "sae-b") == 2
