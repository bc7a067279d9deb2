"""TLS 1.3 under external preshared keys, as bytes in and bytes out. No I/O.

Python's ssl module has no preshared keys before 3.13, and binds those of TLS 1.3 to SHA-256 after. pyOpenSSL is on the
OpenSSL of ``cryptography``, whose binding has the calls that leave the hash to us: a preshared key is a session with a
suite, and good for suites with the same hash (RFC 8446 4.2.11). Here a key belongs to one suite and to no other.

There are no certificates: a peer without the key fails the handshake. Key exchange is (EC)DHE or ML-KEM beside the key
in any case (psk_dhe_ke). Each connection has a context of its own, which forgets: OpenSSL still gives tickets out, but
they open nothing, so nothing can be resumed past the key.

TLS 1.2 under preshared keys (RFC 4279) is served where a server is given keys for it, and those keys then are for no
other version: RFC 8446 E.7 knows of no proof for a key that serves in both.
"""

from __future__ import annotations

import base64
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Final

from OpenSSL import SSL

__all__ = [
    "AES_256_GCM_SHA384",
    "CHACHA20_POLY1305_SHA256",
    "TLS12_SUITES",
    "PskConnection",
    "Suite",
    "ffdhe3072",
    "psk_client",
    "psk_server",
    "reason",
]

PSK_BYTES_MAX: Final = 512  # OpenSSL's TLS13_MAX_RESUMPTION_PSK_LENGTH
_CHUNK_BYTES: Final = 256 * 1024
_lib: Final[Any] = SSL._lib  # type: ignore[attr-defined]  # noqa: SLF001  - ADR 0049: pyOpenSSL has no call for it
_ffi: Final[Any] = SSL._ffi  # type: ignore[attr-defined]  # noqa: SLF001  - the same
_FIND: Final = "int (*)(SSL *, const unsigned char *, size_t, SSL_SESSION **)"
_FIND_TLS12: Final = "unsigned int (*)(SSL *, const char *, unsigned char *, unsigned int)"
_USE: Final = "int (*)(SSL *, const EVP_MD *, const unsigned char **, size_t *, SSL_SESSION **)"


@dataclass(frozen=True, slots=True)
class Suite:
    """A cipher suite of TLS 1.3 (RFC 8446 B.4): its name and its two bytes."""

    name: bytes
    code: bytes


CHACHA20_POLY1305_SHA256: Final = Suite(b"TLS_CHACHA20_POLY1305_SHA256", b"\x13\x03")
AES_256_GCM_SHA384: Final = Suite(b"TLS_AES_256_GCM_SHA384", b"\x13\x02")

# OpenSSL's names, the best first. The two of CBC are those of draft-cisco-skip-02, table 1. Suites without DHE are left
# out: whoever learns such a preshared key later can read every key that was recorded on its way before.
TLS12_SUITES: Final = (b"DHE-PSK-AES256-GCM-SHA384", b"DHE-PSK-AES256-CBC-SHA384", b"DHE-PSK-AES256-CBC-SHA")
_FFDHE3072_BITS: Final = 3072
_FFDHE3072_OFFSET: Final = 2625351  # RFC 7919 A.2


@dataclass(slots=True, eq=False)
class PskConnection:
    """One connection. ``used``: the identity whose key the handshake was made under, empty before."""

    connection: SSL.Connection
    used: list[bytes]
    _keep: tuple[object, ...] = field(repr=False)  # the callback must live as long as the context

    def take(self, data: bytes) -> None:
        """Take bytes that came from the peer."""
        view = memoryview(data)
        while view:
            view = view[self.connection.bio_write(view) :]

    def give(self) -> bytes:
        """Return the bytes that the peer is owed."""
        parts = []
        while True:
            try:
                parts.append(self.connection.bio_read(_CHUNK_BYTES))
            except SSL.WantReadError:
                return b"".join(parts)


def psk_client(suite: Suite, identity: bytes, psk: bytes, groups: bytes | None = None) -> PskConnection:
    """Return a client's connection, which offers one key and takes no certificate in place of it.

    ``groups``: OpenSSL's names of what it exchanges keys in, with colons between them, a share for the first; what
    OpenSSL offers by itself if not given. Raises ValueError for a name that is none.
    """
    named = _ffi.new("unsigned char[]", identity)

    def offer(ssl: Any, _digest: object, name: Any, size: Any, session: Any) -> int:  # noqa: ANN401
        session[0] = _session(ssl, suite, psk)
        name[0], size[0] = named, len(identity)
        return 1 if session[0] != _ffi.NULL else 0

    callback = _ffi.callback(_USE, offer, error=0, onerror=_say_nothing)
    context = _context(suite)
    if groups is not None and _lib.SSL_CTX_set1_curves_list(context._context, groups) != 1:  # noqa: SLF001  - the same
        raise ValueError("a group that OpenSSL does not know")
    # No authority is trusted: a server that shows a certificate in place of the key is refused.
    context.set_verify(SSL.VERIFY_PEER, lambda *_: False)
    _lib.SSL_CTX_set_psk_use_session_callback(context._context, callback)  # noqa: SLF001  - the same
    connection = SSL.Connection(context, None)
    connection.set_connect_state()
    return PskConnection(connection, [identity], (callback, context, named))


