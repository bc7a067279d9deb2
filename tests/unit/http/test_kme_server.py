import asyncio
import json
import logging
import resource
import socket
import ssl
import threading
import uuid
from datetime import UTC, datetime, timedelta

import hypothesis.strategies as st
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.x509.oid import ExtendedKeyUsageOID
from hypothesis import assume, given, settings

from heliograph.errors import ConfigurationError
from heliograph.http.server import MAX_BODY_BYTES, serve
from heliograph.http.tls import client_tls, server_tls
from heliograph.kme.supply import Limits, SaePair, Supply
from heliograph.vault.certificates import SiteCa

ENC = "/api/v1/keys/sae-b/enc_keys"
DEC = "/api/v1/keys/sae-b/dec_keys"
STATUS = "/api/v1/keys/sae-b/status"
UNKNOWN = "00000000-0000-4000-8000-000000000000"


def test_status_has_every_member_of_clause_6_1(site, wire):
    site.add_owned(5)
    tls = site.sae_tls("sae-a")
    status, headers, answer = site.run(lambda kme: wire.ask(kme.port, tls, "GET", STATUS))
    assert status == 200
    assert headers["cache-control"] == "no-store"
    assert answer == {
        "source_KME_ID": "kme-a",
        "target_KME_ID": "kme-b",
        "master_SAE_ID": "sae-a",
        "slave_SAE_ID": "sae-b",
        "key_size": 256,
        "stored_key_count": 5,
        "max_key_count": 100_000,
        "max_key_per_request": 128,
        "max_key_size": 256,
        "min_key_size": 256,
        "max_SAE_ID_count": 0,
    }


@pytest.mark.parametrize(
    ("verb", "path", "body", "number"),
    [
        ("GET", ENC, None, 1),
        ("GET", f"{ENC}?number=3&size=256", None, 3),
        ("POST", ENC, None, 1),
        ("POST", ENC, b"", 1),
        ("POST", ENC, b"{}", 1),
        ("POST", ENC, b'{"number": 3, "size": 256}', 3),
        ("POST", ENC, b'{"extension_mandatory": [], "extension_optional": [{"abc_max_age": 30000}]}', 1),
    ],
)
def test_enc_keys_serves_each_form_of_the_request(site, wire, verb, path, body, number):
    rows = site.add_owned(4)
    tls = site.sae_tls("sae-a")
    status, _, answer = site.run(lambda kme: wire.ask(kme.port, tls, verb, path, body))
    assert status == 200
    assert wire.served(answer) == [(row.key_id, row.material) for row in rows[:number]]
    assert site.keys.stored_key_count("sae-a", "sae-b") == 4 - number


def test_dec_keys_serves_get_and_post_in_the_order_asked(site, wire):
    rows = site.add_held(3)
    tls = site.sae_tls("sae-a")
    wanted = json.dumps({"key_IDs": [{"key_ID": rows[2].key_id.upper()}, {"key_ID": rows[0].key_id}]}).encode()

    async def act(kme):
        one = await wire.ask(kme.port, tls, "GET", f"{DEC}?key_ID={rows[1].key_id}")
        two = await wire.ask(kme.port, tls, "POST", DEC, wanted)
        again = await wire.ask(kme.port, tls, "GET", f"{DEC}?key_ID={rows[1].key_id}")
        return one, two, again

    one, two, again = site.run(act)
    assert wire.served(one[2]) == [(rows[1].key_id, rows[1].material)]
    assert wire.served(two[2]) == [(row.key_id, row.material) for row in (rows[2], rows[0])]
    assert (again[0], again[2]) == (400, {"message": "one or more keys specified are not found on KME"})


