"""Tables of keys at rest: up to 128 keys of one block and one audience stand in one row, a chunk (ADR 0046).

A chunk's key_IDs stay where they are when its keys have left: they are the tombstones. Its ciphertexts stand in a row
of their own, which is overwritten key by key and goes with the last one.
"""

from __future__ import annotations

__all__ = [
    "CHUNK_KEYS",
    "DAMAGED",
    "DELIVERABLE",
    "DELIVERED",
    "DISCARDED",
    "EXPIRED",
    "HANDED_OVER",
    "KEPT",
    "PENDING",
    "RELEASED",
    "SCHEMA",
    "TOTALS",
    "WAITING",
    "key_id_bytes",
    "key_id_text",
    "key_id_texts",
    "key_name",
    "names_and_fates",
]

CHUNK_KEYS = 128  # our choice: max_key_per_request by default, and a row that fits into one page

# A chunk waits for the peer's acknowledgement as a whole (security.md 8).
PENDING, DELIVERABLE = 0, 1
# What became of each key of it, one byte for each. DAMAGED: does not open, set aside. RELEASED: the master here has its
# copy, slaves of the same site have theirs still to fetch. The last four are gone; HANDED_OVER: to a delivery server.
WAITING, DAMAGED, RELEASED, DELIVERED, EXPIRED, DISCARDED, HANDED_OVER = 0, 2, 3, 4, 5, 6, 7
KEPT = (WAITING, DAMAGED, RELEASED)
_FATES = bytes([*KEPT, DELIVERED, EXPIRED, DISCARDED, HANDED_OVER])

# Columns of key_audiences that count keys, by fate; of those that wait, by the chunk's state.
TOTALS = {
    PENDING: "pending",
    DELIVERABLE: "deliverable",
    DAMAGED: "damaged",
    RELEASED: "released",
    DELIVERED: "delivered",
}

# Where the 32 digits of a UUID stand in its text.
_DIGITS_AT = [at for at in range(36) if at not in (8, 13, 18, 23)]

# Keys of one pair that differ in size are different audiences: each size is a pool of its own (ADR 0053). size: bytes.
# The views show one row a key, for tests and for whoever looks into a store; the program does not read them.
SCHEMA = """
CREATE TABLE IF NOT EXISTS key_segments(
  segment INTEGER PRIMARY KEY, epoch INTEGER NOT NULL, block INTEGER NOT NULL,
  sealed_key BLOB NOT NULL, metadata TEXT NOT NULL, UNIQUE(epoch, block));
CREATE TABLE IF NOT EXISTS key_audiences(
  audience INTEGER PRIMARY KEY, master TEXT NOT NULL, slave TEXT NOT NULL, owner_here INTEGER NOT NULL,
  size INTEGER NOT NULL, pending INTEGER NOT NULL DEFAULT 0, deliverable INTEGER NOT NULL DEFAULT 0,
  damaged INTEGER NOT NULL DEFAULT 0, released INTEGER NOT NULL DEFAULT 0, delivered INTEGER NOT NULL DEFAULT 0,
  UNIQUE(master, slave, owner_here, size));
CREATE TABLE IF NOT EXISTS key_chunks(
  chunk INTEGER PRIMARY KEY, segment INTEGER REFERENCES key_segments(segment), epoch INTEGER NOT NULL,
  audience INTEGER NOT NULL, first INTEGER NOT NULL, positions BLOB, state INTEGER NOT NULL, created_at REAL NOT NULL,
  changed_at REAL NOT NULL, waiting INTEGER NOT NULL, fates BLOB NOT NULL, key_ids BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS key_ciphertexts(
  chunk INTEGER PRIMARY KEY REFERENCES key_chunks(chunk), ciphertexts BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS key_names(
  name INTEGER NOT NULL, chunk INTEGER NOT NULL, PRIMARY KEY(name, chunk)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS key_shares(
  key_id TEXT NOT NULL, sae TEXT NOT NULL, served_at REAL, PRIMARY KEY(key_id, sae)) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS key_supply ON key_chunks(audience, state, chunk, created_at) WHERE waiting > 0;
CREATE INDEX IF NOT EXISTS key_kept ON key_chunks(segment, chunk, created_at, audience) WHERE segment IS NOT NULL;
CREATE VIEW IF NOT EXISTS key_list AS
  WITH RECURSIVE place(at) AS (SELECT 0 UNION ALL SELECT at + 1 FROM place WHERE at < 127),
  named AS (SELECT key_chunks.*, at, lower(hex(substr(key_ids, 16 * at + 1, 16))) AS h,
    CAST(hex(substr(fates, at + 1, 1)) AS INTEGER) AS fate FROM key_chunks JOIN place ON at < length(fates))
  SELECT substr(h, 1, 8) || '-' || substr(h, 9, 4) || '-' || substr(h, 13, 4) || '-' || substr(h, 17, 4) || '-'
    || substr(h, 21) AS key_id, chunk, at AS place, segment, epoch, master, slave, owner_here, state, fate, created_at,
    changed_at, substr(ciphertexts, 1 + at * (length(ciphertexts) / length(fates)),
      length(ciphertexts) / length(fates)) AS ciphertext
  FROM named JOIN key_audiences USING (audience) LEFT JOIN key_ciphertexts USING (chunk);
CREATE VIEW IF NOT EXISTS key_records AS
  SELECT key_id, chunk, place, segment, master, slave, owner_here, CASE fate WHEN 0 THEN state ELSE fate END AS state,
    created_at, ciphertext FROM key_list WHERE fate < 4;
CREATE VIEW IF NOT EXISTS key_tombstones AS
  SELECT key_id, master, slave, owner_here, epoch,
    CASE fate WHEN 4 THEN 'delivered' WHEN 5 THEN 'expired' WHEN 6 THEN 'discarded' ELSE 'handed over' END AS fate,
    changed_at AS at
  FROM key_list WHERE fate >= 4;
"""


