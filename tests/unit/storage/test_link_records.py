"""Pads and marks at rest: burn before use, counted attempts, rollback, epochs."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace

import pytest

from heliograph.authentication.anchors.psk import (
    make_book,
    secret_size,
    slot_range,
    slot_secrets,
)
from heliograph.authentication.authenticator import Authenticator
from heliograph.authentication.bootstrap import BOOTSTRAP_BLOCKS
from heliograph.authentication.mac import make_tag
from heliograph.authentication.pads import PAD_SET_BYTES, PadAddress, PadRole, split_pad_set
from heliograph.errors import (
    AuthenticationFailed,
    ConfigurationError,
    LocalProtocolError,
    PadsExhausted,
    RollbackDetected,
)
from heliograph.storage.database import Database
from heliograph.storage.link_records import ATTEMPTS_MAX, LinkRecords
from heliograph.testing.randomness import SeededRandom
from heliograph.vault.anchor import FileAnchor
from heliograph.vault.filekek import FileKek

BOOK = make_book(SeededRandom(1, "book").draw(secret_size()))
PROPOSAL = PadAddress(1, 1, PadRole.PROPOSAL)
CLOSURE = PadAddress(1, 1, PadRole.CLOSURE)
DECISION = PadAddress(1, 1, PadRole.DECISION)


def secrets(slot=0):
    start, stop = slot_range(slot)
    return slot_secrets(BOOK[start:stop])


class Site:
    """A store on disk that can be stopped, copied and put back."""

    def __init__(self, directory):
        self.directory = directory
        directory.mkdir(mode=0o700)
        FileKek.create(directory / "kek", SeededRandom(1, "kek"))
        self.start()

    def start(self):
        kek = FileKek(self.directory / "kek", SeededRandom(2, "kek"))
        self.database = Database(self.directory / "store", kek)
        self.records = LinkRecords(self.database, FileAnchor(self.directory / "anchor"), lambda: 0.0)

    def restart(self):
        self.database.close()
        self.start()


@pytest.fixture
def site(tmp_path):
    made = Site(tmp_path / "site")
    made.records.open_epoch(1, secrets(), "psk")
    yield made
    made.database.close()


def test_an_epoch_opens_with_the_slots_pads(site):
    assert site.records.available(0) == list(range(1, BOOTSTRAP_BLOCKS + 1))
    assert site.records.assigned() == BOOTSTRAP_BLOCKS
    assert site.records.burn(PROPOSAL).key == secrets().pad_sets[0][:32]


def test_a_pad_is_burnt_once(site):
    site.records.burn(PROPOSAL)
    with pytest.raises(PadsExhausted):
        site.records.burn(PROPOSAL)
    with pytest.raises(PadsExhausted):
        site.records.attempt(PROPOSAL)


def test_a_burnt_pad_is_gone_from_the_file(site):
    """Not only marked: whoever takes the disk later finds nothing to forge an old block with."""
    sealed = sealed_bytes(site, PROPOSAL)
    site.records.burn(PROPOSAL)
    site.database.checkpoint()
    assert sealed not in (site.directory / "store").read_bytes()


def sealed_bytes(site, address):
    with site.database.reading() as cursor:
        return bytes(
            cursor.execute(
                "SELECT sealed FROM link_pads WHERE block = ? AND role = ?", (address.block, address.role)
            ).fetchone()[0]
        )


def test_a_burnt_pad_stays_burnt_after_a_restart(site):
    site.records.burn(PROPOSAL)
    site.restart()
    with pytest.raises(PadsExhausted):
        site.records.burn(PROPOSAL)
    assert site.records.marks().touched == 1


@pytest.mark.parametrize("role", [PadRole.DECISION, PadRole.ACKNOWLEDGEMENT, PadRole.SETTLEMENT])
def test_a_commit_pad_is_handed_out_once_until_its_message_is_stored_or_forgotten(site, role):
    address = PadAddress(1, 1, role)
    site.records.burn(address)
    with pytest.raises(PadsExhausted, match="in use"):
        site.records.burn(address)
    site.restart()  # the tag was never stored, so it never left: the block's fate can still be told
    site.records.burn(address)
    with site.database.transaction() as cursor:
        site.records.erase_stored(cursor, 1, 1, PadRole.SETTLEMENT)
    site.restart()
    with pytest.raises(PadsExhausted):
        site.records.burn(address)


def test_a_store_that_fails_leaves_a_commit_pad_in_use(site):
    site.records.burn(DECISION)
    with suppress(ZeroDivisionError), site.database.transaction() as cursor:
        site.records.erase_stored(cursor, 1, 1, PadRole.DECISION)
        raise ZeroDivisionError
    with pytest.raises(PadsExhausted, match="in use"):
        site.records.burn(DECISION)
    site.records.forget_unstored()
    site.records.burn(DECISION)


def test_attempts_are_counted_before_the_comparison_and_survive_a_restart(site):
    authenticator = Authenticator(site.records)
    for _ in range(3):
        with pytest.raises(AuthenticationFailed):
            authenticator.check(CLOSURE, (b"forged",), bytes(16))
    site.restart()
    _, count = site.records.attempt(CLOSURE)
    assert count == 4


def test_the_last_attempt_takes_the_pad_with_it(site):
    authenticator = Authenticator(site.records)
    with site.database.transaction() as cursor:
        cursor.execute("UPDATE link_pads SET attempts = ? WHERE role = ?", (ATTEMPTS_MAX - 1, PadRole.CLOSURE))
    with pytest.raises(AuthenticationFailed):
        authenticator.check(CLOSURE, (b"forged",), bytes(16))
    good = make_tag_of(b"honest")
    with pytest.raises(PadsExhausted):
        authenticator.check(CLOSURE, (b"honest",), good)


def make_tag_of(message):

    return make_tag(split_pad_set(secrets().pad_sets[0])[PadRole.CLOSURE], (message,))


def test_an_accepted_tag_is_accepted_once_and_charged(site):
    authenticator = Authenticator(site.records)
    authenticator.check(CLOSURE, (b"honest",), make_tag_of(b"honest"))
    assert site.records.totals().eps_total == pytest.approx(8 / 2**106)
    assert site.records.totals().bits_spent == 256
    assert site.records.marks().proved == 1
    with pytest.raises(PadsExhausted):
        authenticator.check(CLOSURE, (b"honest",), make_tag_of(b"honest"))


def test_a_block_with_a_pad_spent_is_not_available(site):
    site.records.burn(PadAddress(1, 2, PadRole.PROPOSAL))
    assert site.records.available(0) == [1, 3, 4, 5, 6, 7, 8]
    assert site.records.available(5)[0] == 6


def test_a_block_gets_pads_once(site):
    with pytest.raises(LocalProtocolError, match="has pads already"), site.database.transaction() as cursor:
        site.records.insert_pad_set(cursor, 1, 3, bytes(PAD_SET_BYTES))
    site.records.discard(3)
    with pytest.raises(LocalProtocolError, match="has pads already"), site.database.transaction() as cursor:
        site.records.insert_pad_set(cursor, 1, 3, bytes(PAD_SET_BYTES))


def test_a_discarded_block_keeps_no_pad(site):
    site.records.discard(2)
    for role in PadRole:
        with pytest.raises(PadsExhausted):
            site.records.burn(PadAddress(1, 2, role))
    assert site.records.totals().blocks_discarded == 1


def test_once_the_transcript_tag_left_the_decision_can_still_be_told(site):
    site.records.burn(PadAddress(1, 2, PadRole.DECIDER))
    site.records.discard(2)
    with pytest.raises(PadsExhausted):
        site.records.burn(PadAddress(1, 2, PadRole.PARTICIPANT))
    site.records.burn(PadAddress(1, 2, PadRole.DECISION))


def test_the_participant_keeps_nothing_of_a_block_it_gave_up(site):
    """It accepted the decider's transcript tag, then lost the block: nothing is in doubt on its side."""
    site.records.attempt(PadAddress(1, 2, PadRole.DECIDER))
    site.records.accepted(PadAddress(1, 2, PadRole.DECIDER), 0.0)
    site.records.discard(2)
    with pytest.raises(PadsExhausted):
        site.records.burn(PadAddress(1, 2, PadRole.ACKNOWLEDGEMENT))