# What is asked, and what the answer must be: status and message.
REFUSALS = {
    "size": ("POST", ENC, b'{"size": 255}', 400, "size shall be a multiple of 8"),
    "size in a query": ("GET", f"{ENC}?size=257", None, 400, "size shall be a multiple of 8"),
    "other size": ("POST", ENC, b'{"size": 128}', 400, "keys of 256 bits are"),
    "no size": ("POST", ENC, b'{"size": 0}', 400, "size must be a positive"),
    "no key": ("POST", ENC, b'{"number": 0}', 400, "number must be at least 1"),
    "negative": ("POST", ENC, b'{"number": -1}', 400, "number must be at least 1"),
    "fraction": ("POST", ENC, b'{"number": 1.0}', 400, "Bad request format"),
    "true": ("POST", ENC, b'{"number": true}', 400, "Bad request format"),
    "null": ("POST", ENC, b'{"number": null}', 400, "Bad request format"),
    "text": ("POST", ENC, b'{"number": "1"}', 400, "Bad request format"),
    "query text": ("GET", f"{ENC}?number=one", None, 400, "number must be a positive integer"),
    "query sign": ("GET", f"{ENC}?number=%2B1", None, 400, "number must be a positive integer"),
    "query zero": ("GET", f"{ENC}?number=0", None, 400, "number must be at least 1"),
    "query twice": ("GET", f"{ENC}?number=1&number=2", None, 400, "each once"),
    "query name": ("GET", f"{ENC}?count=1", None, 400, "each once"),
    "query with POST": ("POST", f"{ENC}?number=2", b"", 400, "takes no query"),
    "status query": ("GET", f"{STATUS}?x=1", None, 400, "takes no query"),
    "body with GET": ("GET", ENC, b'{"number": 2}', 400, "a GET request has no body"),
    "too many": ("POST", ENC, b'{"number": 129}', 400, "number exceeds max_key_per_request = 128"),
    "huge": ("POST", ENC, b'{"number": ' + b"9" * 5000 + b"}", 400, "Bad request format"),
    "mandatory": (
        "POST",
        ENC,
        b'{"extension_mandatory": [{"abc_route_type": "direct"}]}',
        400,
        "not all extension_mandatory parameters are supported",
    ),
    "multicast": ("POST", ENC, b'{"additional_slave_SAE_IDs": ["sae-c"]}', 400, "max_SAE_ID_count = 0"),
    "empty multicast": ("POST", ENC, b'{"additional_slave_SAE_IDs": []}', 400, "is empty"),
    "unknown member": ("POST", ENC, b'{"numbers": 3}', 400, "Bad request format"),
    "repeated member": ("POST", ENC, b'{"number": 1, "number": 2}', 400, "a name comes twice"),
    "NaN": ("POST", ENC, b'{"number": NaN}', 400, "Bad request format"),
    "nesting": ("POST", ENC, b"[" * 60_000, 400, "Bad request format"),
    "trailing": ("POST", ENC, b"{} {}", 400, "Bad request format"),
    "latin-1": ("POST", ENC, b'{"\xe4": 1}', 400, "Bad request format"),
    "UTF-16": ("POST", ENC, "{}".encode("utf-16"), 400, "Bad request format"),
    "list": ("POST", ENC, b"[]", 400, "Bad request format"),
    "own id": ("GET", "/api/v1/keys/sae-a/enc_keys", None, 400, "the caller's own"),
    "blank id": ("GET", "/api/v1/keys//enc_keys", None, 400, "blank"),
    "space id": ("GET", "/api/v1/keys/%20/status", None, 400, "blank"),
    "unknown peer": ("GET", "/api/v1/keys/sae-q/status", None, 400, "not registered to share keys"),
    "id not UTF-8": ("GET", "/api/v1/keys/%ff/status", None, 400, "not URL-encoded UTF-8"),
    "no key_ID": ("GET", DEC, None, 400, "key_ID is missing"),
    "two key_IDs": ("GET", f"{DEC}?key_ID={UNKNOWN}&key_ID={UNKNOWN}", None, 400, "malformed"),
    "no UUID": ("GET", f"{DEC}?key_ID=1234", None, 400, "not a UUID"),
    "no body": ("POST", DEC, b"", 400, "key_IDs is needed"),
    "no key_IDs": ("POST", DEC, b"{}", 400, "Bad request format"),
    "empty key_IDs": ("POST", DEC, b'{"key_IDs": []}', 400, "key_IDs is empty"),
    "plain key_IDs": ("POST", DEC, b'{"key_IDs": ["' + UNKNOWN.encode() + b'"]}', 400, "Bad request format"),
    "repeated key_ID": (
        "POST",
        DEC,
        json.dumps({"key_IDs": [{"key_ID": UNKNOWN}] * 2}).encode(),
        400,
        "a key_ID comes twice",
    ),
    "many key_IDs": (
        "POST",
        DEC,
        json.dumps({"key_IDs": [{"key_ID": str(uuid.UUID(int=i))} for i in range(129)]}).encode(),
        400,
        "129 exceeds max_key_per_request = 128",
    ),
    "unknown key_ID": ("GET", f"{DEC}?key_ID={UNKNOWN}", None, 400, "one or more keys specified are not found on KME"),
    "exhausted": ("POST", ENC, b'{"number": 3}', 503, "insufficient keys: 3 asked for, 2 stored"),
    "no such path": ("GET", "/api/v2/keys/sae-b/status", None, 404, "no such resource"),
    "slash at the end": ("GET", f"{STATUS}/", None, 404, "no such resource"),
    "root": ("GET", "/", None, 404, "no such resource"),
    "wrong verb": ("POST", STATUS, b"{}", 405, "status takes GET"),
    "delete": ("DELETE", ENC, None, 405, "enc_keys takes GET, POST"),
    "too large": ("POST", ENC, b" " * (MAX_BODY_BYTES + 1), 413, "exceeds 65536 bytes"),
}