def psk_server(
    suite: Suite, find: Callable[[bytes], bytes | None], find_tls12: Callable[[bytes], bytes | None] | None = None
) -> PskConnection:
    """Return a server's connection. ``find``: identity to preshared key, None for one that is refused.

    ``find_tls12``: the same for TLS 1.2; without it there is no TLS 1.2.
    """
    used: list[bytes] = []

    def look_up(ssl: Any, name: Any, size: int, session: Any) -> int:  # noqa: ANN401
        identity = bytes(_ffi.buffer(name, size))
        used.clear()  # a second ClientHello, after a HelloRetryRequest, is looked up anew
        psk = find(identity)
        session[0] = _ffi.NULL if psk is None else _session(ssl, suite, psk)
        if session[0] != _ffi.NULL:
            used[:] = [identity]
        return 1  # without a session it goes on to certificates, of which there are none

    def look_up_tls12(ssl: Any, name: Any, psk: Any, most: int) -> int:  # noqa: ANN401
        # OpenSSL asks here in TLS 1.3 too, for keys of SHA-256, if the other callback had none.
        identity = _ffi.string(name)
        found = find_tls12(identity) if find_tls12 and _lib.SSL_version(ssl) == SSL.TLS1_2_VERSION else None
        if found is None or not 1 <= len(found) <= most:
            return 0
        _ffi.memmove(psk, found, len(found))
        used[:] = [identity]
        return len(found)

    callback = _ffi.callback(_FIND, look_up, error=0, onerror=_say_nothing)
    older = _ffi.callback(_FIND_TLS12, look_up_tls12, error=0, onerror=_say_nothing)
    context = _context(suite)
    _lib.SSL_CTX_set_psk_find_session_callback(context._context, callback)  # noqa: SLF001  - the same
    if find_tls12 is not None:
        _allow_tls12(context)
        _lib.SSL_CTX_set_psk_server_callback(context._context, older)  # noqa: SLF001  - the same
    connection = SSL.Connection(context, None)
    connection.set_accept_state()
    return PskConnection(connection, used, (callback, older, context))


def reason(why: SSL.Error) -> str:
    """Return OpenSSL's words for an error: no key material is in them."""
    errors = why.args[0] if why.args and isinstance(why.args[0], list) else []
    return ", ".join(str(error[-1]) for error in errors) or type(why).__name__


def _say_nothing(*_: object) -> None:
    """Take an exception of a callback, which cffi would print: the 0 that OpenSSL gets fails the handshake."""


def _session(ssl: Any, suite: Suite, psk: bytes) -> Any:  # noqa: ANN401
    """Return a session that says: this key, this suite, TLS 1.3. OpenSSL frees it. NULL if it cannot be made."""
    session = _lib.Cryptography_SSL_SESSION_new()
    if session == _ffi.NULL:
        return session
    cipher = _lib.SSL_CIPHER_find(ssl, suite.code)
    sound = (
        1 <= len(psk) <= PSK_BYTES_MAX
        and cipher != _ffi.NULL
        and _lib.SSL_SESSION_set1_master_key(session, psk, len(psk)) == 1
        and _lib.SSL_SESSION_set_cipher(session, cipher) == 1
        and _lib.SSL_SESSION_set_protocol_version(session, SSL.TLS1_3_VERSION) == 1
    )
    if not sound:
        _lib.SSL_SESSION_free(session)
        return _ffi.NULL
    return session


def _context(suite: Suite) -> SSL.Context:
    context = SSL.Context(SSL.TLS_METHOD)
    context.set_min_proto_version(SSL.TLS1_3_VERSION)
    context.set_tls13_ciphersuites(suite.name)
    context.set_options(SSL.OP_NO_TICKET | SSL.OP_NO_COMPRESSION)
    context.set_session_cache_mode(SSL.SESS_CACHE_OFF)
    return context


def _allow_tls12(context: SSL.Context) -> None:
    context.set_min_proto_version(SSL.TLS1_2_VERSION)
    context.set_cipher_list(b":".join(TLS12_SUITES))
    context.set_options(SSL.OP_NO_RENEGOTIATION | SSL.OP_CIPHER_SERVER_PREFERENCE)
    written = _ffi.new("char[]", ffdhe3072())
    memory = _ffi.gc(_lib.BIO_new_mem_buf(written, len(written) - 1), _lib.BIO_free)
    group = _ffi.gc(_lib.PEM_read_bio_DHparams(memory, _ffi.NULL, _ffi.NULL, _ffi.NULL), _lib.DH_free)
    if group == _ffi.NULL or _lib.SSL_CTX_set_tmp_dh(context._context, group) != 1:  # noqa: SLF001  - the same
        raise SSL.Error([("heliograph", "", "the group of DHE cannot be set")])


@lru_cache(maxsize=1)
def ffdhe3072() -> bytes:
    """Return the group ffdhe3072 as PEM: by its formula from the digits of e (RFC 7919 A and A.2), generator 2."""
    bits, guard = _FFDHE3072_BITS, 64
    term = digits = 1 << (bits - 130 + guard)
    number = 1
    while term:  # e is the sum of 1/n!
        term //= number
        digits += term
        number += 1
    prime = 2**bits - 2 ** (bits - 64) + ((digits >> guard) + _FFDHE3072_OFFSET) * 2**64 - 1
    # PKCS #3: SEQUENCE { prime INTEGER, base INTEGER }; cryptography is about to drop its own way to write it.
    members = b"\x02\x82\x01\x81\x00" + prime.to_bytes(bits // 8, "big") + b"\x02\x01\x02"
    written = base64.encodebytes(b"\x30\x82" + len(members).to_bytes(2, "big") + members)
    return b"-----BEGIN DH PARAMETERS-----\n" + written + b"-----END DH PARAMETERS-----\n"
