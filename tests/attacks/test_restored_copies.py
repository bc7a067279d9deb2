"""A copy of the store, whenever it was taken and with or without its anchors, never delivers or spends again."""

import os
import shutil
import uuid
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from heliograph.authentication.anchors.psk import make_book, secret_size, slot_range, slot_secrets
from heliograph.authentication.pads import PadAddress, PadRole
from heliograph.errors import InsufficientKeys, RollbackDetected
from heliograph.site.store import open_store, reopen_for_operator
from heliograph.storage.database import Database
from heliograph.storage.keys import NewKey
from heliograph.vault.filekek import FileKek
from heliograph.vault.randomness import SystemRandomness

PAIR = ("sae-a", "sae-b")


class Copyable:
    """A store on disk that can be copied while it is open, as a backup of a running machine would."""

    def __init__(self, where):
        self.where = where
        (where / "store").mkdir(mode=0o700)
        self.kek = FileKek.create(where / "kek", SystemRandomness())
        self.open()

    def open(self):
        self.database = Database(self.where / "store" / "site.db", self.kek)
        try:
            self.store = open_store(self.database, self.where / "anchor", SystemRandomness())
        except BaseException:
            self.database.close()
            raise

    def stock(self, number):
        rows = [
            NewKey(str(uuid.UUID(int=i)), *PAIR, owner_here=True, material=bytes([i]) * 32, created_at=0.0)
            for i in range(number)
        ]
        with self.database.transaction() as cursor:
            self.store.keys.add(cursor, 1, 1, rows)
            self.store.keys.acknowledge(cursor, 1, 1)

    def copy(self, name):
        self.database.checkpoint()
        shutil.copytree(self.where / "store", self.where / name)

    def put_back(self, name):
        self.database.close()
        shutil.rmtree(self.where / "store")
        shutil.copytree(self.where / name, self.where / "store")


@pytest.fixture
def site(tmp_path):
    tmp_path.chmod(0o700)
    here = Copyable(tmp_path)
    yield here
    here.database.close()


def test_a_copy_of_the_running_store_put_back_after_a_crash_delivers_nothing(site):
    site.stock(3)
    site.copy("backup")
    assert len(site.store.keys.deliver_to_master(*PAIR, 2, 0.0)) == 2
    site.put_back("backup")
    with pytest.raises(RollbackDetected, match="old copy"):
        site.open()
    reopened = Database(site.where / "store" / "site.db", site.kek)
    reopen_for_operator(reopened, site.where / "anchor", SystemRandomness())
    reopened.close()
    site.open()
    with pytest.raises(InsufficientKeys):
        site.store.keys.deliver_to_master(*PAIR, 1, 0.0)


def test_a_backup_that_left_the_anchors_out_delivers_nothing(site):
    site.stock(3)
    site.copy("backup")
    site.store.keys.deliver_to_master(*PAIR, 1, 0.0)
    site.put_back("backup")
    for anchor in site.where.glob("anchor*"):
        anchor.unlink()
    site.database.close()
    # The copy was taken at the first opening: what it remembers is one use, and one more is enough to be refused.
    site.put_back("backup")
    Path(site.where / "anchor.runs").unlink(missing_ok=True)
    site.open()
    site.store.keys.deliver_to_master(*PAIR, 1, 0.0)
    site.copy("later")
    site.put_back("later")
    for anchor in site.where.glob("anchor*"):
        anchor.unlink()
    with pytest.raises(RollbackDetected, match="its anchor is missing"):
        site.open()


def test_a_copy_taken_between_two_pads_of_one_block_spends_neither_again(site):
    book = make_book(os.urandom(secret_size()))
    start, stop = slot_range(0)
    site.store.records.open_epoch(1, slot_secrets(book[start:stop]), "psk")
    site.store.records.burn(PadAddress(1, 1, PadRole.DECIDER))
    site.copy("backup")
    site.store.records.burn(PadAddress(1, 1, PadRole.DECISION))
    site.put_back("backup")
    with pytest.raises(RollbackDetected, match="old copy"):
        site.open()


def test_deliveries_at_once_do_not_stand_in_each_others_way(site):
    site.stock(64)
    with ThreadPoolExecutor(8) as pool:
        keys = list(pool.map(lambda _: site.store.keys.deliver_to_master(*PAIR, 1, 0.0), range(64)))
    assert len({key.key_id for (key,) in keys}) == 64


def test_an_ordinary_crash_is_no_rollback(site):
    site.stock(3)
    site.store.keys.deliver_to_master(*PAIR, 1, 0.0)
    site.database.close()  # as after kill -9: nothing was said to the seal
    site.open()
    assert len(site.store.keys.deliver_to_master(*PAIR, 2, 0.0)) == 2


def test_keys_that_nobody_fetches_are_bounded_oldest_first(site):
    site.stock(5)
    assert site.store.keys.trim(*PAIR, owner_here=True, keep=2, now=1.0) == 3
    assert [key.key_id for key in site.store.keys.deliver_to_master(*PAIR, 2, 0.0)] == [
        str(uuid.UUID(int=i)) for i in (3, 4)
    ]