def test_every_refusal_is_json_with_its_reason_and_burns_nothing(site, wire):
    rows = site.add_owned(2)
    tls = site.sae_tls("sae-a")

    async def act(kme):
        return {case: await wire.ask(kme.port, tls, *request[:3]) for case, request in REFUSALS.items()}

    for case, (status, headers, answer) in site.run(act).items():
        *_, expected, message = REFUSALS[case]
        assert status == expected, case
        assert message in answer["message"], case
        assert ("retry-after" in headers) == (status == 503), case
    assert site.keys.delivered_key_ids(owner_here=True) == []
    assert site.keys.stored_key_count("sae-a", "sae-b") == len(rows)


def test_unsupported_mandatory_extensions_are_named(site, wire):
    tls = site.sae_tls("sae-a")
    body = b'{"extension_mandatory": [{"abc_route_type": "direct"}, {"abc_max_age": 1}]}'
    _, _, answer = site.run(lambda kme: wire.ask(kme.port, tls, "POST", ENC, body))
    assert answer == {
        "message": "not all extension_mandatory parameters are supported",
        "details": [
            {"extension_mandatory_unsupported": "abc_route_type is not supported"},
            {"extension_mandatory_unsupported": "abc_max_age is not supported"},
        ],
    }


def test_an_sae_id_may_contain_an_encoded_slash(site, wire):
    rows = site.add_owned(1, slave="sae/with slash")
    tls = site.sae_tls("sae-a")
    path = "/api/v1/keys/sae%2Fwith%20slash/enc_keys"
    status, _, answer = site.run(lambda kme: wire.ask(kme.port, tls, "GET", path))
    assert status == 200
    assert wire.served(answer) == [(rows[0].key_id, rows[0].material)]


def test_a_key_of_another_slave_is_401_and_stays(site, wire):
    (theirs,) = site.add_held(1, slave="sae-2")
    tls = {name: site.sae_tls(name) for name in ("sae-a", "sae-2")}

    async def act(kme):
        thief = await wire.ask(kme.port, tls["sae-a"], "GET", f"{DEC}?key_ID={theirs.key_id}")
        owner = await wire.ask(kme.port, tls["sae-2"], "GET", f"{DEC}?key_ID={theirs.key_id}")
        return thief, owner

    thief, owner = site.run(act)
    assert (thief[0], thief[2]["message"]) == (401, "Unauthorized")
    assert wire.served(owner[2]) == [(theirs.key_id, theirs.material)]


def test_an_unknown_key_id_is_503_while_its_owner_cannot_be_reached(site, wire):
    (held,) = site.add_held(1)
    site.owner_reachable = False
    tls = site.sae_tls("sae-a")

    async def act(kme):
        known = await wire.ask(kme.port, tls, "GET", f"{DEC}?key_ID={held.key_id}")
        gone = await wire.ask(kme.port, tls, "GET", f"{DEC}?key_ID={held.key_id}")
        unknown = await wire.ask(kme.port, tls, "GET", f"{DEC}?key_ID={UNKNOWN}")
        return known[0], gone[0], unknown[0]

    assert site.run(act) == (200, 400, 503)


