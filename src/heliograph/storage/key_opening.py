"""Opens keys that are about to be delivered; what does not open is set aside, and never stands in the way of the rest.

A damaged key is not delivered here. At the other site its copy is nobody's either, if this site owns it: no SAE ever
learns its key_ID. If the peer owns it, the slave here is refused the key_ID that its master was given.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import groupby
from operator import itemgetter

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from heliograph.errors import StoreUnavailable
from heliograph.ports import Vault
from heliograph.storage.key_chunks import Chunk, KeyChanges, Place, kept_beside
from heliograph.storage.key_contexts import TAG_BYTES, key_context_parts, nonce
from heliograph.storage.key_rows import DAMAGED, KEPT, key_id_text
from heliograph.types import StoredKey

__all__ = ["open_keys"]


def open_keys(
    changes: KeyChanges, vault: Vault, places: Sequence[Place], now: float, *, kek_is_known: bool
) -> tuple[list[StoredKey], StoreUnavailable | None]:
    """Return the keys; or none and a refusal, with everything set aside that was altered with the first such key.

    That is all keys of its chunk that do not open, or all of its block where the block's own key does not.
    ``kek_is_known``: the vault was seen to open this store; else a block's key that does not open may be another
    store's, nothing is set aside, and StoreUnavailable is raised.
    """
    keys: list[StoredKey] = []
    for chunk, run in groupby(places, key=itemgetter(0)):
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
        found, damaged = _open(chunk, cipher, [at for _, at in run])
        if damaged is not None:
            kept = [at for at, fate in enumerate(chunk.fates) if fate in KEPT]
            lost = _set_aside(changes, [(chunk, at) for at in kept if _open(chunk, cipher, [at])[1] is not None], now)
            others = f", with {lost - 1} more of its chunk" if lost > 1 else ""
            return [], StoreUnavailable(
                f"key {chunk.key_id(damaged)} was altered in the store; it is set aside{others}"
            )
        keys += found
    return keys, None


def _set_aside(changes: KeyChanges, places: Iterable[Place], now: float) -> int:
    fresh = [(chunk, at) for chunk, at in places if chunk.fates[at] != DAMAGED]
    changes.put(fresh, DAMAGED, now)
    return len(fresh)


def _open(chunk: Chunk, cipher: AESGCM, run: Sequence[int]) -> tuple[list[StoredKey], int | None]:
    """Return the keys at these places of a chunk, or the first place whose key does not open."""
    keys: list[StoredKey] = []
    origin = chunk.epoch, chunk.block or 0
    before, after = key_context_parts(chunk.master, chunk.slave, *origin)
    master, slave, created_at, metadata = chunk.master, chunk.slave, chunk.created_at, chunk.metadata or "{}"
    ids, sealed = chunk.key_ids, chunk.ciphertexts or b""
    size = len(sealed) // len(chunk.fates)
    for at in run:
        if size != chunk.size + TAG_BYTES:  # a key of another size than its pool's is not one to hand out
            return [], at
        key_id = key_id_text(ids[16 * at : 16 * at + 16])
        bound = before + key_id.encode() + after
        try:
            material = cipher.decrypt(nonce(chunk.position(at)), sealed[at * size : at * size + size], bound)
        except (InvalidTag, ValueError):  # ValueError: shorter than a tag
            return [], at
        keys.append(StoredKey(key_id, master, slave, material, created_at, metadata, origin))
    return keys, None
