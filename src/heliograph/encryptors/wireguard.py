"""WireGuard under keys of a consumer: its preshared key is rotated, and believed only when a handshake has used it.

The kernel's WireGuard and wireguard-go are both driven through the program ``wg``; secrets go to it by standard input.
Facts that the design rests on (measured with wireguard-go): a new preshared key is taken up at the next handshake; a
peer that is removed and added again in one command loses its session at once and shakes hands anew.

    responder  install: set the key, the old session goes on
    initiator  activate: set the key, remove and add the peer
    both       in use once a handshake is younger than that; else alarm, and another rotation is asked for

Before the first key, after the last, and without a fresh one, the preshared key is random: no handshake succeeds.
"""

from __future__ import annotations

import base64
import binascii
import ipaddress
import logging
import math
import re
import subprocess
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from heliograph.consumer.encryptor import EncryptorReport
from heliograph.consumer.keys import Role, TunnelKeys, key_id_text
from heliograph.encryptors.addresses import Address
from heliograph.errors import ConfigurationError, EncryptorUnavailable, LocalProtocolError
from heliograph.ports import Clock, RandomSource

__all__ = ["WireGuard", "WireGuardConfig"]

_KEY_BYTES: Final = 32
_COMMAND_SECONDS: Final = 5.0
_REMEMBERED: Final = 65536
# A handshake's age is told in whole seconds, so two rotations must not fall into one; WireGuard itself waits 5 s
# before it repeats a lost handshake (Rekey-Timeout).
_CONFIRM_SECONDS: Final = 15.0
_CHECK_SECONDS: Final = 0.5

_log = logging.getLogger("heliograph.agent")


@dataclass(frozen=True, slots=True)
class WireGuardConfig:
    """The interface that exists, and the one peer whose preshared key is ours. Raises ConfigurationError.

    ``endpoint``: where the peer is, needed by the initiator; ``keepalive``: seconds, so that somebody shakes hands.
    """

    interface: str
    peer: str
    allowed_ips: tuple[str, ...]
    endpoint: str | None = None
    keepalive: int = 25

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[A-Za-z0-9_=+.-]{1,15}", self.interface) or self.interface.startswith("-"):
            raise ConfigurationError(f"wireguard: interface = {self.interface!r} is not the name of an interface")
        try:
            size = len(base64.b64decode(self.peer, validate=True))
        except (binascii.Error, ValueError):
            size = 0
        if size != _KEY_BYTES:
            raise ConfigurationError("wireguard: peer must be the peer's public key, as wg pubkey prints it")
        if not self.allowed_ips:
            raise ConfigurationError("wireguard: allowed_ips is empty: name the networks behind the peer")
        for network in self.allowed_ips:
            try:
                ipaddress.ip_network(network)
            except ValueError as why:
                raise ConfigurationError(f"wireguard: allowed_ips: {why}") from None
        if self.endpoint is not None:
            host = Address.parse(self.endpoint).host
            try:
                ipaddress.ip_address(host)
            except ValueError:  # wg would ask the name service, and a tunnel could not be changed while that is down
                raise ConfigurationError(f"wireguard: endpoint: {host!r} is a name; write its IP address") from None
        if not 1 <= self.keepalive <= 65535:
            raise ConfigurationError(f"wireguard: keepalive = {self.keepalive}: from 1 to 65535 seconds")