def test_an_unregistered_sae_is_401_whatever_it_asks(site, wire):
    site.add_owned(1)
    tls = site.sae_tls("sae-stranger")

    async def act(kme):
        paths = (ENC, DEC, STATUS, "/api/v1/keys/sae-q/status", "/api/v1/keys//status")
        return [await wire.ask(kme.port, tls, "GET", path) for path in paths]

    for status, _, answer in site.run(act):
        assert status == 401
        assert answer["message"] == "Unauthorized"
    assert site.keys.stored_key_count("sae-a", "sae-b") == 1


def certificate_with(site, names, usage=ExtendedKeyUsageOID.CLIENT_AUTH):
    """Issue by the site's real CA what the real CA's methods refuse to issue."""
    return site.ca._issue("odd", names, usage, 1, None).write(site.directory, f"odd-{uuid.uuid4()}")


def uri(text):
    return x509.UniformResourceIdentifier(text)


@pytest.mark.parametrize(
    "names",
    [
        [uri("sae:sae-a"), uri("sae:sae-2")],
        [uri("sae:sae-a"), uri("sae:sae-a")],
        [uri("sae:sae-a"), uri("https://example.org")],
        [uri("urn:sae-a")],
        [uri("sae:")],
        [uri("sae:%ff")],
        [uri("kme:sae-a")],
        [x509.DNSName("sae-a")],
    ],
)
def test_a_certificate_without_exactly_one_sae_name_is_401(site, wire, names):
    site.add_owned(1)
    tls = client_tls(*certificate_with(site, names))
    status, _, answer = site.run(lambda kme: wire.ask(kme.port, tls, "GET", ENC))
    assert (status, answer["message"]) == (401, "Unauthorized")
    assert site.keys.stored_key_count("sae-a", "sae-b") == 1


def anonymous_tls(site):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(site.kme_files[2])
    return context


def foreign_tls(site):
    elsewhere = site.directory / "elsewhere"
    elsewhere.mkdir()
    return client_tls(*SiteCa.create("site A").issue_sae("sae-a").write(elsewhere, "foreign"))


def expired_tls(site):
    identity = site.ca.issue_sae("sae-a", days=1, moment=datetime.now(UTC) - timedelta(days=3))
    return client_tls(*identity.write(site.directory, "expired"))


def server_purpose_tls(site):
    return client_tls(*certificate_with(site, [uri("sae:sae-a")], ExtendedKeyUsageOID.SERVER_AUTH))


def old_tls(site):
    context = client_tls(*site.sae_files("sae-a"))
    context.minimum_version = ssl.TLSVersion.MINIMUM_SUPPORTED
    context.set_ciphers("DEFAULT:@SECLEVEL=0")
    context.options |= ssl.OP_NO_TLSv1_2 | ssl.OP_NO_TLSv1_3
    return context


@pytest.mark.parametrize("make", [anonymous_tls, foreign_tls, expired_tls, server_purpose_tls])
def test_no_connection_without_a_client_certificate_of_this_site(site, wire, make):
    site.add_owned(1)
    tls = make(site)
    tls.load_verify_locations(site.kme_files[2])
    with pytest.raises((ssl.SSLError, ConnectionError, asyncio.IncompleteReadError)):
        site.run(lambda kme: wire.ask(kme.port, tls, "GET", ENC))
    assert site.keys.stored_key_count("sae-a", "sae-b") == 1


@pytest.mark.filterwarnings("ignore:.*:DeprecationWarning")
def test_tls_older_than_1_2_is_refused(site, wire):
    with pytest.raises((ssl.SSLError, ConnectionError)):
        site.run(lambda kme: wire.ask(kme.port, old_tls(site), "GET", ENC))


def test_what_is_not_http_gets_a_json_400_and_no_echo(site, wire):
    tls = site.sae_tls("sae-a")
    junk = [
        b"this is not http\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET /x HTTP/1.1\r\nContent-Length: -5\r\n\r\n",
        b"POST / HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"GET /" + b"a" * 20_000 + b" HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\nsecret-marker\x00: 1\r\n\r\n",
        f"POST {ENC} HTTP/1.1\r\nHost: k\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n".encode(),
    ]

    async def act(kme):
        return [await wire.exchange(kme.port, tls, raw) for raw in junk]

    for status, headers, body in site.run(act):
        assert status == 400
        assert headers["content-type"].startswith("application/json")
        assert "Bad request format" in json.loads(body)["message"]
        assert b"secret-marker" not in body
        assert b"Traceback" not in body


