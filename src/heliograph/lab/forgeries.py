"""Forged and changed messages against the real checks: of the methods alone, and behind a real store of pads."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from heliograph.authentication.anchors.psk import EpochSecrets
from heliograph.authentication.authenticator import Authenticator
from heliograph.authentication.bootstrap import BOOTSTRAP_BLOCKS
from heliograph.authentication.mac import PAD_BYTES
from heliograph.authentication.methods.interface import TagMethod
from heliograph.authentication.pads import PAD_SET_BYTES, PadAddress, PadRole
from heliograph.errors import AuthenticationFailed, HeliographError, PadsExhausted
from heliograph.storage.database import Database
from heliograph.storage.link_records import ATTEMPTS_MAX, LinkRecords
from heliograph.testing.anchor import MemoryAnchor
from heliograph.testing.randomness import SeededRandom
from heliograph.vault.filekek import FileKek

__all__ = ["ForgeryCount", "try_method", "try_pad_store"]

_CHANGES_FOR_EACH_PAD = 256
_MESSAGE_BYTES_MIN, _MESSAGE_BYTES_MAX = 16, 96  # long enough that no random message is the true one by chance


@dataclass(frozen=True, slots=True)
class ForgeryCount:
    """What came of it. ``honest_refused`` counts true tags that were not accepted: a check that refuses all is none."""

    tried: int = 0
    accepted: int = 0
    honest_tried: int = 0
    honest_refused: int = 0

    def __add__(self, other: ForgeryCount) -> ForgeryCount:
        return ForgeryCount(
            self.tried + other.tried,
            self.accepted + other.accepted,
            self.honest_tried + other.honest_tried,
            self.honest_refused + other.honest_refused,
        )


def _changes(dice: np.random.Generator, message: bytes, tag: bytes, other_tag: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yield endless pairs of a message and a tag, none of them the true one."""
    while True:
        at, bit = int(dice.integers(len(message))), 1 << int(dice.integers(8))
        bent = message[:at] + bytes([message[at] ^ bit]) + message[at + 1 :]
        place = int(dice.integers(len(tag)))
        bent_tag = tag[:place] + bytes([tag[place] ^ bit]) + tag[place + 1 :]
        yield bent, tag
        yield message, bent_tag
        yield bent, bent_tag
        yield message, dice.bytes(len(tag))
        yield message[:at], tag
        yield message + dice.bytes(1 + at % 16), tag
        yield message + bytes(1 + at % 16), tag
        yield message, tag[:place]
        yield message, tag + bytes(1 + at % 16)
        yield message, other_tag
        yield dice.bytes(len(message)), tag
        if message[1:] + message[:1] != message:
            yield message[1:] + message[:1], tag


def _message(dice: np.random.Generator) -> bytes:
    return dice.bytes(int(dice.integers(_MESSAGE_BYTES_MIN, _MESSAGE_BYTES_MAX + 1)))


def _refused(check: Callable[[], None]) -> bool:
    try:
        check()
    except AuthenticationFailed:
        return True
    return False


def try_method(method: TagMethod, tries: int, seed: int) -> ForgeryCount:
    """Try ``tries`` forgeries against a method's check, under many keys, and the true tag of each key once."""
    dice = np.random.default_rng(seed)
    accepted = honest = honest_refused = 0
    for first in range(0, tries, _CHANGES_FOR_EACH_PAD):
        key, other_key = dice.bytes(PAD_BYTES), dice.bytes(PAD_BYTES)
        message = _message(dice)
        tag, other_tag = method.tag(key, (message,)), method.tag(other_key, (message,))
        changes = _changes(dice, message, tag, other_tag)
        for _ in range(min(_CHANGES_FOR_EACH_PAD, tries - first)):
            forged, forged_tag = next(changes)
            accepted += not _refused(lambda m=forged, t=forged_tag, k=key: method.check(k, (m,), t))  # type: ignore[misc]
        honest += 1
        honest_refused += _refused(lambda m=message, t=tag, k=key: method.check(k, (m,), t))  # type: ignore[misc]
    return ForgeryCount(tries, accepted, honest, honest_refused)


def try_pad_store(method: TagMethod, blocks: int, seed: int) -> ForgeryCount:
    """Try as many forgeries as a real store of pads allows, on the pads of ``blocks`` blocks.

    Of each block the last pad sees every attempt used up, after which even the true tag must be refused; on the others
    the true tag comes at the last attempt and must be accepted, and then no other message under that pad.
    """
    dice = np.random.default_rng(seed)
    # Blocks after the bootstrap, whose own blocks have one method whatever is registered.
    refill = {BOOTSTRAP_BLOCKS + 1 + number: dice.bytes(PAD_SET_BYTES) for number in range(blocks)}
    count = ForgeryCount()
    with tempfile.TemporaryDirectory() as name:
        kek = FileKek.create(Path(name) / "kek", SeededRandom(seed, "kek"))
        stores = [Database(":memory:", kek) for _ in range(2)]
        try:
            maker, checker = (_authenticator(store, refill, method) for store in stores)
            for block in refill:
                for role in PadRole:
                    count += _try_pad(maker, checker, PadAddress(1, block, role), dice)
        finally:
            for store in stores:
                store.close()
    return count


def _authenticator(database: Database, refill: Mapping[int, bytes], method: TagMethod) -> Authenticator:
    records = LinkRecords(database, MemoryAnchor(), lambda: 0.0)
    records.open_epoch(1, EpochSecrets(bytes(32), bytes(32), ()), "psk")
    with database.transaction() as cursor:
        for block, pad_set in refill.items():
            records.insert_pad_set(cursor, 1, block, pad_set)
    return Authenticator(records, method)


def _try_pad(
    maker: Authenticator, checker: Authenticator, address: PadAddress, dice: np.random.Generator
) -> ForgeryCount:
    message = _message(dice)
    tag = maker.tag(address, (message,))
    exhaust = address.role is max(PadRole)
    tries = ATTEMPTS_MAX if exhaust else ATTEMPTS_MAX - 1
    changes = _changes(dice, message, tag, dice.bytes(len(tag)))
    accepted = sum(_accepted(checker, address, *next(changes)) for _ in range(tries))
    if exhaust:
        return ForgeryCount(tries + 1, accepted + _accepted(checker, address, message, tag))
    honest_refused = not _accepted(checker, address, message, tag)
    reused = _accepted(checker, address, message + b"\0", tag)
    return ForgeryCount(tries + 1, accepted + reused, 1, int(honest_refused))


def _accepted(checker: Authenticator, address: PadAddress, message: bytes, tag: bytes) -> bool:
    try:
        checker.check(address, (message,), tag)
    except (AuthenticationFailed, PadsExhausted):
        return False
    except HeliographError as why:
        raise AssertionError(f"a forgery met another refusal than a tag's: {type(why).__name__}") from why
    return True
