"""The store of the commit model: what is durable about a block, with the rules of the real stores, and no disk."""

from __future__ import annotations

from dataclasses import dataclass, fields, is_dataclass, replace

from heliograph.authentication.pads import PadRole
from heliograph.errors import LocalProtocolError
from heliograph.protocol import actions as a
from heliograph.protocol import records as r
from heliograph.types import SecretKey

STORED_ROLES = {PadRole.DECISION, PadRole.ACKNOWLEDGEMENT, PadRole.SETTLEMENT}


@dataclass(frozen=True)
class Durable:
    """What the store of a site holds about one block. ``fate``: None, "commit" or "abort", for good."""

    stage: str = ""
    wire: bytes = b""
    refills: int = 0
    fate: str | None = None
    key_ids: tuple[str, ...] = ()
    deliverable: tuple[str, ...] = ()
    held: tuple[str, ...] = ()
    erased: frozenset[PadRole] = frozenset()
    discarded: bool = False


@dataclass(frozen=True)
class Site:
    """One site: volatile machines and events in flight, durable records, and what a watcher remembers of it."""

    is_transmitter: bool
    blocks: tuple[tuple[int, object], ...]
    stores: tuple[tuple[int, Durable], ...]
    in_use: frozenset[tuple[int, PadRole]] = frozenset()
    pending: tuple[tuple[int, a.Event], ...] = ()
    crashes: int = 0
    accepted: frozenset[tuple[int, PadRole, bytes]] = frozenset()
    broken: tuple[str, ...] = ()

    def store(self, block):
        return dict(self.stores)[block]

    def with_store(self, block, durable):
        return replace(self, stores=tuple(sorted({**dict(self.stores), block: durable}.items())))


_CONTENT = {"context", "registration", "talk", "parameters", "report", "secret", "block", "detections", "seed"}


def signature(thing):
    """Reduce a state to what can differ between two states of the model."""
    if isinstance(thing, SecretKey):
        return "the secret"
    if is_dataclass(thing) and not isinstance(thing, type):
        parts = tuple(signature(getattr(thing, f.name)) for f in fields(thing) if f.name not in _CONTENT)
        return (type(thing).__name__, *parts)
    if isinstance(thing, tuple):
        return tuple(signature(item) for item in thing)
    return thing


class FakeStore:
    """Pads and Persist, with the rules of the real stores; planted bugs override one rule each."""

    def burn(self, site, block, role):
        """Return the site after the pad was handed out, or None if it may not be."""
        if role in site.store(block).erased or (block, role) in site.in_use:
            return None
        if role in STORED_ROLES:
            return replace(site, in_use=site.in_use | {(block, role)})
        return self.erase(site, block, {role})

    def attempt(self, site, block, role):
        """Return whether the pad is still there to check with."""
        return role not in site.store(block).erased

    def accepted(self, site, block, role):
        """Return the site after a tag was accepted."""
        return site if role in STORED_ROLES else self.erase(site, block, {role})

    def erase(self, site, block, roles):
        durable = site.store(block)
        site = site.with_store(block, replace(durable, erased=durable.erased | frozenset(roles)))
        return replace(site, in_use=frozenset(x for x in site.in_use if x[0] != block or x[1] not in roles))

    def discard(self, site, block):
        """Destroy the pads, but for the decision if the decider's transcript tag has left."""
        told = site.is_transmitter and PadRole.DECIDER in site.store(block).erased
        site = self.erase(site, block, {x for x in PadRole if not told or x < PadRole.DECISION})
        return site.with_store(block, replace(site.store(block), discarded=True))

    def persist(self, site, record):
        """Return the site after one step of the commit protocol was stored."""
        block = int(record.block)
        before = site.store(block)
        after, used = self.stored(before, record)
        site = site.with_store(block, after)
        site = self.erase(site, block, {x for x in PadRole if x <= used} if after.stage != "local" else set())
        if after.stage == "ended":
            site = self.erase(site, block, set(PadRole))
        if before.fate is not None and after.fate != before.fate:
            site = replace(site, broken=(*site.broken, f"{after.fate} after {before.fate}"))
        return site

    def stored(self, before, record):
        match record:
            case r.CommittedLocal(acceptance=wire):
                self.expect(before, "")
                return replace(before, stage="local", wire=wire), PadRole.PARTICIPANT
            case r.DecidedCommit(refill_for=refills, key_ids=ids, decision=wire):
                self.expect(before, "")
                after = replace(before, stage="decided", wire=wire, refills=len(refills), fate="commit", key_ids=ids)
                return after, PadRole.DECISION
            case r.DecidedAbort(decision=wire):
                self.expect(before, "")
                return replace(before, stage="ended", wire=wire, fate="abort"), PadRole.DECISION
            case r.ObeyedCommit(refill_for=refills, peer_key_ids=peer, own_key_ids=own, acknowledgement=wire):
                self.expect(before, "local")
                after = replace(before, stage="obeyed", wire=wire, fate="commit", held=peer, key_ids=own)
                return replace(after, refills=len(refills)), PadRole.ACKNOWLEDGEMENT
            case r.ObeyedAbort(acknowledgement=wire):
                self.expect(before, "local")
                return replace(before, stage="ended", wire=wire, fate="abort"), PadRole.ACKNOWLEDGEMENT
            case r.PeerAcknowledged(peer_key_ids=peer, settlement=wire):
                self.expect(before, "decided")
                return replace(
                    before, stage="ended", wire=wire, held=peer, deliverable=before.key_ids
                ), PadRole.SETTLEMENT
            case r.PeerSettled():
                self.expect(before, "obeyed")
                return replace(before, stage="ended", wire=b"", deliverable=before.key_ids), PadRole.SETTLEMENT

    @staticmethod
    def expect(durable, stage):
        if durable.stage != stage:
            raise LocalProtocolError(f"the store is in stage {durable.stage!r}, not {stage!r}")
