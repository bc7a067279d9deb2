"""ETSI GS QKD 014 V1.1.1 where HTTP leaves room: verbs, encodings, media types; and its own words and extensions."""

import json

import pytest

ENC = "/api/v1/keys/sae-b/enc_keys"
DEC = "/api/v1/keys/sae-b/dec_keys"
STATUS = "/api/v1/keys/sae-b/status"
UNKNOWN = "00000000-0000-4000-8000-000000000000"


@pytest.mark.parametrize("verb", ["HEAD", "OPTIONS", "PUT", "DELETE", "PATCH", "TRACE", "get"])
def test_another_verb_gets_405_with_what_is_allowed_and_takes_no_key(site, wire, verb):
    """5.1, table 2: GET and POST. A HEAD that was served would take a key that nobody receives."""
    (owned,) = site.add_owned(1)
    (held,) = site.add_held(1)
    tls = site.sae_tls("sae-a")
    paths = {STATUS: "GET", ENC: "GET, POST", f"{DEC}?key_ID={held.key_id}": "GET, POST"}

    async def act(kme):
        raw = {path: f"{verb} {path} HTTP/1.1\r\nHost: kme\r\nContent-Length: 0\r\n\r\n".encode() for path in paths}
        refused = {path: await wire.exchange(kme.port, tls, request) for path, request in raw.items()}
        mine = await wire.ask(kme.port, tls, "GET", ENC)
        theirs = await wire.ask(kme.port, tls, "GET", f"{DEC}?key_ID={held.key_id}")
        return refused, wire.served(mine[2]) + wire.served(theirs[2])

    refused, left = site.run(act)
    for path, (status, headers, body) in refused.items():
        if verb == "get":  # methods are case-sensitive (RFC 9110 9.1): this one is none, or not understood
            assert status in {400, 405}
            continue
        assert (status, headers["allow"]) == (405, paths[path].lower())
        assert body == b"" or "takes" in json.loads(body)["message"]
    assert left == [(owned.key_id, owned.material), (held.key_id, held.material)]


@pytest.mark.parametrize(
    ("encoded", "sae"),
    [
        ("sae%2Fwith%20slash", "sae/with slash"),
        ("%73ae%2fwith%20slash", "sae/with slash"),  # digits in lower case, and letters that need no encoding
        ("sae%2Db", "sae-b"),
    ],
)
def test_an_sae_id_in_the_path_is_decoded_once(site, wire, encoded, sae):
    """4: SAE IDs are "URL-encoded"."""
    (row,) = site.add_owned(1, slave=sae)
    tls = site.sae_tls("sae-a")
    status, _, answer = site.run(lambda kme: wire.ask(kme.port, tls, "GET", f"/api/v1/keys/{encoded}/enc_keys"))
    assert status == 200
    assert wire.served(answer) == [(row.key_id, row.material)]


@pytest.mark.parametrize("encoded", ["sae%252Db", "sae+b", "sae%2Db%00", "sae-b%20", "%2e%2e/keys/sae-b", "sae-b;v=1"])
def test_what_only_looks_like_an_sae_id_is_nobody(site, wire, encoded):
    site.add_owned(1)
    tls = site.sae_tls("sae-a")
    status, _, answer = site.run(lambda kme: wire.ask(kme.port, tls, "GET", f"/api/v1/keys/{encoded}/enc_keys"))
    assert status in {400, 404}
    assert answer["message"]
    assert site.keys.stored_key_count("sae-a", "sae-b") == 1


@pytest.mark.parametrize(
    "headers",
    [
        "Content-Type: application/json\r\n",
        "Content-Type: application/json; charset=utf-8\r\n",
        "Content-Type: text/plain\r\nAccept: text/html\r\n",  # clients of others send curl's own
        "",
    ],
)
def test_the_body_is_read_as_json_and_the_answer_is_json_whatever_the_header_says(site, wire, headers):
    """4: JSON in UTF-8; a request in another media type is one whose body is not JSON."""
    site.add_owned(2)
    tls = site.sae_tls("sae-a")
    status, found, answer = site.run(
        lambda kme: wire.ask(kme.port, tls, "POST", ENC, b'{"number": 2}', headers=headers)
    )
    assert (status, found["content-type"].partition(";")[0]) == (200, "application/json")
    assert len(answer["keys"]) == 2