def test_a_chunked_body_over_the_limit_is_413(site, wire):
    site.add_owned(1)
    tls = site.sae_tls("sae-a")
    piece = b"ffff\r\n" + b" " * 0xFFFF + b"\r\n"
    raw = f"POST {ENC} HTTP/1.1\r\nHost: k\r\nTransfer-Encoding: chunked\r\n\r\n".encode() + piece * 2 + b"0\r\n\r\n"
    status, _, body = site.run(lambda kme: wire.exchange(kme.port, tls, raw))
    assert (status, json.loads(body)["message"]) == (413, "the body exceeds 65536 bytes")
    assert site.keys.stored_key_count("sae-a", "sae-b") == 1


def test_a_compressed_body_is_not_expanded(site, wire):
    site.add_owned(1)
    tls = site.sae_tls("sae-a")
    body = bytes.fromhex("1f8b08000000000000ffabae050043bfa6a302000000")
    status, _, _ = site.run(
        lambda kme: wire.ask(kme.port, tls, "POST", ENC, body, headers="Content-Encoding: gzip\r\n")
    )
    assert status == 400
    assert site.keys.stored_key_count("sae-a", "sae-b") == 1


def test_fifty_clients_at_once_never_get_the_same_key(site, wire):
    rows = site.add_owned(200)
    contexts = [site.sae_tls("sae-a") for _ in range(5)]

    async def act(kme):
        async def client(number):
            return [await wire.ask(kme.port, contexts[number % 5], "POST", ENC, b'{"number": 2}') for _ in range(2)]

        return await asyncio.gather(*(client(number) for number in range(50)))

    answers = [answer for one in site.run(act) for answer in one]
    assert all(status == 200 for status, _, _ in answers)
    got = [key for _, _, answer in answers for key in wire.served(answer)]
    assert sorted(got) == sorted((row.key_id, row.material) for row in rows)


def test_a_delivered_key_is_gone_after_a_restart(site, wire):
    rows = site.add_owned(2) + site.add_held(1)
    tls = site.sae_tls("sae-a")

    async def act(kme):
        return [
            await wire.ask(kme.port, tls, "GET", ENC),
            await wire.ask(kme.port, tls, "GET", f"{DEC}?key_ID={rows[2].key_id}"),
        ]

    first = site.run(act)
    site.database.close()
    site.open()
    second = site.run(act)
    assert [status for status, _, _ in first + second] == [200, 200, 200, 400]
    assert wire.served(first[0][2]) == [(rows[0].key_id, rows[0].material)]
    assert wire.served(second[0][2]) == [(rows[1].key_id, rows[1].material)]


def test_a_full_disk_is_a_503_and_burns_no_key(site, wire, caplog):
    rows = site.add_owned(3)
    site.database.checkpoint()
    tls = site.sae_tls("sae-a")

    async def act(kme):
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, before[1]))
        try:
            full = await wire.ask(kme.port, tls, "GET", ENC)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
        return full, await wire.ask(kme.port, tls, "GET", f"{ENC}?number=3")

    full, later = site.run(act)
    assert full[0] == 503
    assert full[2]["message"] == "Error on server side"
    assert "site" not in json.dumps(full[2])  # no path of ours
    assert "check the disk" in caplog.text
    assert wire.served(later[2]) == [(row.key_id, row.material) for row in rows]


def test_no_key_and_no_traceback_in_the_log(site, wire, caplog):
    caplog.set_level(logging.DEBUG)
    rows = site.add_owned(1) + site.add_held(1)
    tls = site.sae_tls("sae-a")

    async def act(kme):
        answers = [
            await wire.ask(kme.port, tls, "GET", ENC),
            await wire.ask(kme.port, tls, "GET", f"{DEC}?key_ID={rows[1].key_id}"),
        ]
        site.database.close()
        answers.append(await wire.ask(kme.port, tls, "GET", ENC))
        return answers

    answers = site.run(act)
    assert [status for status, _, _ in answers] == [200, 200, 503]
    assert all(row.key_id in caplog.text for row in rows)
    for _, _, answer in answers[:2]:
        assert answer["keys"][0]["key"] not in caplog.text
    assert not any(row.material.hex() in caplog.text or repr(row.material) in caplog.text for row in rows)
    assert "Traceback" not in caplog.text


