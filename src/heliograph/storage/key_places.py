"""Which keys a request means: places in the chunks of an open transaction, found and held against what is allowed."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import groupby
from operator import itemgetter

from heliograph.errors import InsufficientKeys, KeyNotFound, KeySupplyError, NotPermitted
from heliograph.protocol.audience import audience_members
from heliograph.storage.key_chunks import Chunk, KeyChanges, Place, Run
from heliograph.storage.key_rows import KEPT, RELEASED, WAITING

__all__ = ["Miscounted", "held", "kept_beside", "kept_of", "nobody_waits", "oldest", "runs_of"]


class Miscounted(Exception):
    """A pool's row counts keys that its chunks do not have: one of them was altered. It is counted anew."""


def runs_of(places: Iterable[Place]) -> list[Run]:
    """Return places gathered: those that follow each other in one chunk are a run."""
    return [(chunk, [at for _, at in same]) for chunk, same in groupby(places, key=itemgetter(0))]


def oldest(changes: KeyChanges, master: str, slave: str, size: int, number: int, keep: int, since: float) -> list[Run]:
    """Return the ``number`` oldest keys of ``size`` bytes owned for the pair, if ``keep`` more stay.

    Raises InsufficientKeys, Miscounted.
    """
    audience = changes.audience(master, slave, size, owner_here=True)
    stored = changes.deliverable(audience)
    if audience is not None and stored >= number + keep:
        runs: list[Run] = []
        some_only = since != float("-inf")  # then ``stored`` counts keys that are too old as well
        wanted, taken = (number + keep if some_only else number), 0
        for chunk in changes.oldest(audience, since):
            # Of what must stay it is enough that it is there.
            waiting = chunk.waiting(wanted - taken)
            if taken < number and waiting:
                runs.append((chunk, waiting[: number - taken]))
            taken += len(waiting)
            if taken == wanted:
                return runs
        if not some_only and taken < number:
            changes.count_anew(audience.number)
            raise Miscounted(
                f"the store counted {stored} keys of {8 * size} bits for this pair and has {taken} of them: a row was "
                "altered; it is counted anew, ask again"
            )
        stored = taken
    raise InsufficientKeys(f"insufficient keys: {number} asked for, {max(0, stored - keep)} stored; try again later")


def held(changes: KeyChanges, slave: str, master: str, key_ids: Sequence[str]) -> list[Place]:
    """Return the places of keys held for ``slave``, in the order named; all or none.

    A key of a group is held for each of its slaves of this site until that one has fetched it.
    Raises NotPermitted if one was allocated to other slave SAEs (ETSI GS QKD 014 5.4), and stays so when the key is
    gone; KeyNotFound if one is not here for this pair, KeySupplyError for a repeated or absent key_ID.
    """
    if not key_ids or len({key_id.lower() for key_id in key_ids}) != len(key_ids):
        raise KeySupplyError("key_IDs: at least one is needed, and each only once")
    places: list[Place] = []
    for key_id in key_ids:
        found = changes.find(key_id)
        if found is None:
            continue
        if found[0].slave != slave and slave not in audience_members(found[0].slave):
            raise NotPermitted("one or more keys specified were not allocated to this SAE")
        if found[0].master == master and _waits_for(changes, found, slave):
            places.append(found)
    if len(places) < len(key_ids):
        raise KeyNotFound("one or more keys specified are not found on KME")
    return places


def _waits_for(changes: KeyChanges, place: Place, slave: str) -> bool:
    chunk, at = place
    if chunk.fates[at] != (RELEASED if chunk.owner_here else WAITING):
        return False
    if not chunk.fits:
        return True  # which of its keys it is nobody can say any more; opening it sets them aside
    # A pair's key: the row itself is the one copy.
    return chunk.slave == slave or slave in changes.unserved(chunk.key_id(at))


def nobody_waits(changes: KeyChanges, runs: Sequence[Run]) -> tuple[list[Run], list[Run]]:
    """Return the places of which no slave of this site has a share to fetch, and the others."""
    over: list[Run] = []
    waited_for: list[Run] = []
    for chunk, places in runs:
        left = {at for at in places if changes.unserved(chunk.key_id(at))} if chunk.is_group else set[int]()
        over.append((chunk, [at for at in places if at not in left] if left else places))
        waited_for.append((chunk, [at for at in places if at in left] if left else []))
    return over, waited_for


def kept_beside(changes: KeyChanges, chunk: Chunk) -> list[Place]:
    """Return the places of all keys that are still here and hang on the same segment key as those of ``chunk``."""
    # A row without a segment, but with keys, was altered: it hangs on none, and is alone.
    chunks = [chunk] if chunk.segment is None else changes.chunks("WHERE key_chunks.segment = ?", (chunk.segment,))
    return [(beside, at) for beside in chunks for at, fate in enumerate(beside.fates) if fate in KEPT]


def kept_of(changes: KeyChanges, epoch: int, block: int) -> list[Place]:
    """Return the places of a block's keys that are still here."""
    chunks = changes.chunks(
        "WHERE key_chunks.segment = (SELECT segment FROM key_segments WHERE epoch = ? AND block = ?)", (epoch, block)
    )
    return [(chunk, at) for chunk in chunks for at, fate in enumerate(chunk.fates) if fate in KEPT]
