"""Words with charon, strongSwan's daemon, over its vici socket: what the driver needs and nothing else.

Every call blocks, for a few seconds at most, and runs off the event loop. Secrets go over the Unix socket only.
"""

from __future__ import annotations

import contextlib
import importlib
import socket
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from heliograph.encryptors.strongswan_config import StrongSwanConfig
from heliograph.errors import ConfigurationError, EncryptorUnavailable

__all__ = ["CHILD", "Association", "Charon", "require_vici"]

CHILD: Final = "net"
# Our choice. An attempt goes on in charon after we stopped waiting for it.
_WORD_SECONDS: Final = 5.0
_INITIATE_SECONDS: Final = 0.5
_FAREWELL_SECONDS: Final = 0.5
_LATER_S: Final = 5  # our choice: by how much the initiator's end comes after the responder's
_ML_KEM: Final = "ke1_mlkem768"  # RFC 9370 and draft-ietf-ipsecme-ikev2-mlkem, in strongSwan's words


def require_vici() -> Any:  # noqa: ANN401  - the package has no types
    """Return the package vici. Raises ConfigurationError if it is not installed."""
    try:
        return importlib.import_module("vici")
    except ImportError:
        raise ConfigurationError("strongswan needs the package vici: pip install 'heliograph[strongswan]'") from None


@dataclass(frozen=True, slots=True)
class Association:
    """One IKE security association as charon tells it. ``connection``: the name it came up under; bytes of its child.

    ``identifier``: charon's number, which begins anew with charon; ``spis``: random, so never another's; ``mixed``:
    the key of the link went into it (RFC 8784); ``passing``: its child carries traffic.
    """

    connection: str
    identifier: str
    spis: str
    established: bool
    mixed: bool
    passing: bool
    received_bytes: int
    sent_bytes: int
    sent_packets: int

    @property
    def good(self) -> bool:
        """Whether traffic passes under a key of the link."""
        return self.established and self.mixed and self.passing


