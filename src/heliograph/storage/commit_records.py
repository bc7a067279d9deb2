"""Blocks in doubt and their keys: each step of the commit protocol is one transaction over blocks, pads and keys."""

from __future__ import annotations

import dataclasses
import json
import sqlite3
from collections.abc import Callable, Sequence
from typing import Protocol

from heliograph.authentication.assurance import assurance
from heliograph.authentication.bootstrap import is_bootstrap_block
from heliograph.authentication.link_keys import LINK_KEYS_BITS
from heliograph.authentication.pads import PadRole
from heliograph.bits import BitString
from heliograph.errors import LocalProtocolError
from heliograph.protocol.cutting import CutKey, cut_block
from heliograph.protocol.records import (
    BlockReport,
    CommitRecord,
    CommittedLocal,
    DecidedAbort,
    DecidedCommit,
    ObeyedAbort,
    ObeyedCommit,
    PeerAcknowledged,
    PeerSettled,
    StoredCommitment,
)
from heliograph.protocol.registration import LinkRegistration
from heliograph.storage import pad_ledger
from heliograph.storage.database import Database
from heliograph.storage.keys import NewKey
from heliograph.storage.link_records import LinkRecords
from heliograph.storage.store_seal import StoreSeal
from heliograph.types import BlockId

__all__ = ["SCHEMA", "BlockKeys", "CommitRecords"]

SCHEMA = """
CREATE TABLE IF NOT EXISTS link_blocks(
  epoch INTEGER NOT NULL, block INTEGER NOT NULL, stage TEXT NOT NULL, made_key INTEGER NOT NULL DEFAULT 0,
  length INTEGER NOT NULL DEFAULT 0, sealed_secret BLOB, report TEXT NOT NULL DEFAULT '{}',
  refill_for TEXT NOT NULL DEFAULT '[]', key_ids TEXT NOT NULL DEFAULT '[]', wire BLOB NOT NULL,
  PRIMARY KEY(epoch, block)) WITHOUT ROWID;
"""
_WIRES_KEPT_BLOCKS = 1024  # our choice: how long our last word on a block can be repeated


class BlockKeys(Protocol):
    """Where a committed block's keys go: this file for good, or on their way to a delivery server."""

    def add(self, cursor: sqlite3.Cursor, epoch: int, block: int, rows: Sequence[NewKey], metadata: str = "{}") -> None:
        """Store them inside the caller's transaction."""

    def acknowledge(self, cursor: sqlite3.Cursor, epoch: int, block: int) -> int:
        """Note that the peer has durably acknowledged their allocation."""


_STORED_AT = "stored_at"  # seconds; this site's own, so no part of what both sites report alike


