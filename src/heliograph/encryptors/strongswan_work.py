"""How charon is brought to what the driver wishes; runs off the event loop, and can be repeated at any moment.

The initiator's associations are told apart by the connection they came up under, one for each key. A responder takes
any key that it knows, so it knows one at a time: what comes up while a key is known came up under that key.
"""

from __future__ import annotations

import hashlib
import math
import os
import re
import socket
import time
from dataclasses import dataclass, field
from typing import Any, Final

from heliograph.consumer.keys import Role
from heliograph.encryptors.charon import Association, Charon
from heliograph.encryptors.guard import refuse_clear_text
from heliograph.encryptors.strongswan_config import StrongSwanConfig
from heliograph.errors import EncryptorUnavailable

__all__ = ["CharonWork", "Seen", "Wish"]

_UUID: Final = "[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}"
_ANY_KEY: Final = "in"  # the responder's one connection
_GUARD_SECONDS: Final = 2.0  # our choice: how often the guard is looked at
_ATTEMPT_SECONDS: Final = 5.0  # our choice: how long a silent peer is waited for, before another attempt


@dataclass(frozen=True, slots=True)
class Wish:
    """How charon must be. ``key_id``, ``key``: the one preshared key it knows; ``left_s``: how long it may be used.

    ``initiate``: an association under it is to come up; ``keep``: the keys whose associations may stand, by key_ID.
    """

    key_id: str | None = None
    key: bytes = field(default=b"", repr=False)
    left_s: int = 1
    initiate: bool = False
    keep: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Seen:
    """What charon has. ``known``: the key_ID of the preshared key it knows; ``associations``: good ones, by key_ID.

    ``trouble``: why an association did not come up.
    """

    known: str | None
    associations: dict[str, list[Association]]
    trouble: str | None = None
    unguarded: bool = False  # a rule of the guard was missing, and is set again