def key_id_text(raw: bytes) -> str:
    """Return a key_ID as ETSI GS QKD 014 writes it: a UUID in lower case."""
    h = raw.hex()
    return f"{h[:8]}-{h[8:12]}-{h[12:16]}-{h[16:20]}-{h[20:]}"


def key_id_texts(raw: bytes) -> bytes:
    """Return many key_IDs as ``key_id_text`` does, in ASCII, 36 bytes each, one after the other."""
    if len(raw) == 16:
        return key_id_text(raw).encode("ascii")
    digits = raw.hex().encode("ascii")
    texts = bytearray(b"-" * (len(raw) // 16 * 36))
    for at, place in enumerate(_DIGITS_AT):  # a digit of every key_ID in one go
        texts[place::36] = digits[at::32]
    return bytes(texts)


def key_id_bytes(text: str) -> bytes | None:
    """Return a key_ID's 16 bytes, None for what is no UUID: no key has that name."""
    try:
        raw = bytes.fromhex(text.replace("-", ""))
    except ValueError:
        return None
    # 16 bytes and dashes where they belong, and nowhere else: no other text of 36 has them (fromhex skips spaces).
    sound = len(raw) == 16 and len(text) == 36 and text[8] == text[13] == text[18] == text[23] == "-"
    return raw if sound else None


def names_and_fates(key_ids: object, fates: object) -> tuple[bytes, bytearray, bool]:
    """Return what a chunk's row holds, one fate for each key_ID, and whether it held just that: else it was altered."""
    ids, found = (value if isinstance(value, bytes) else b"" for value in (key_ids, fates))
    if len(ids) == 16 * len(found) > 0 and not found.translate(None, _FATES):
        return ids, bytearray(found), True
    # As many keys as have names; where a name was cut, as have fates; never none, or nobody would come across the row.
    # Of one without a fate nobody knows that it has left.
    number = len(ids) // 16 if ids and len(ids) % 16 == 0 else max(1, len(found))
    number = min(number, CHUNK_KEYS)
    known = (fate if fate in _FATES else WAITING for fate in found[:number])
    return ids, bytearray(bytes(known).ljust(number, bytes([WAITING]))), False


def key_name(raw: bytes) -> int:
    """Return under which number a key_ID is found. Two keys may have the same one: whole key_IDs are compared then."""
    return int.from_bytes(raw[:8], "big", signed=True)