# The standard's own words (6.2, tables 4, 6 and 8), typed from its text and not from our constants.
TEXTS = [
    (ENC, {"size": 100}, 400, "size shall be a multiple of 8"),
    (ENC, {"extension_mandatory": [{"abc_x": 1}]}, 400, "not all extension_mandatory parameters are supported"),
    (
        ENC,
        {"extension_mandatory": [{"heliograph_max_age_s": 0}]},
        400,
        "not all extension_mandatory request options could be met",
    ),
    (DEC, {"key_IDs": [{"key_ID": UNKNOWN}]}, 400, "one or more keys specified are not found on KME"),
    (ENC, {"number": "x"}, 400, "Bad request format"),
]


@pytest.mark.parametrize(("path", "body", "status", "text"), TEXTS)
def test_refusals_have_the_words_of_the_standard(site, wire, path, body, status, text):
    site.add_owned(1)
    tls = site.sae_tls("sae-a")
    found, _, answer = site.run(lambda kme: wire.ask(kme.port, tls, "POST", path, json.dumps(body).encode()))
    assert (found, answer["message"].partition(":")[0]) == (status, text)


def test_unauthorized_and_server_errors_have_the_words_of_the_standard(site, wire):
    tls = {name: site.sae_tls(name) for name in ("sae-a", "sae-x")}

    async def act(kme):
        stranger = await wire.ask(kme.port, tls["sae-x"], "GET", STATUS)
        site.database.close()
        broken = await wire.ask(kme.port, tls["sae-a"], "GET", STATUS)
        return stranger, broken

    stranger, broken = site.run(act)
    assert (stranger[0], stranger[2]["message"]) == (401, "Unauthorized")
    assert (broken[0], broken[2]["message"], broken[1]["retry-after"]) == (503, "Error on server side", "1")


def test_extensions_of_a_request_by_key_ids_are_taken_and_answered_or_ignored(site, wire):
    """6.4: both are optional objects; what is not known in them is nobody's loss."""
    first, second = site.add_held(2)
    tls = site.sae_tls("sae-a")
    body = {
        "key_IDs": [{"key_ID": first.key_id, "key_ID_extension": {"abc_x": [1]}}, {"key_ID": second.key_id.upper()}],
        "key_IDs_extension": {"heliograph_key_facts": True, "abc_y": None},
    }
    status, _, answer = site.run(lambda kme: wire.ask(kme.port, tls, "POST", DEC, json.dumps(body).encode()))
    assert status == 200
    assert wire.served(answer) == [(row.key_id, row.material) for row in (first, second)]
    assert all(entry["key_extension"]["heliograph_age_s"] >= 0 for entry in answer["keys"])
    assert answer["key_container_extension"] == {"heliograph_path": ["kme-a", "kme-b"]}


@pytest.mark.parametrize(
    "body",
    [
        {"extension_mandatory": {}},  # an object where 6.2 has an array
        {"extension_mandatory": [1]},
        {"extension_optional": "x"},
        {"additional_slave_SAE_IDs": "sae-c"},
        {"additional_slave_SAE_IDs": ["sae-b"]},
        {"additional_slave_SAE_IDs": ["sae-a"]},
        {"key_IDs": []},
    ],
)
def test_members_of_another_shape_are_400_and_nothing_is_taken(site, wire, body):
    site.add_owned(1)
    tls = site.sae_tls("sae-a")
    status, _, answer = site.run(lambda kme: wire.ask(kme.port, tls, "POST", ENC, json.dumps(body).encode()))
    assert status == 400
    assert answer["message"]
    assert site.keys.stored_key_count("sae-a", "sae-b") == 1


@pytest.mark.parametrize(
    "query",
    ["number=", "size=", "number=1&", "number=1;size=256", "Number=1", "number=1e0", "number=0x1", "number=%31"],
)
def test_a_query_that_is_not_plain_takes_no_key_unless_it_decodes_to_one(site, wire, query):
    """5.3: number and size, in decimal digits; %31 is the digit 1."""
    site.add_owned(1)
    tls = site.sae_tls("sae-a")
    status, _, _ = site.run(lambda kme: wire.ask(kme.port, tls, "GET", f"{ENC}?{query}"))
    assert status == (200 if query == "number=%31" else 400)
    assert site.keys.stored_key_count("sae-a", "sae-b") == (0 if status == 200 else 1)