class CharonWork:
    """Everything that one thread does with one charon, and remembers about it."""

    def __init__(self, role: Role, config: StrongSwanConfig) -> None:
        self._role: Final = role
        self._config: Final = config
        self._charon: Final = Charon(config)
        self._ours: Final = re.compile(f"{re.escape(config.name)}-({_UUID}|{_ANY_KEY})")
        self._owner: dict[str, str | None] = {}  # at the responder: an association's SPIs, the key it came up under
        self._known: str | None = None
        self._attempt: tuple[str, float] = ("", 0.0)  # at the initiator: the key and when its attempt began
        self._looked_at = -math.inf  # when the guard was looked at
        self._claimed: socket.socket | None = None

    def begin(self) -> None:
        """Guard the networks and end whatever an earlier agent left. Raises EncryptorUnavailable."""
        self._claim()
        try:
            self._guarded()
            with self._charon.session() as session:
                self._charon.introduce(session)
                self._charon.refuse_rivals(session, self._is_ours)
            self.settle(Wish())
        except BaseException:
            self.release()
            raise

    def _claim(self) -> None:
        """Be the only agent of this tunnel: two under one name would end each other's associations. Ends with us."""
        place = hashlib.sha256(f"{os.path.realpath(self._config.socket)} {self._config.name}".encode()).hexdigest()
        claim = socket.socket(socket.AF_UNIX)
        try:
            claim.bind(f"\0heliograph-{place}")  # an abstract name of Linux: it vanishes with its process
        except OSError:
            claim.close()
            raise EncryptorUnavailable(
                f"strongswan: another agent drives the tunnel {self._config.name!r} of the charon at "
                f"{self._config.socket}: end it, or give each tunnel a name of its own"
            ) from None
        self._claimed = claim

    def release(self) -> None:
        """Let another agent drive this tunnel."""
        if self._claimed is not None:
            self._claimed.close()
            self._claimed = None

    def _is_ours(self, name: str) -> bool:
        return self._ours.fullmatch(name) is not None

    def _guarded(self, *, look: bool = False) -> bool:
        """Set what is missing of the guard, now and then or, with ``look``, at once. Returns whether nothing was.

        Other programs may remove foreign rules. Raises EncryptorUnavailable, and then each time until it could be set.
        """
        now = time.monotonic()
        if not self._config.guard or (now - self._looked_at < _GUARD_SECONDS and not look):
            return True
        missing = refuse_clear_text(self._config.remote_networks, self._config.netns)
        self._looked_at = now
        return not missing

    def settle(self, wish: Wish) -> Seen:
        """Bring charon to the wish and tell what it has then. Raises EncryptorUnavailable if it does not answer."""
        charon = self._charon
        # 0. The guard, before a key is loaded under which anything could come up.
        guarded = self._guarded(look=wish.key_id is not None and wish.key_id != self._known)
        with charon.session() as session:
            # 1. What must not be: associations without a key of the link, or of a key that is not kept.
            for one in self._associations(session):
                key_id = self._key_of(one)
                if key_id not in wish.keep or (one.established and not one.mixed):
                    charon.terminate(session, one.identifier)
            # 2. The preshared keys: the one that is wished, and none besides.
            self._arrange_keys(session, wish)
            # 3. The association under it.
            trouble = None
            if wish.initiate and wish.key_id is not None:
                trouble = self._bring_up(session, wish.key_id)
            good: dict[str, list[Association]] = {}
            for one in self._associations(session):
                key_id = self._key_of(one)
                if one.good and key_id is not None and key_id in wish.keep:
                    good.setdefault(key_id, []).append(one)
            return Seen(self._known, good, trouble, unguarded=not guarded)

    def _arrange_keys(self, session: Any, wish: Wish) -> None:  # noqa: ANN401
        charon, wanted = self._charon, wish.key_id
        names = {match[1]: name for name in charon.known_keys(session) if (match := self._ours.fullmatch(name))}
        for key_id, name in names.items():
            if key_id != wanted:
                charon.forget_key(session, name)
        if self._known != wanted or wanted not in names:
            # Whatever exists now, half-open or not, belongs to the key before: it was looked up before this moment.
            self._associations(session)
            self._known = None
        kept = {f"{self._config.name}-{key_id}" for key_id in (*wish.keep, _ANY_KEY)}
        for name in charon.connections(session):
            if self._ours.fullmatch(name) and name not in kept:
                charon.forget_connection(session, name)
        if wanted is not None and self._known is None:
            proposals = charon.introduce(session)
            charon.refuse_rivals(session, self._is_ours)
            own = self._role is Role.INITIATOR
            name = f"{self._config.name}-{wanted if own else _ANY_KEY}"
            charon.load_connection(session, name, wanted if own else None, proposals, wish.left_s)
            charon.load_key(session, f"{self._config.name}-{wanted}", wanted, wish.key)
            self._known = wanted

    def _bring_up(self, session: Any, key_id: str) -> str | None:  # noqa: ANN401
        name = f"{self._config.name}-{key_id}"
        mine = [one for one in self._associations(session) if one.connection == name]
        if any(one.good for one in mine):
            self._attempt = ("", 0.0)
            return None
        tried, began = self._attempt
        if not mine and tried == key_id:  # it was half-open when the last look ended
            self._attempt = ("", 0.0)
            return "strongswan: the peer's charon refused, or did not answer"
        if mine and tried == key_id and time.monotonic() - began < _ATTEMPT_SECONDS:
            return None  # half-open: the peer may still answer
        for one in mine:
            self._charon.terminate(session, one.identifier)
        if mine and tried == key_id:
            self._attempt = ("", 0.0)
            return f"strongswan: the peer's charon did not answer for {_ATTEMPT_SECONDS:g} s"
        self._attempt = (key_id, time.monotonic())
        try:
            with self._charon.session() as words:
                self._charon.initiate(words, name)
        except EncryptorUnavailable as why:
            mine = [one for one in self._associations(session) if one.connection == name]
            if mine:
                return None
            self._attempt = ("", 0.0)
            return str(why)
        return None

    def _associations(self, session: Any) -> list[Association]:  # noqa: ANN401
        found = self._charon.associations(session, self._is_ours)
        self._owner = {one.spis: self._owner.get(one.spis, self._known) for one in found}
        return found

    def _key_of(self, one: Association) -> str | None:
        if self._role is Role.RESPONDER:
            return self._owner[one.spis]
        match = self._ours.fullmatch(one.connection)
        return None if match is None else match[1]
