"""Sealed keys of a store become keys: whole runs of a chunk at once, since thousands a second are opened."""

from __future__ import annotations

from collections.abc import Sequence

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from heliograph.ports import Vault
from heliograph.storage.key_chunks import Chunk, KeyChanges, Run
from heliograph.storage.key_contexts import key_context_parts, nonce
from heliograph.storage.key_rows import key_id_texts
from heliograph.types import StoredKey

__all__ = ["DamagedKeyError", "open_runs"]


class DamagedKeyError(Exception):
    """The key at ``place`` of ``chunk`` does not open: it was altered in the store."""

    def __init__(self, chunk: Chunk, place: int) -> None:
        super().__init__(f"key {chunk.key_id(place)} was altered in the store")
        self.chunk = chunk
        self.place = place


def open_runs(changes: KeyChanges, runs: Sequence[Run], vault: Vault) -> list[StoredKey]:
    """Return the keys, in the order of ``runs``. Raises DamagedKeyError for the first that was altered."""
    keys: list[StoredKey] = []
    for chunk, places in runs:
        cipher = changes.cipher(chunk, vault)
        origin = chunk.epoch, chunk.block or 0
        before, after = key_context_parts(chunk.master, chunk.slave, *origin)
        # One slice and one text for all of the run; where it leaves places out, what lies between is passed over.
        low, high = min(places), max(places) + 1
        names = key_id_texts(chunk.key_ids[16 * low : 16 * high])
        size = len(chunk.ciphertexts or b"") // len(chunk.fates)
        sealed = (chunk.ciphertexts or b"")[size * low : size * high]
        starts = [at - low for at in places]
        bound = [before + names[36 * at : 36 * at + 36] + after for at in starts]
        pieces = [sealed[size * at : size * at + size] for at in starts]
        materials = _opened(cipher, chunk, places, pieces, bound)
        text, master, slave = names.decode("ascii"), chunk.master, chunk.slave
        created_at, metadata = chunk.created_at, chunk.metadata or "{}"
        keys += [
            StoredKey(text[36 * at : 36 * at + 36], master, slave, material, created_at, metadata, origin)
            for at, material in zip(starts, materials, strict=True)
        ]
    return keys


def _opened(
    cipher: AESGCM, chunk: Chunk, places: Sequence[int], pieces: Sequence[bytes], bound: Sequence[bytes]
) -> list[bytes]:
    materials: list[bytes] = []
    try:
        # Without a step of Python between two keys. What was opened before one that does not open is in the list.
        materials.extend(map(cipher.decrypt, map(nonce, chunk.positions_of(places)), pieces, bound))
    except (InvalidTag, ValueError):  # ValueError: shorter than a tag
        raise DamagedKeyError(chunk, places[len(materials)]) from None
    return materials
