"""WireGuard under keys of a consumer: its preshared key is rotated, and believed only when a handshake has used it.

The kernel's WireGuard and wireguard-go are both driven through the program ``wg``; secrets go to it by standard input.
Facts that the design rests on (measured with wireguard-go): a new preshared key is taken up at the next handshake; a
peer that is removed and added again in one command loses its session at once and shakes hands anew.

    responder  install: set the key, the old session goes on
    initiator  activate: set the key, remove and add the peer
    both       in use once a handshake is younger than that; else alarm, and another rotation is asked for

Before the first key, after the last, and without a fresh one, the preshared key is random: no handshake succeeds.
``wg`` runs off the event loop: if it hangs, the site goes on.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import logging
import math
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from heliograph.consumer.encryptor import EncryptorReport
from heliograph.consumer.keys import Role, TunnelKeys, key_id_text
from heliograph.encryptors.addresses import Address, read_ip, read_network
from heliograph.encryptors.seen_keys import SeenKeys
from heliograph.encryptors.settler import Settler
from heliograph.encryptors.wg import Wg
from heliograph.errors import ConfigurationError, EncryptorUnavailable, LocalProtocolError
from heliograph.ports import Clock, RandomSource

__all__ = ["WireGuard", "WireGuardConfig"]

_KEY_BYTES: Final = 32
# A handshake's age is told in whole seconds, so two rotations must not fall into one; WireGuard itself waits 5 s
# before it repeats a lost handshake (Rekey-Timeout).
_CONFIRM_SECONDS: Final = 15.0
_CHECK_SECONDS: Final = 0.5
_HANGS_SECONDS: Final = 15.0  # three commands, each given up after five seconds
_CLOSE_SECONDS: Final = 6.0  # a site ends within ten

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
                read_network(network)
            except ValueError as why:
                raise ConfigurationError(f"wireguard: allowed_ips: {why}") from None
        if self.endpoint is not None:
            host = Address.parse(self.endpoint).host
            try:
                read_ip(host)
            except ValueError:  # wg would ask the name service, and a tunnel could not be changed while that is down
                raise ConfigurationError(f"wireguard: endpoint: {host!r} is a name; write its IP address") from None
        if not 1 <= self.keepalive <= 65535:
            raise ConfigurationError(f"wireguard: keepalive = {self.keepalive}: from 1 to 65535 seconds")


@dataclass(frozen=True, slots=True)
class _Wish:
    """How the peer must be. ``number`` rises with each change; ``key_id``: None for a random preshared key.

    ``anew``: the session before ends and a handshake follows at once. ``session``: a candidate was given up, and the
    session of this handshake, under this key, goes on; unless another came in between: it may be the candidate's.
    """

    number: int
    key_id: bytes | None
    preshared: bytes = field(repr=False)
    anew: bool
    session: int = 0

    @property
    def shut(self) -> bool:
        """Whether nothing may pass."""
        return self.key_id is None


@dataclass(frozen=True, slots=True)
class _Seen:
    """``before``: the last handshake when the wish was carried out, if it was now; bytes received and sent.

    ``goes_on``: the session is the one from before the candidate that was given up.
    """

    before: int | None
    handshake: int
    transfer: tuple[int, int]
    goes_on: bool = False


class WireGuard:
    """One peer of one interface (``consumer.encryptor.Encryptor``). The callbacks are those of ``Forwarder``.

    ``on_in_place``: a key is in place that was not; ``on_not_taken``: the interface does not take a key.
    """

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
        on_in_place: Callable[[bytes], None],
        on_not_taken: Callable[[bytes], None],
    ) -> None:
        self._role = role
        self._config: Final = config
        self._max_key_age_s = max_key_age_s
        self._clock = clock
        self._randomness = randomness
        self._on_nearly_used = on_nearly_used
        self._on_drained = on_drained
        self._on_in_place = on_in_place
        self._on_not_taken = on_not_taken
        self._wg: Final = Wg(config.interface, config.peer)
        self._settler: Final = Settler(f"wireguard {config.interface}", self._carry_out, self._settled)
        self._installed: dict[bytes, tuple[bytes, float]] = {}  # key_ID: preshared key, since
        self._wish = self._shutting(0)
        self._in_place: bytes | None = None  # whose preshared key the interface has; None: a random one, or unknown
        self._active: bytes | None = None
        self._draining: bytes | None = None
        self._confirmed = False
        self._passing = False
        self._handshake_before = 0
        self._confirm_by = math.inf
        self._checked_at = -math.inf
        self._busy_since = math.inf
        self._alarm: str | None = None
        self._transfer = (0, 0)
        self._seen: Final = SeenKeys()
        self._session: tuple[bytes, int] = b"", 0  # the last handshake that was seen while its key was confirmed
        self._carried_out: int | None = None  # the thread's own: the number of the wish that the interface is at

    async def start(self) -> None:
        """Shut the tunnel until there is a key. Raises ConfigurationError if the interface cannot be used."""
        try:
            await asyncio.to_thread(self._carry_out, self._wish)
        except EncryptorUnavailable as why:
            raise ConfigurationError(str(why)) from None
        self._settler.start()

    async def close(self) -> None:
        """Shut the tunnel and forget every key."""
        self._installed.clear()
        self._active = None
        self._shut()
        if not await self._settler.close(_CLOSE_SECONDS) or self._carried_out != self._wish.number:
            _log.error("wireguard %s: the tunnel may go on under its last key: run wg set %s peer %s remove",
                       self._config.interface, self._config.interface, self._config.peer)  # fmt: skip

    def install(self, keys: TunnelKeys, since: float) -> None:
        """At the responder: put the key in place, the session goes on. At the initiator: keep it for ``activate``."""
        if self.seen(keys.key_id):
            raise LocalProtocolError(f"key {key_id_text(keys.key_id)} was installed before")
        self._seen.add(keys.key_id)
        self._installed[keys.key_id] = keys.initiator_key.to_bytes(), since
        if self._role is Role.RESPONDER:
            # Without a key in place there is no session to keep, and perhaps no peer.
            self._order(keys.key_id, anew=self._in_place is None)

    def activate(self, key_id: bytes) -> None:
        """Put the key in place and force a handshake; at the responder it is in place already."""
        if key_id not in self._installed:
            raise LocalProtocolError(f"key {key_id_text(key_id)} is not installed")
        self._active = key_id
        if self._role is Role.INITIATOR or self._wish.key_id != key_id:
            self._passing = False
            self._order(key_id)  # a fresh key has no session; one that is gone back to may have its own still

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
        elif self._wish.key_id == key_id:
            # A candidate was given up: the session under the active key goes on, and so does its key.
            self._order(self._active)

    def seen(self, key_id: bytes) -> bool:
        """Whether this key was installed before."""
        return key_id in self._seen

    def holds(self, key_id: bytes) -> bool:
        """Whether the interface has this key, so that the peer may be told."""
        return self._in_place == key_id

    def check(self) -> None:
        """Compare the last handshake with the last key; alarm and ask for another rotation if none has used it."""
        now = self._clock.now()
        if now - self._checked_at < _CHECK_SECONDS:
            return
        self._checked_at = now
        if not self._settler.busy:
            self._give(self._wish)
        elif now - self._busy_since > _HANGS_SECONDS:
            self._passing = False
            self._alarm = f"wireguard {self._config.interface}: wg does not end for {_HANGS_SECONDS:g} s"

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

    # What the interface must be like, and what it is like.

    def _shutting(self, number: int) -> _Wish:
        return _Wish(number, None, self._randomness.draw(_KEY_BYTES), anew=True)

    def _shut(self) -> None:
        """Put a random key in place and end the session: no handshake succeeds, nothing passes."""
        self._passing = self._confirmed = False
        self._confirm_by = math.inf
        if not self._wish.shut:
            self._wish = self._shutting(self._wish.number + 1)
        self._in_place = None
        self._give(self._wish)

    def _order(self, key_id: bytes | None, *, anew: bool | None = None) -> None:
        """Put a key in place. Without ``anew`` the session goes on if it is under this key, else another begins."""
        assert key_id is not None
        session = self._session[1] if anew is None and self._session[0] == key_id else 0
        # A change that was overtaken before it was carried out still ends the session, if it was to.
        overtaken = self._wish.anew and self._in_place != self._wish.key_id
        anew = not session if anew is None else anew or overtaken
        self._wish = _Wish(self._wish.number + 1, key_id, self._installed[key_id][0], anew, session)
        self._in_place, self._confirmed = None, False
        self._confirm_by = self._clock.now() + _CONFIRM_SECONDS
        self._give(self._wish)

    def _give(self, wish: _Wish) -> None:
        if not self._settler.busy:
            self._busy_since = self._clock.now()
        self._settler.wish(wish)

    def _settled(self, wish: _Wish, result: _Seen | EncryptorUnavailable) -> None:
        self._busy_since = self._clock.now()
        if wish is not self._wish:
            return  # overtaken
        if isinstance(result, EncryptorUnavailable):
            last = "; the last key may still be in use: it is tried again" if wish.shut else ""
            self._alarm, self._in_place, self._confirmed, self._passing = f"{result}{last}", None, False, False
            self._ask_again(self._clock.now())
            return
        self._transfer = result.transfer
        if wish.key_id is None:
            self._passing, self._alarm = False, None
            return
        if result.before is not None:
            self._handshake_before = result.before
        if self._in_place is None:
            self._in_place = wish.key_id
            self._on_in_place(wish.key_id)
        if result.goes_on:
            self._confirm()
        elif wish.session and result.before is not None:
            self._passing = False  # the session was another's, and was ended
        self._judge(wish.key_id, result.handshake)
        if self._confirmed:
            self._session = wish.key_id, result.handshake

    def _judge(self, key_id: bytes, handshake: int) -> None:
        now = self._clock.now()
        if not self._confirmed and handshake not in (0, self._handshake_before):
            self._confirm()
        elif not self._confirmed and now >= self._confirm_by:
            self._passing = False
            self._alarm = (
                f"wireguard {self._config.interface}: no handshake under key {key_id_text(key_id)} for "
                f"{_CONFIRM_SECONDS:g} s: nothing passes; check the peer's agent, its interface, UDP between the sites"
            )
            self._ask_again(now)

    def _confirm(self) -> None:
        self._confirmed, self._passing, self._confirm_by, self._alarm = True, True, math.inf, None
        self._tell_drained()

    def _tell_drained(self) -> None:
        if self._draining is not None and self._confirmed and self._in_place != self._draining:
            key_id, self._draining = self._draining, None
            self._on_drained(key_id)

    def _ask_again(self, now: float) -> None:
        if self._active is not None and (now >= self._confirm_by or math.isinf(self._confirm_by)):
            self._confirm_by = now + _CONFIRM_SECONDS
            if self._in_place is None and self._role is Role.INITIATOR:
                self._on_not_taken(self._active)
            else:
                self._on_nearly_used(self._active)

    # Off the event loop.

    def _carry_out(self, wish: _Wish) -> _Seen:
        """Set the peer if it is not at this wish, then look. After a failure nothing is taken for granted."""
        wg, config = self._wg, self._config
        before: int | None = None
        goes_on = False
        try:
            if self._carried_out != wish.number:
                anew = wish.anew or (self._carried_out is None and not wish.session)
                last = 0 if anew else wg.latest_handshake()  # of a peer that was removed meanwhile: 0
                goes_on = 0 < last == wish.session
                anew = anew or (wish.session > 0 and not goes_on)
                before = 0 if anew else last
                endpoint = None if wish.shut else config.endpoint  # to shut, nothing is looked up
                again = (config.allowed_ips, config.keepalive, endpoint) if anew else None
                wg.set_peer(wish.preshared, again)
                self._carried_out = wish.number
            return _Seen(before, wg.latest_handshake(), wg.transfer(), goes_on)
        except EncryptorUnavailable:
            self._carried_out = None
            raise