class WireGuard:
    """One peer of one interface (``consumer.encryptor.Encryptor``). The callbacks are those of ``Forwarder``."""

    def __init__(
        self,
        role: Role,
        config: WireGuardConfig,
        max_key_age_s: float,
        clock: Clock,
        randomness: RandomSource,
        *,
        on_nearly_used: Callable[[bytes], None],
        on_drained: Callable[[bytes], None],
    ) -> None:
        self._role = role
        self._config: Final = config
        self._max_key_age_s = max_key_age_s
        self._clock = clock
        self._randomness = randomness
        self._on_nearly_used = on_nearly_used
        self._on_drained = on_drained
        self._installed: dict[bytes, tuple[bytes, float]] = {}  # key_ID: preshared key, since
        self._in_place: bytes | None = None  # whose preshared key the interface has; None: a random one
        self._active: bytes | None = None
        self._draining: bytes | None = None
        self._confirmed = False
        self._passing = False
        self._handshake_before = 0
        self._confirm_by = math.inf
        self._checked_at = -math.inf
        self._alarm: str | None = None
        self._must_shut = False  # an order to shut that has not succeeded: tried again at each check
        self._transfer = (0, 0)
        self._seen: set[bytes] = set()
        self._seen_order: deque[bytes] = deque()

    async def start(self) -> None:
        """Shut the tunnel until there is a key. Raises ConfigurationError if the interface cannot be used."""
        try:
            self._shut()
        except EncryptorUnavailable as why:
            raise ConfigurationError(str(why)) from None

    async def close(self) -> None:
        """Shut the tunnel and forget every key."""
        self._installed.clear()
        self._active = None
        try:
            self._shut()
        except EncryptorUnavailable as why:
            _log.error("%s; the tunnel may go on under its last key: run wg set %s peer %s remove", why,
                       self._config.interface, self._config.peer)  # fmt: skip

    def install(self, keys: TunnelKeys, since: float) -> None:
        """At the responder: put the key in place, the session goes on. At the initiator: keep it for ``activate``."""
        if self.seen(keys.key_id):
            raise LocalProtocolError(f"key {key_id_text(keys.key_id)} was installed before")
        self._remember(keys.key_id)
        preshared = keys.initiator_key.to_bytes()
        self._installed[keys.key_id] = preshared, since
        if self._role is Role.RESPONDER:
            anew = self._in_place is None  # there is no session to keep, and perhaps no peer
            self._handshake_before = 0 if anew else self._latest_handshake()
            self._set(preshared, anew=anew)
            self._await_handshake(keys.key_id)

    def activate(self, key_id: bytes) -> None:
        """Put the key in place and force a handshake; at the responder it is in place already."""
        if key_id not in self._installed:
            raise LocalProtocolError(f"key {key_id_text(key_id)} is not installed")
        self._active = key_id
        if self._role is Role.INITIATOR or self._in_place != key_id:
            self._handshake_before = 0  # a peer that was added again has had none
            self._passing = False
            self._await_handshake(key_id)
            self._set(self._installed[key_id][0], anew=True)

    def drain(self, key_id: bytes) -> None:
        """Call ``on_drained`` once a handshake has used the newer key: the old session is gone then."""
        self._draining = key_id
        self._tell_drained()

    def retire(self, key_id: bytes) -> None:
        """Forget this generation; if the interface has its key, shut the tunnel."""
        self._installed.pop(key_id, None)
        if self._draining == key_id:
            self._draining = None
        if self._active == key_id:
            self._active = None
        if self._active not in self._installed:
            self._shut()  # whatever is in place: the session of the old key must end too
        elif self._in_place == key_id:
            self._put_back(self._active)

    def _put_back(self, key_id: bytes) -> None:
        # A candidate was given up: the session under the active key goes on, and so does its key.
        self._set(self._installed[key_id][0], anew=False)
        self._in_place, self._handshake_before = key_id, 0

    def seen(self, key_id: bytes) -> bool:
        """Whether this key was installed before."""
        return key_id in self._seen

    def check(self) -> None:
        """Compare the last handshake with the last key; alarm and ask for another rotation if none has used it."""
        now = self._clock.now()
        if now - self._checked_at < _CHECK_SECONDS:
            return
        self._checked_at = now
        try:
            if self._must_shut:
                self._shut()
            handshake = self._latest_handshake()
            self._transfer = self._read_transfer()
        except EncryptorUnavailable as why:
            self._alarm, self._in_place, self._confirmed, self._passing = str(why), None, False, False
            self._ask_again(now)
            return
        if self._in_place is None:
            self._passing = False
            if self._active is not None:
                self._ask_again(now)  # the interface came back without our key
            return
        if not self._confirmed and handshake not in (0, self._handshake_before):
            self._confirmed, self._passing, self._confirm_by, self._alarm = True, True, math.inf, None
            self._tell_drained()
        elif not self._confirmed and now >= self._confirm_by:
            self._passing = False
            self._alarm = (
                f"wireguard {self._config.interface}: no handshake under key {key_id_text(self._in_place)} for "
                f"{_CONFIRM_SECONDS:g} s: nothing passes; check the peer's agent, its interface, UDP between the sites"
            )
            self._ask_again(now)

    def report(self) -> EncryptorReport:
        """Return a snapshot: "sending" only under a key that a handshake has used and that is not too old.

        A responder whose new key waits for its handshake goes on under the session before.
        """
        _, since = self._installed.get(self._active or b"", (b"", -math.inf))
        fresh = self._clock.now() - since < self._max_key_age_s
        received, sent = self._transfer
        return EncryptorReport(
            key_id=self._active,
            since=since,
            sending=fresh and self._passing,
            sent_bytes=sent,
            received_bytes=received,
            alarm=self._alarm,
        )

    # The interface.

    def _await_handshake(self, key_id: bytes) -> None:
        self._in_place = key_id
        self._confirmed = False
        self._confirm_by = self._clock.now() + _CONFIRM_SECONDS

    def _tell_drained(self) -> None:
        if self._draining is not None and self._confirmed and self._in_place != self._draining:
            key_id, self._draining = self._draining, None
            self._on_drained(key_id)

    def _ask_again(self, now: float) -> None:
        if self._active is not None and (now >= self._confirm_by or math.isinf(self._confirm_by)):
            self._confirm_by = now + _CONFIRM_SECONDS
            self._on_nearly_used(self._active)

    def _shut(self) -> None:
        """Put a random key in place and end the session: no handshake succeeds, nothing passes."""
        self._in_place, self._confirmed, self._passing, self._confirm_by = None, False, False, math.inf
        self._must_shut = True
        self._set(self._randomness.draw(_KEY_BYTES), anew=True, shut=True)
        self._must_shut = False

    def _set(self, preshared: bytes, *, anew: bool, shut: bool = False) -> None:
        config = self._config
        words = ["set", config.interface]
        if anew:
            words += ["peer", config.peer, "remove"]
        words += ["peer", config.peer, "preshared-key", "/dev/stdin"]
        if anew:
            words += ["persistent-keepalive", str(config.keepalive), "allowed-ips", ",".join(config.allowed_ips)]
            if config.endpoint is not None and not shut:
                words += ["endpoint", config.endpoint]
        try:
            self._wg(words, base64.b64encode(preshared) + b"\n")
        except EncryptorUnavailable as why:
            self._in_place = None
            if not shut:
                raise
            raise EncryptorUnavailable(f"{why}; the last key may still be in use: it is tried again") from None
        self._must_shut = False  # whatever was in place is not any more

    def _latest_handshake(self) -> int:
        return self._numbers("latest-handshakes", 1)[0]

    def _read_transfer(self) -> tuple[int, int]:
        received, sent = self._numbers("transfer", 2)
        return received, sent

    def _numbers(self, what: str, count: int) -> list[int]:
        words = self._peer_line(what).split()[1:]
        if len(words) != count or not all(word.isdecimal() for word in words):
            raise EncryptorUnavailable(
                f"wireguard {self._config.interface}: wg show said what it should not about {what}"
            )
        return [int(word) for word in words]

    def _peer_line(self, what: str) -> str:
        for line in self._wg(["show", self._config.interface, what], b"").decode(errors="replace").splitlines():
            if line.startswith(self._config.peer):
                return line
        raise EncryptorUnavailable(
            f"wireguard {self._config.interface}: the peer {self._config.peer} is not there: somebody removed it"
        )

    def _wg(self, words: list[str], given: bytes) -> bytes:
        try:
            done = subprocess.run(  # noqa: S603  - fixed program, checked words, the secret on standard input
                ["wg", *words],  # noqa: S607  - where the operating system has it
                input=given,
                capture_output=True,
                timeout=_COMMAND_SECONDS,
                check=False,
            )
        except FileNotFoundError:
            raise EncryptorUnavailable("the program wg is missing: apt-get install -y wireguard-tools") from None
        except (OSError, subprocess.TimeoutExpired) as why:
            raise EncryptorUnavailable(f"the program wg did not run: {why}") from None
        if done.returncode:
            said = " ".join(done.stderr.decode(errors="replace").split())[:200]
            raise EncryptorUnavailable(
                f"wireguard {self._config.interface}: the interface cannot be used ({said}): nothing passes; "
                "create it again, or give the agent CAP_NET_ADMIN"
            )
        return done.stdout

    def _remember(self, key_id: bytes) -> None:
        self._seen.add(key_id)
        self._seen_order.append(key_id)
        if len(self._seen_order) > _REMEMBERED:
            self._seen.discard(self._seen_order.popleft())
