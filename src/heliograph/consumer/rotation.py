"""The rotation of a tunnel's keys: what both roles hold, are told and ask for.

    initiator                              responder
    FetchKey
    Prepare(key_ID, proof)      ------->   FetchKeyWithId, check, Install
    Install, Activate           <-------   Ready(key_ID, proof)
    Commit(key_ID, proof)       ------->   Activate
    Drain the old generation    <-------   Confirm(key_ID, proof)    Drain the old generation

``initiator.step`` and ``responder.step`` decide the transitions; this file knows neither. Time enters by ``Tick`` only
and decides how long to wait, never whether a key is good: a key is activated by the peer's proof alone, and the record
layer enforces ages and limits once more by itself.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Final

from heliograph.consumer.keys import Cipher, Proven, TunnelKeys, check_proof
from heliograph.consumer.messages import Message
from heliograph.errors import ConfigurationError
from heliograph.types import DeliveredKey

# Our choice: a mistyped limit is no limit. A day is far beyond any key's use.
_KEY_AGE_MAX_SECONDS: Final = 86_400.0

__all__ = [
    "Action",
    "Activate",
    "ControlDown",
    "ControlUp",
    "Drain",
    "Drained",
    "Event",
    "FetchKey",
    "FetchKeyWithId",
    "Held",
    "Install",
    "Installed",
    "KeyFetched",
    "KeyRefused",
    "LimitReached",
    "NotTaken",
    "Received",
    "Reconnect",
    "Retire",
    "RotationLimits",
    "Send",
    "Tick",
    "drop_aged",
    "drop_drained",
]


@dataclass(frozen=True, slots=True)
class RotationLimits:
    """How long things take, in seconds. Raises ConfigurationError if contradictory.

    ``rekey_seconds``: a new key after so long; ``max_key_age_s``: without a new key nothing is sent or accepted any
    more; ``overlap_seconds``: how long the old generation is accepted after the new one is confirmed;
    ``fetch_seconds``, ``answer_seconds``: patience with the key manager and with the peer; ``resend_seconds``: between
    two sendings of the same message; ``retry_seconds``, ``retry_max_seconds``: from a failed rotation to the next,
    doubling, so that a lying peer or a forger costs few keys. ``cipher``: what the keys are derived for.
    """

    rekey_seconds: float = 60.0
    max_key_age_s: float = 300.0
    overlap_seconds: float = 30.0
    fetch_seconds: float = 30.0
    answer_seconds: float = 10.0
    resend_seconds: float = 1.0
    retry_seconds: float = 1.0
    retry_max_seconds: float = 10.0
    cipher: Cipher = Cipher.AES_256_GCM

    def __post_init__(self) -> None:
        for name in self.__slots__:
            if name == "cipher":
                continue
            value = getattr(self, name)
            if not (math.isfinite(value) and value > 0):
                raise ConfigurationError(f"{name} = {value}: must be a positive number of seconds")
        if self.max_key_age_s > _KEY_AGE_MAX_SECONDS:
            raise ConfigurationError(
                f"max_key_age_s = {self.max_key_age_s}: at most {_KEY_AGE_MAX_SECONDS:g} seconds, a day"
            )
        if self.rekey_seconds >= self.max_key_age_s:
            raise ConfigurationError(
                f"rekey_seconds = {self.rekey_seconds} is not below max_key_age_s = {self.max_key_age_s}: "
                "the tunnel would stop before each rotation; lower rekey_seconds"
            )


@dataclass(frozen=True, slots=True)
class Installed:
    """One generation as the rotation sees it.

    ``since``: when its fetch began or, at the responder, ended; ``previous``: the key_ID it replaces.
    """

    keys: TunnelKeys
    since: float
    number: int
    previous: bytes | None

    @property
    def key_id(self) -> bytes:
        """The generation's name, 16 bytes."""
        return self.keys.key_id

    def check(self, kind: Proven, number: int, offered: bytes) -> None:
        """Check a proof about this generation. Raises RemoteProtocolError."""
        check_proof(self.keys, kind, self.previous, number, offered)


