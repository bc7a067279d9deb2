"""Only HTTP/1.1 and HTTP/1.0 are spoken: another version gets a refusal, and no key leaves the store for it."""

import pytest

ENC = "/api/v1/keys/sae-b/enc_keys"


@pytest.mark.parametrize("version", [" HTTP/2.0", " HTTP/0.9", ""])
def test_another_version_of_http_gets_no_key(site, wire, version):
    site.add_owned(2)
    tls = site.sae_tls("sae-a")
    raw = f"POST {ENC}{version}\r\nHost: kme\r\nContent-Length: 0\r\n\r\n".encode()
    status, _, body = site.run(lambda kme: wire.exchange(kme.port, tls, raw))
    assert status == 400
    assert b"version" in body
    assert site.keys.stored_key_count("sae-a", "sae-b") == 2


def test_http_1_0_is_served(site, wire):
    site.add_owned(2)
    tls = site.sae_tls("sae-a")
    raw = f"POST {ENC} HTTP/1.0\r\nHost: kme\r\nContent-Length: 0\r\n\r\n".encode()
    status, _, _ = site.run(lambda kme: wire.exchange(kme.port, tls, raw))
    assert status == 200
