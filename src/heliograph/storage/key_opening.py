"""Opens keys that are about to be delivered; what does not open is set aside, and never stands in the way of the rest.

Whole runs of a chunk are opened at once, since thousands of keys a second are. A damaged key is not delivered here. At
the other site its copy is nobody's either, if this site owns it: no SAE ever learns its key_ID. If the peer owns it,
the slave here is refused the key_ID that its master was given.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from contextlib import suppress

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from heliograph.errors import StoreUnavailable
from heliograph.ports import Vault
from heliograph.storage.key_chunks import Chunk, KeyChanges, Place, Run
from heliograph.storage.key_contexts import TAG_BYTES, key_context_parts, nonce
from heliograph.storage.key_places import kept_beside, runs_of
from heliograph.storage.key_rows import DAMAGED, KEPT, key_id_texts
from heliograph.types import StoredKey

__all__ = ["ALTERED", "open_keys"]

# What an altered row makes of opening, by the column; ValueError also for a ciphertext shorter than a tag.
ALTERED = (InvalidTag, ValueError, TypeError, OverflowError, struct.error)


def open_keys(
    changes: KeyChanges, vault: Vault, runs: Sequence[Run], now: float, *, kek_is_known: bool
) -> tuple[list[StoredKey], StoreUnavailable | None]:
    """Return the keys in the order of ``runs``; or none and a refusal, the first altered key set aside with its like.

    That is all keys of its chunk that do not open, or all of its block where the block's own key does not.
    ``kek_is_known``: the vault was seen to open this store; else a block's key that does not open may be another
    store's, nothing is set aside, and StoreUnavailable is raised.
    """
    keys: list[StoredKey] = []
    for chunk, places in runs:
        try:
            cipher = changes.cipher(chunk, vault)
        except StoreUnavailable:
            if not kek_is_known:
                raise
            lost = _set_aside(changes, kept_beside(changes, chunk), now)
            return [], StoreUnavailable(
                f"the key of block {chunk.block} of epoch {chunk.epoch} was altered in the store; "
                f"its {lost} keys are set aside"
            )
        found = _open(chunk, cipher, places)
        if len(found) < len(places):
            damaged = places[len(found)]
            kept = [at for at, fate in enumerate(chunk.fates) if fate in KEPT]
            lost = _set_aside(changes, [(chunk, at) for at in kept if not _open(chunk, cipher, [at])], now)
            others = f", with {lost - 1} more of its chunk" if lost > 1 else ""
            return [], StoreUnavailable(
                f"key {chunk.key_id(damaged)} was altered in the store; it is set aside{others}"
            )
        keys += found
    return keys, None


def _set_aside(changes: KeyChanges, places: Iterable[Place], now: float) -> int:
    fresh = [(chunk, at) for chunk, at in places if chunk.fates[at] != DAMAGED]
    changes.put(runs_of(fresh), DAMAGED, now)
    return len(fresh)


def _open(chunk: Chunk, cipher: AESGCM, places: Sequence[int]) -> list[StoredKey]:
    """Return the keys at these places of a chunk, as far as the first that does not open."""
    if not places or not chunk.fits:
        return []
    try:
        return _open_run(chunk, cipher, places)
    except ALTERED:
        return []


def _open_run(chunk: Chunk, cipher: AESGCM, places: Sequence[int]) -> list[StoredKey]:
    origin = chunk.epoch, chunk.block or 0
    before, after = key_context_parts(chunk.master, chunk.slave, *origin)
    # One slice and one text for all of the run; where it leaves places out, what lies between is passed over.
    low, high = min(places), max(places) + 1
    names = key_id_texts(chunk.key_ids[16 * low : 16 * high])
    size = chunk.size + TAG_BYTES
    if len(chunk.ciphertexts or b"") != size * len(chunk.fates):  # keys of another size than their pool's stay here
        return []
    sealed = (chunk.ciphertexts or b"")[size * low : size * high]
    starts = [at - low for at in places]
    bound = [before + names[36 * at : 36 * at + 36] + after for at in starts]
    pieces = [sealed[size * at : size * at + size] for at in starts]
    materials: list[bytes] = []
    with suppress(*ALTERED):
        # Without a step of Python between two keys. What was opened before one that does not open is in the list.
        materials.extend(map(cipher.decrypt, map(nonce, chunk.positions_of(places)), pieces, bound))
    text, master, slave = names.decode("ascii"), chunk.master, chunk.slave
    created_at, metadata = chunk.created_at, chunk.metadata or "{}"
    return [
        StoredKey(text[36 * at : 36 * at + 36], master, slave, material, created_at, metadata, origin)
        for at, material in zip(starts, materials, strict=False)
    ]