def test_a_port_in_use_is_named_with_a_remedy(site):
    supply = Supply(site.keys, "kme-a", [SaePair("sae-a", "sae-b", "kme-b")], Limits(), None)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ConfigurationError) as refusal:
            asyncio.run(serve(supply, "127.0.0.1", port, server_tls(*site.kme_files)))
    assert str(refusal.value) == (
        f"KME address 127.0.0.1:{port}: in use by another program; stop that one or choose another port"
    )
    with pytest.raises(ConfigurationError, match="name an address of this machine"):
        asyncio.run(serve(supply, "192.0.2.1", 0, server_tls(*site.kme_files)))


class SlowStore:
    """Answers when it is let; tells when it was asked."""

    def __init__(self):
        self.asked = threading.Semaphore(0)
        self.go = threading.Event()

    def stored_key_count(self, master, slave, size_bytes):  # noqa: ARG002
        assert (master, slave) == ("sae-a", "sae-b")
        self.asked.release()
        assert self.go.wait(30)
        return 0


def test_an_overloaded_store_tells_callers_to_come_back(site, wire, monkeypatch):
    monkeypatch.setattr("heliograph.http.server.MAX_WAITING", 2)
    site.keys = store = SlowStore()
    tls = site.sae_tls("sae-a")

    async def act(kme):
        async with asyncio.TaskGroup() as group:
            waiting = [group.create_task(wire.ask(kme.port, tls, "GET", STATUS)) for _ in range(2)]
            try:
                for _ in waiting:
                    assert await asyncio.to_thread(store.asked.acquire, timeout=30)
                one_more = await wire.ask(kme.port, tls, "GET", STATUS)
            finally:
                store.go.set()
        return one_more, [task.result()[0] for task in waiting]

    (status, headers, _), served = site.run(act)
    assert (status, headers["retry-after"]) == (503, "1")
    assert served == [200, 200]


class Break(Exception):
    pass


class BrokenStore:
    def stored_key_count(self, master, slave, size_bytes):  # noqa: ARG002
        raise Break(f"{master} {slave} secret-marker")


def test_an_unforeseen_error_is_a_plain_503(site, wire, caplog):
    site.keys = BrokenStore()
    tls = site.sae_tls("sae-a")
    status, _, answer = site.run(lambda kme: wire.ask(kme.port, tls, "GET", STATUS))
    assert (status, answer) == (503, {"message": "Error on server side"})
    assert "Break" in caplog.text
    assert "secret-marker" not in caplog.text


def test_garbage_never_makes_a_5xx_and_never_gets_a_key(site, wire):
    site.add_owned(1)
    tls = site.sae_tls("sae-a")
    near_misses = st.sampled_from(
        [b'{"number":', b'{"size":256,', b'{"key_IDs":[', b'{"a":"\\ud800"}', b"\xef\xbb\xbf{}"]
    )
    bodies = st.one_of(
        st.binary(min_size=1, max_size=80), st.builds(lambda a, b: a + b, near_misses, st.binary(max_size=20))
    )

    async def act(kme):
        async def one(method, body):
            status, _, answer = await wire.ask(kme.port, tls, "POST", f"/api/v1/keys/sae-b/{method}", body)
            assert status == 400, (body, status)
            assert "keys" not in answer

        loop = asyncio.get_running_loop()

        @settings(max_examples=150, deadline=None)
        @given(method=st.sampled_from(["enc_keys", "dec_keys"]), body=bodies)
        def promise(method, body):
            assume(body.strip() != b"{}")
            asyncio.run_coroutine_threadsafe(one(method, body), loop).result()

        await asyncio.to_thread(promise)

    site.run(act)
    assert site.keys.stored_key_count("sae-a", "sae-b") == 1


def test_private_keys_are_written_for_the_owner_only(site):
    for path in site.directory.glob("*.key"):
        assert path.stat().st_mode & 0o077 == 0
        serialization.load_pem_private_key(path.read_bytes(), password=None)