class Charon:
    """One charon. Each method raises EncryptorUnavailable with a line for an operator."""

    def __init__(self, config: StrongSwanConfig) -> None:
        self._config: Final = config
        self._vici = require_vici()

    @contextlib.contextmanager
    def session(self) -> Iterator[Any]:
        """Connect for a few words; a daemon that was restarted meanwhile is met like any other."""
        path = self._config.socket
        try:
            with socket.socket(socket.AF_UNIX) as line:
                line.settimeout(_WORD_SECONDS)
                line.connect(path)
                yield self._vici.Session(line)
        except OSError as why:
            raise EncryptorUnavailable(
                f"strongswan: charon does not answer at {path} ({why.strerror or 'time out'}): start charon-systemd, "
                "and let the agent use its socket"
            ) from None
        except (
            self._vici.exception.CommandException,
            self._vici.exception.SessionException,
            self._vici.exception.DeserializationException,
        ) as why:
            raise EncryptorUnavailable(f"strongswan: charon refused: {_one_line(why)}") from None

    def introduce(self, session: Any) -> tuple[str, ...]:  # noqa: ANN401
        """Give charon this gateway's certificate, key and authority; return the proposals that it can make."""
        config = self._config
        self._certificate()  # read here only so that a missing one is known at the start
        session.load_cert({"type": "X509", "flag": "CA", "data": _read(config.ca, "ca")})
        session.load_key({"type": "any", "data": _read(config.key, "key")})
        exchanges = session.get_algorithms().get("ke") or {}
        if config.ml_kem and "ML_KEM_768" in exchanges:
            return (f"{config.proposal}-{_ML_KEM}", config.proposal)
        return (config.proposal,)

    def _certificate(self) -> str:
        return _read(self._config.certificate, "certificate")

    def load_key(self, session: Any, name: str, key_id: str, key: bytes) -> None:  # noqa: ANN401
        """Make charon know a post-quantum preshared key; its PPK_ID on the wire is the key_ID, ``name`` stays here."""
        session.load_shared({"id": name, "type": "ppk", "data": key, "owners": [key_id]})

    def known_keys(self, session: Any) -> set[str]:  # noqa: ANN401
        """Return the names of the shared keys that charon holds."""
        return {_text(name) for name in session.get_shared().get("keys", [])}

    def forget_key(self, session: Any, name: str) -> None:  # noqa: ANN401
        """Make charon forget a preshared key; security associations that used it go on."""
        with contextlib.suppress(self._vici.exception.CommandException):  # it was forgotten already
            session.unload_shared({"id": name})

    def load_connection(
        self,
        session: Any,  # noqa: ANN401
        name: str,
        key_id: str | None,
        proposals: Iterable[str],
        left_s: int,
    ) -> None:
        """Define a connection under which nothing comes up without a preshared key of the link.

        ``key_id``: the one key to use, at the initiator; the responder leaves it open and takes any it knows.
        ``left_s``: seconds after which charon ends it by itself, even if nobody is left to tell it to.
        """
        config = self._config
        words: dict[str, Any] = {
            "version": "2",
            "local_addrs": [config.local],
            "remote_addrs": [config.remote],
            "proposals": list(proposals),
            "encap": "yes" if config.udp_encapsulation else "no",
            "mobike": "no",
            "unique": "no",  # the next generation comes up beside the one in use
            "keyingtries": "1",
            "dpd_delay": "10s",
            # Never rekeyed: RFC 8784 mixes the key in IKE_AUTH only. Past ``left_s`` charon authenticates anew, which
            # fails without the key, and closes.
            "rekey_time": "0",
            # The responder's first: if both agents died while charon knows the key, it is the one whose authentication
            # fails, since the initiator's would succeed and begin anew.
            "reauth_time": f"{left_s + (_LATER_S if key_id is not None else 0)}s",
            "over_time": "1s",
            "rand_time": "0",
            "ppk_required": "yes",
            "local": {"auth": "pubkey", "certs": [self._certificate()], "id": config.local_id},
            "remote": {"auth": "pubkey", "id": config.remote_id},
            "children": {
                CHILD: {
                    "local_ts": list(config.local_networks),
                    "remote_ts": list(config.remote_networks),
                    "esp_proposals": [config.esp_proposal],
                    "rekey_time": "0",
                    "life_time": "0",
                    "start_action": "none",
                    "close_action": "none",
                    "dpd_action": "clear",
                }
            },
        }
        if key_id is not None:
            words["ppk_id"] = key_id
        session.load_conn({name: words})

    def connections(self, session: Any) -> set[str]:  # noqa: ANN401
        """Return the names of the connections that are defined."""
        return {_text(name) for name in session.get_conns().get("conns", [])}

    def refuse_rivals(self, session: Any, belongs: Callable[[str], bool]) -> None:  # noqa: ANN401
        """Raise EncryptorUnavailable if charon could take another connection for ours.

        A responder chooses by addresses and names alone. With a rival it may bring an association up under the other
        connection, with other networks and another tunnel's key.
        """
        config = self._config
        ours = ([config.local], [config.remote], config.local_id, config.remote_id)
        for name, told in ((_text(n), told) for each in session.list_conns() for n, told in each.items()):
            addresses = [[_text(one) for one in told.get(entry, [])] for entry in ("local_addrs", "remote_addrs")]
            names = [_text(told.get(entry, {}).get("id", b"")) for entry in ("local-1", "remote-1")]
            if not belongs(name) and (*addresses, *names) == ours:
                raise EncryptorUnavailable(
                    f"strongswan: charon has another connection ({name}) between {config.local_id} and "
                    f"{config.remote_id}, which a responder cannot tell from this one: put more networks into one "
                    "tunnel, or give each tunnel a local_id and a remote_id of its own (a certificate has several)"
                )

    def forget_connection(self, session: Any, name: str) -> None:  # noqa: ANN401
        """Remove a connection's definition; its associations go on."""
        with contextlib.suppress(self._vici.exception.CommandException):
            session.unload_conn({"name": name})

    def initiate(self, session: Any, name: str) -> None:  # noqa: ANN401
        """Bring one connection up. Raises EncryptorUnavailable when the peer refuses, or has not answered yet."""
        words = {"ike": name, "child": CHILD, "timeout": str(int(1000 * _INITIATE_SECONDS)), "loglevel": "-1"}
        for _ in session.initiate(words):
            pass

    def terminate(self, session: Any, identifier: str) -> None:  # noqa: ANN401
        """End one association at once; the peer is told if it listens."""
        words = {
            "ike-id": identifier,
            "force": "yes",
            "timeout": str(int(1000 * _FAREWELL_SECONDS)),
            "loglevel": "-1",
        }
        with contextlib.suppress(self._vici.exception.CommandException):  # gone already, or ended without an answer
            for _ in session.terminate(words):
                pass

    def associations(self, session: Any, belongs: Callable[[str], bool]) -> list[Association]:  # noqa: ANN401
        """Return the associations of the connections whose names belong to us."""
        told = [pair for group in list(session.list_sas()) for pair in group.items()]
        return [_association(_text(name), sa) for name, sa in told if belongs(_text(name))]


def _association(name: str, sa: Any) -> Association:  # noqa: ANN401
    children = [child for child in sa.get("child-sas", {}).values() if _text(child.get("state", b"")) == "INSTALLED"]
    return Association(
        connection=name,
        identifier=_text(sa["uniqueid"]),
        spis=_text(sa.get("initiator-spi", b"")) + _text(sa.get("responder-spi", b"")),
        established=_text(sa["state"]) == "ESTABLISHED",
        mixed=_text(sa.get("ppk", b"")) == "yes",
        passing=bool(children),
        received_bytes=sum(_number(child.get("bytes-in")) for child in children),
        sent_bytes=sum(_number(child.get("bytes-out")) for child in children),
        sent_packets=sum(_number(child.get("packets-out")) for child in children),
    )


def _text(value: Any) -> str:  # noqa: ANN401
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)


def _number(value: Any) -> int:  # noqa: ANN401
    text = "0" if value is None else _text(value)
    return int(text) if text.isdecimal() else 0


def _one_line(why: Exception) -> str:
    return " ".join(str(why).removeprefix("Command failed: ").split())[:200]


def _read(path: str, entry: str) -> str:
    try:
        return Path(path).read_text(encoding="ascii")
    except (OSError, UnicodeDecodeError) as why:
        reason = getattr(why, "strerror", None) or "not PEM"
        raise EncryptorUnavailable(f"strongswan: {entry} {path}: {reason}") from None
