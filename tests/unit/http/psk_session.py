"""A session file for `openssl s_client -psk_session`, written by hand from the ASN.1."""

import base64
import time


def _der(tag, content):
    size = len(content)
    return bytes([tag]) + (bytes([size]) if size < 128 else b"\x82" + size.to_bytes(2, "big")) + content


def session_file(psk, suite=b"\x13\x02"):
    """Return SSL_SESSION of OpenSSL (ssl_asn1.c) in PEM: version, protocol, suite, no ID, the key, time, lifetime."""
    now = int(time.time())
    whole = b"".join(
        [
            _der(2, b"\x01"),
            _der(2, b"\x03\x04"),
            _der(4, suite),
            _der(4, b""),
            _der(4, psk),
            _der(0xA1, _der(2, now.to_bytes(now.bit_length() // 8 + 1, "big"))),
            _der(0xA2, _der(2, (7200).to_bytes(2, "big"))),
        ]
    )
    text = base64.encodebytes(_der(0x30, whole)).decode()
    return f"-----BEGIN SSL SESSION PARAMETERS-----\n{text}-----END SSL SESSION PARAMETERS-----\n"