@dataclass(frozen=True, slots=True)
class Held:
    """What a side holds in every state.

    ``current``: the generation we send under; ``retiring``: the one before, still accepted, at most one;
    ``number``: the highest rotation number seen; ``attempts``: fetches started, which names their results;
    ``completed``: rotations confirmed on both ends; ``wanted``: a rotation is asked for before its time;
    ``failures``: in a row; ``next_at``: nothing is tried or asked again before.
    """

    limits: RotationLimits
    now: float
    current: Installed | None = None
    retiring: Installed | None = None
    retire_by: float = math.inf
    number: int = 0
    attempts: int = 0
    completed: int = 0
    control_up: bool = False
    wanted: bool = False
    failures: int = 0
    next_at: float = -math.inf

    @property
    def rekeys(self) -> int:
        """Rotations completed on both ends, the first key not counted."""
        return max(0, self.completed - 1)


# Events: what the shell tells.
@dataclass(frozen=True, slots=True)
class Tick:
    """It is now ``now`` (seconds)."""

    now: float


@dataclass(frozen=True, slots=True)
class ControlUp:
    """A control connection to the peer stands."""


@dataclass(frozen=True, slots=True)
class ControlDown:
    """The control connection ended."""


@dataclass(frozen=True, slots=True)
class KeyFetched:
    """The key manager answered fetch number ``attempt``."""

    attempt: int
    key: DeliveredKey


@dataclass(frozen=True, slots=True)
class KeyRefused:
    """The key manager refused fetch ``attempt``. ``final``: asking again for the same key cannot help."""

    attempt: int
    final: bool


@dataclass(frozen=True, slots=True)
class Received:
    """A well-formed message came from the peer, or from someone who claims to be."""

    message: Message


@dataclass(frozen=True, slots=True)
class LimitReached:
    """The encryptor nears a limit of this generation."""

    key_id: bytes


@dataclass(frozen=True, slots=True)
class Drained:
    """Every live connection has shown a newer generation than this one."""

    key_id: bytes


@dataclass(frozen=True, slots=True)
class NotTaken:
    """The encryptor cannot use this generation, and the peer was never told to change to it."""

    key_id: bytes


Event = Tick | ControlUp | ControlDown | KeyFetched | KeyRefused | Received | LimitReached | Drained | NotTaken


# Actions: what the shell must do now, in order.
@dataclass(frozen=True, slots=True)
class FetchKey:
    """Fetch a fresh key as master; answer with KeyFetched or KeyRefused."""

    attempt: int


@dataclass(frozen=True, slots=True)
class FetchKeyWithId:
    """Fetch this key as slave; answer with KeyFetched or KeyRefused."""

    attempt: int
    key_id: bytes


@dataclass(frozen=True, slots=True)
class Send:
    """Send a message to the peer's agent; it may be lost."""

    message: Message


@dataclass(frozen=True, slots=True)
class Install:
    """Accept records under these keys, fetched at ``since``."""

    keys: TunnelKeys
    since: float


@dataclass(frozen=True, slots=True)
class Activate:
    """Send under this installed generation from the next record on."""

    key_id: bytes


@dataclass(frozen=True, slots=True)
class Drain:
    """Answer with Drained once no live connection can still bring records of this generation."""

    key_id: bytes


@dataclass(frozen=True, slots=True)
class Retire:
    """Forget this generation: nothing is sent or accepted under it any more."""

    key_id: bytes


@dataclass(frozen=True, slots=True)
class Reconnect:
    """The peer is silent: drop the control connection and dial again."""


Action = FetchKey | FetchKeyWithId | Send | Install | Activate | Drain | Retire | Reconnect


def drop_aged(held: Held, now: float) -> tuple[Held, list[Action]]:
    """Take the time and drop generations that are over an age or overlap limit: fail closed."""
    held = replace(held, now=max(held.now, now))
    actions: list[Action] = []
    if (old := held.retiring) and (held.now >= held.retire_by or _aged(old, held)):
        held = replace(held, retiring=None, retire_by=math.inf)
        actions.append(Retire(old.key_id))
    if (old := held.current) and _aged(old, held):
        held = replace(held, current=None)
        actions.append(Retire(old.key_id))
    return held, actions


def drop_drained(held: Held, key_id: bytes) -> tuple[Held, list[Action]]:
    """Retire the old generation if it is the one that is drained; anything else changes nothing."""
    if held.retiring is None or held.retiring.key_id != key_id:
        return held, []
    return replace(held, retiring=None, retire_by=math.inf), [Retire(key_id)]


def _aged(installed: Installed, held: Held) -> bool:
    return held.now - installed.since >= held.limits.max_key_age_s