def test_an_epoch_opens_once_and_only_forward(site):
    for epoch in (0, 1):
        with pytest.raises(LocalProtocolError, match="opened before"):
            site.records.open_epoch(epoch, secrets(1), "psk")
    site.records.open_epoch(2, secrets(1), "psk")
    with pytest.raises(PadsExhausted):
        site.records.burn(PROPOSAL)
    assert replace(site.records.marks(), pads=0) == type(site.records.marks())(2, 0, 0, 0, 0)


def test_the_epochs_filter_keys_are_its_own(site):
    first = site.records.filter_keys()
    site.records.open_epoch(2, secrets(1), "psk")
    second = site.records.filter_keys()
    assert len({first.to_receiver, first.to_transmitter, second.to_receiver, second.to_transmitter}) == 4


def test_before_the_first_epoch_there_is_nothing(tmp_path):
    made = Site(tmp_path / "fresh")
    with pytest.raises(PadsExhausted):
        made.records.filter_keys()
    with pytest.raises(PadsExhausted):
        made.records.burn(PROPOSAL)
    assert made.records.marks() == type(made.records.marks())(0, 0, 0, 0, 0)
    made.database.close()


def test_a_restored_store_is_noticed_and_its_pads_are_destroyed(site):
    site.database.close()
    old = (site.directory / "store").read_bytes()
    site.start()
    site.records.burn(PROPOSAL)
    site.database.close()
    for name in ("store-wal", "store-shm"):
        (site.directory / name).unlink(missing_ok=True)
    (site.directory / "store").write_bytes(old)
    with pytest.raises(RollbackDetected):
        site.start()
    with site.database.reading() as cursor:
        assert cursor.execute("SELECT count(*) FROM link_pads").fetchone() == (0,)


def test_an_operators_epoch_lies_past_store_and_anchor(site):
    site.records.burn(PROPOSAL)
    before = site.records.marks()
    with pytest.raises(ConfigurationError, match="nothing was destroyed"):
        site.records.request_rebootstrap(last=1)
    assert site.records.marks() == before
    assert site.records.operator_epoch() == 0
    assert site.records.request_rebootstrap(last=2) == 2
    assert site.records.operator_epoch() == 2
    assert site.records.available(0) == []
    assert site.records.marks().epoch == 1