class CommitRecords:
    """Carries out ``Persist``. A secret is in this table from the commit until it is cut into pads and keys."""

    def __init__(
        self,
        database: Database,
        links: LinkRecords,
        keys: BlockKeys,
        registration: LinkRegistration,
        *,
        is_transmitter: bool,
        now: Callable[[], float],
        seal: StoreSeal | None = None,
        hand_over: Callable[[], object] | None = None,
    ) -> None:
        """``hand_over``: brings new keys to where they are delivered, before the peer is told of them (ADR 0047)."""
        self._database = database
        self._links = links
        self._keys = keys
        self._registration = registration
        self._is_transmitter = is_transmitter
        self._now = now
        self._seal = seal
        self._hand_over = hand_over
        database.define(SCHEMA)

    def persist(self, record: CommitRecord) -> None:
        """Make one step durable, whole or not at all; the pads it used go in the same transaction.

        Raises StoreUnavailable, LocalProtocolError.
        """
        with self._database.transaction() as cursor:
            self._persist(cursor, record)
            mark = self._seal.mark(cursor) if self._seal else 0
        if self._seal:
            self._seal.witness(mark)
        if self._hand_over is not None and isinstance(record, ObeyedCommit | PeerAcknowledged | PeerSettled):
            # If this fails, nothing is sent: the link comes back once it succeeds, and then repeats what it owes.
            self._hand_over()

    def _persist(self, cursor: sqlite3.Cursor, record: CommitRecord) -> None:
        (epoch,) = cursor.execute("SELECT epoch FROM link_state").fetchone()
        match record:
            case CommittedLocal(block, secret, report, wire):
                self._store_secret(cursor, epoch, block, "local", secret, report, wire)
            case DecidedCommit(block, secret, report, refill_for, key_ids, wire):
                self._store_secret(cursor, epoch, block, "decided", secret, report, wire)
                cursor.execute(
                    "UPDATE link_blocks SET made_key = 1, refill_for = ?, key_ids = ? WHERE epoch = ? AND block = ?",
                    (json.dumps(refill_for), json.dumps(key_ids), epoch, block),
                )
                self._count(cursor, epoch, block)
                if is_bootstrap_block(block):
                    # The participant may come back with the new keys before its acknowledgement is here.
                    self._links.door.add(cursor, block, secret[:LINK_KEYS_BITS].to_bytes())
                self._links.erase_stored(cursor, epoch, block, PadRole.DECISION)
            case DecidedAbort(block, wire):
                cursor.execute(
                    "INSERT INTO link_blocks(epoch, block, stage, wire) VALUES (?, ?, 'ended', ?)",
                    (epoch, block, wire),
                )
                self._end(cursor, epoch, block, PadRole.DECISION)
            case ObeyedCommit(block, refill_for, peer_key_ids, own_key_ids, wire):
                self._stage(cursor, epoch, block, "local", "obeyed", wire)
                self._cut(cursor, epoch, block, refill_for, own_key_ids, peer_key_ids)
                self._shut_bootstrap(cursor, block)  # the decider has the new keys since before it decided
                cursor.execute("UPDATE link_blocks SET made_key = 1 WHERE epoch = ? AND block = ?", (epoch, block))
                self._count(cursor, epoch, block)
                self._links.erase_stored(cursor, epoch, block, PadRole.ACKNOWLEDGEMENT)
            case ObeyedAbort(block, wire):
                self._stage(cursor, epoch, block, "local", "ended", wire)
                self._end(cursor, epoch, block, PadRole.ACKNOWLEDGEMENT)
            case PeerAcknowledged(block, peer_key_ids=peer_key_ids, settlement=wire):
                refill_for, key_ids = self._decided(cursor, epoch, block)
                self._stage(cursor, epoch, block, "decided", "ended", wire)
                self._cut(cursor, epoch, block, refill_for, key_ids, peer_key_ids)
                self._keys.acknowledge(cursor, epoch, block)
                self._shut_bootstrap(cursor, block)
                self._end(cursor, epoch, block, PadRole.SETTLEMENT)
            case PeerSettled(block):
                self._stage(cursor, epoch, block, "obeyed", "ended", b"")
                self._keys.acknowledge(cursor, epoch, block)
                self._end(cursor, epoch, block, PadRole.SETTLEMENT)

    def _shut_bootstrap(self, cursor: sqlite3.Cursor, block: int) -> None:
        """Let nobody in by an older generation any more: the peer is known to have this one."""
        if is_bootstrap_block(block):
            self._links.door.use(cursor, block)
            self._links.door.close_older(cursor, block)

    def in_doubt(self) -> list[StoredCommitment]:
        """Return the epoch's blocks whose last word is not known to have arrived, or may have to be repeated.

        Whoever starts from this list holds none of the tags made before it: pads of messages never stored are as new.
        Doubts of older epochs were ended by an operator: their secrets are destroyed here.
        """
        self._links.forget_unstored()
        with self._database.transaction() as cursor:
            cursor.execute(
                "UPDATE link_blocks SET sealed_secret = NULL, wire = x'' "
                "WHERE epoch < (SELECT epoch FROM link_state) AND (sealed_secret IS NOT NULL OR length(wire) > 0)"
            )
        with self._database.reading() as cursor:
            rows = cursor.execute(
                "SELECT block, stage, refill_for, length, wire FROM link_blocks "
                "WHERE epoch = (SELECT epoch FROM link_state) AND length(wire) > 0 ORDER BY block"
            ).fetchall()
        return [
            StoredCommitment(BlockId(block), stage, len(json.loads(refill_for)), length, bytes(wire))
            for block, stage, refill_for, length, wire in rows
        ]

    def doubtful(self) -> bool:
        """Return whether the fate of a block of the epoch hangs on the peer's next word."""
        with self._database.reading() as cursor:
            row = cursor.execute(
                "SELECT 1 FROM link_blocks WHERE epoch = (SELECT epoch FROM link_state) AND stage <> 'ended' LIMIT 1"
            ).fetchone()
        return row is not None

    def assigned(self) -> int:
        """Return the highest block number of the epoch that has, or was promised, pads."""
        with self._database.reading() as cursor:
            rows = cursor.execute(
                "SELECT refill_for FROM link_blocks WHERE epoch = (SELECT epoch FROM link_state) AND stage = 'decided'"
            ).fetchall()
        promised = [int(number) for (text,) in rows for number in json.loads(text)]
        return max([self._links.assigned(), *promised])

    def committed_blocks(self) -> list[tuple[int, int, dict[str, object]]]:
        """Return (epoch, block, report) of every block that made a key here, for reports and audits."""
        with self._database.reading() as cursor:
            rows = cursor.execute(
                "SELECT epoch, block, report FROM link_blocks WHERE made_key = 1 ORDER BY epoch, block"
            ).fetchall()
        return [(epoch, block, _without_stamp(report)[0]) for epoch, block, report in rows]

    def _store_secret(
        self,
        cursor: sqlite3.Cursor,
        epoch: int,
        block: int,
        stage: str,
        secret: BitString,
        report: BlockReport,
        wire: bytes,
    ) -> None:
        sealed = self._database.vault.seal(secret.to_bytes(), _context(epoch, block))
        # Every key says for its life what its secrecy rests on: this goes with it as metadata (security.md 7).
        (bootstrap,) = cursor.execute("SELECT bootstrap FROM link_state").fetchone()
        rests_on = {
            "bootstrap": bootstrap,
            "epoch": epoch,
            "mac": self._registration.mac,
            "assurance": assurance(bootstrap, self._registration.mac),
        }
        document = {**dataclasses.asdict(report), **rests_on, _STORED_AT: self._now()}
        cursor.execute(
            "INSERT INTO link_blocks(epoch, block, stage, length, sealed_secret, report, wire) "
            "VALUES (?, ?, ?, ?, ?, ?, ?)",
            (epoch, block, stage, len(secret), sealed, json.dumps(document), wire),
        )

    @staticmethod
    def _stage(cursor: sqlite3.Cursor, epoch: int, block: int, before: str, after: str, wire: bytes) -> None:
        changed = cursor.execute(
            "UPDATE link_blocks SET stage = ?, wire = ? WHERE epoch = ? AND block = ? AND stage = ?",
            (after, wire, epoch, block, before),
        ).rowcount
        if changed != 1:
            raise LocalProtocolError(f"block {block} is not in stage {before!r}")

    @staticmethod
    def _decided(cursor: sqlite3.Cursor, epoch: int, block: int) -> tuple[tuple[int, ...], tuple[str, ...]]:
        refill_for, key_ids = cursor.execute(
            "SELECT refill_for, key_ids FROM link_blocks WHERE epoch = ? AND block = ?", (epoch, block)
        ).fetchone()
        return tuple(json.loads(refill_for)), tuple(json.loads(key_ids))

    def _cut(
        self,
        cursor: sqlite3.Cursor,
        epoch: int,
        block: int,
        refill_for: tuple[int, ...],
        own_key_ids: tuple[str, ...],
        peer_key_ids: tuple[str, ...],
    ) -> None:
        """Turn the stored secret into pads and keys and erase it, in the transaction that makes the commit known."""
        length, sealed, report = cursor.execute(
            "SELECT length, sealed_secret, report FROM link_blocks WHERE epoch = ? AND block = ?", (epoch, block)
        ).fetchone()
        secret = BitString(self._database.vault.unseal(sealed, _context(epoch, block)), length)
        cut = cut_block(block, secret, len(refill_for), self._registration)
        if is_bootstrap_block(block):
            self._links.door.add(cursor, block, cut.link_keys)
            self._links.door.use(cursor, block)
            self._links.retire_bootstrap(cursor, epoch, block)
        for number, pad_set in zip(refill_for, cut.pad_sets, strict=True):
            self._links.insert_pad_set(cursor, epoch, number, pad_set)
        own, peer = cut.transmitter_keys, cut.receiver_keys
        if not self._is_transmitter:
            own, peer = peer, own
        facts, stored_at = _without_stamp(report)
        # Keys are as old as their block: it was stored here, and at the peer, before either could wait for the other's
        # last word, however long that takes. One that was stored by an earlier build has no stamp.
        now = self._now() if stored_at is None else min(stored_at, self._now())
        rows = [_row(key_id, key, now, owner_here=True) for key_id, key in zip(own_key_ids, own, strict=True)]
        rows += [_row(key_id, key, now, owner_here=False) for key_id, key in zip(peer_key_ids, peer, strict=True)]
        self._keys.add(cursor, epoch, block, rows, json.dumps(facts))
        cursor.execute(
            "UPDATE link_blocks SET sealed_secret = NULL, key_ids = '[]' WHERE epoch = ? AND block = ?", (epoch, block)
        )
        pad_ledger.count_refill(cursor, len(refill_for))

    @staticmethod
    def _count(cursor: sqlite3.Cursor, epoch: int, block: int) -> None:
        (text,) = cursor.execute(
            "SELECT report FROM link_blocks WHERE epoch = ? AND block = ?", (epoch, block)
        ).fetchone()
        report = json.loads(text)
        eps = report["eps_sec"] + report["eps_cor"]
        cursor.execute("UPDATE link_state SET committed = committed + 1, eps_total = eps_total + ?", (eps,))

    def _end(self, cursor: sqlite3.Cursor, epoch: int, block: int, last_used: PadRole) -> None:
        self._links.erase_stored(cursor, epoch, block, last_used)
        self._links.destroy_pad_set(cursor, block)
        cursor.execute("UPDATE link_blocks SET sealed_secret = NULL WHERE epoch = ? AND block = ?", (epoch, block))
        cursor.execute(
            "UPDATE link_blocks SET wire = x'' WHERE stage = 'ended' AND (epoch < ? OR block < ?)",
            (epoch, block - _WIRES_KEPT_BLOCKS),
        )


def _without_stamp(report: str) -> tuple[dict[str, object], float | None]:
    facts = json.loads(report)
    stamp = facts.pop(_STORED_AT, None)
    return facts, stamp


def _row(key_id: str, key: CutKey, now: float, *, owner_here: bool) -> NewKey:
    pair = key.pair
    shares = pair.shares_here if owner_here else pair.shares_there
    return NewKey(key_id, pair.master, pair.audience, owner_here, key.material, now, shares)


def _context(epoch: int, block: int) -> bytes:
    return b"heliograph/1 block secret %d %d" % (epoch, block)
