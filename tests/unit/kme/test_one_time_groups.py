"""A key that several SAEs know authenticates no message between key managers."""

import os
import uuid

import pytest

from heliograph.errors import AuthenticationFailed
from heliograph.kme.groups import SaeGroup
from heliograph.kme.one_time import OneTimeKeys, read_request, take_request
from heliograph.kme.supply import Limits, SaePair, Supply
from heliograph.protocol.audience import audience_name
from heliograph.storage.database import Database
from heliograph.storage.keys import KeyRecords, NewKey
from heliograph.testing.clock import ManualClock
from heliograph.types import StoredKey
from heliograph.vault.filekek import FileKek
from heliograph.vault.randomness import SystemRandomness

SLAVES = ("sae-b", "sae-b2")


class NoAttempts:
    def attempt(self, key_ids, now):  # noqa: ARG002
        return 1


@pytest.mark.parametrize(("audience", "shares"), [("sae-b", ()), (audience_name(SLAVES), SLAVES)])
def test_a_member_of_a_group_cannot_write_in_anothers_name(tmp_path, audience, shares):
    FileKek.create(tmp_path / "kek", SystemRandomness())
    database = Database(":memory:", FileKek(tmp_path / "kek", SystemRandomness()))
    store = KeyRecords(database, SystemRandomness())
    rows = [NewKey(str(uuid.uuid4()), "sae-a", audience, False, os.urandom(32), 0.0, shares) for _ in range(2)]  # noqa: FBT003
    with database.transaction() as cursor:
        store.add(cursor, 1, 1, rows)
    pairs = [SaePair(slave, "sae-a", "kme-a") for slave in SLAVES]
    groups = [SaeGroup("sae-a", SLAVES, frozenset(SLAVES))]
    supply = Supply(store, "kme-b", pairs, Limits(), ManualClock(1.0), groups=groups)
    # What sae-b2 can write when it has fetched its own shares: as sae-a, to sae-b.
    known = [StoredKey(row.key_id, "sae-a", "sae-b", row.material) for row in rows]
    request = read_request(OneTimeKeys(*known).seal(b"close the stream"))
    if shares:
        with pytest.raises(AuthenticationFailed):
            take_request(request, supply, NoAttempts(), 1.0)
        assert store.counts("sae-a", audience).held == 2
        supply.check_held("sae-b", "sae-a", [row.key_id for row in rows])
    else:
        assert take_request(request, supply, NoAttempts(), 1.0)[1] == b"close the stream"
    database.close()


def test_a_message_under_keys_that_are_too_short_for_one_is_refused_and_leaves_them(tmp_path):
    """A pair may have keys of 128 bits too; half a one-time key authenticates nothing."""
    FileKek.create(tmp_path / "kek", SystemRandomness())
    database = Database(":memory:", FileKek(tmp_path / "kek", SystemRandomness()))
    store = KeyRecords(database, SystemRandomness())
    rows = [NewKey(str(uuid.uuid4()), "sae-a", "sae-b", False, os.urandom(16), 0.0) for _ in range(2)]  # noqa: FBT003
    with database.transaction() as cursor:
        store.add(cursor, 1, 1, rows)
    supply = Supply(store, "kme-b", [SaePair("sae-b", "sae-a", "kme-a")], Limits(), ManualClock(1.0))
    padded = [StoredKey(row.key_id, "sae-a", "sae-b", row.material + bytes(16)) for row in rows]
    request = read_request(OneTimeKeys(*padded).seal(b"close the stream"))
    with pytest.raises(AuthenticationFailed, match="too short"):
        take_request(request, supply, NoAttempts(), 1.0)
    supply.check_held("sae-b", "sae-a", [row.key_id for row in rows])
    database.close()
