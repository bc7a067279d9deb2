"""All that is secret at a site, and whether any of it is seen anywhere, in any usual spelling."""

import base64

import numpy as np
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from heliograph.site.config import read_site
from heliograph.storage.database import Database
from heliograph.storage.link_door import LinkDoor
from heliograph.storage.link_records import _pad_context
from heliograph.vault.filekek import FileKek
from heliograph.vault.randomness import SystemRandomness

PIECE = 12  # bytes: a secret that shows this much of itself has shown itself; chance hits are out of the question


def spellings(secret):
    """Yield the ways a key might be printed: raw, hexadecimal, base64 at each alignment, a Python literal, a list."""
    pieces = {secret[:PIECE], secret[-PIECE:], secret[len(secret) // 2 :][:PIECE]}
    for piece in pieces:
        if len(piece) < PIECE:
            continue
        yield piece
        yield piece.hex().encode()
        yield piece.hex().upper().encode()
        yield piece.hex(":").encode()
        yield repr(piece)[2:-1].encode()
        yield repr(list(piece))[1:-1].encode()
        for shift in range(3):
            whole = piece[shift : shift + (PIECE - shift) // 3 * 3]
            yield base64.b64encode(whole)
            yield base64.urlsafe_b64encode(whole)


def sightings(secrets, places):
    """Where a secret is seen, by the name of the place; the spellings are looked up 8 bytes at a time."""
    wanted = {}
    for number, secret in enumerate(secrets):
        for text in spellings(secret):
            wanted.setdefault(text[:8], []).append((text, number))
    maybe = np.zeros(1 << 20, bool)
    maybe[np.frombuffer(b"".join(wanted), "<u8") % len(maybe)] = True
    found = set()
    for name, content in places.items():
        for shift in range(min(8, len(content) - 7)):
            there = np.frombuffer(content, "<u8", (len(content) - shift) // 8, shift)
            for at in (np.flatnonzero(maybe[there % len(maybe)]) * 8 + shift).tolist():
                for text, number in wanted.get(content[at : at + 8], ()):
                    if content.startswith(text, at):
                        found.add((name, number))
    return found


def stored_secrets(rehearsal, name):
    """Everything secret that a stopped site holds, opened with its key-encryption key."""
    config = read_site(rehearsal.sites[name])
    kek_file = config.path(config.file.kek)
    kek = FileKek(kek_file, SystemRandomness())
    database = Database(config.path(config.file.store), kek)
    secrets = [kek_file.read_bytes()]
    with database.reading() as cursor:
        for epoch, block, role, sealed in cursor.execute(
            "SELECT epoch, block, role, sealed FROM link_pads WHERE sealed IS NOT NULL"
        ):
            secrets.append(kek.unseal(bytes(sealed), _pad_context(epoch, block, role)))
        epoch, filters = cursor.execute("SELECT epoch, filters FROM link_state").fetchone()
        if filters is not None:  # those of the book's slot, until the first block has ended the bootstrap
            opened = kek.unseal(bytes(filters), b"heliograph/1 filters %d" % epoch)
            secrets += [opened[:32], opened[32:]]
        generations = [row[0] for row in cursor.execute("SELECT generation FROM link_keys")]
        for epoch, block, sealed in cursor.execute("SELECT epoch, block, sealed_key FROM key_segments"):
            context = b"heliograph key segment 1" + epoch.to_bytes(8, "big") + block.to_bytes(8, "big")
            secrets.append(kek.unseal(bytes(sealed), context))
    door = LinkDoor(database)
    for own in filter(None, map(door.keys, generations)):
        secrets += [own.resync_key, own.filter_to_receiver, own.filter_to_transmitter, own.chain_key]
    database.close()
    if config.file.link.pki is not None:
        signing = load_pem_private_key(config.path(config.file.link.pki.key).read_bytes(), None)
        numbers = getattr(signing, "private_numbers", None)
        secrets.append(numbers().private_value.to_bytes(32, "big") if numbers else signing.private_bytes_raw())
    return secrets
