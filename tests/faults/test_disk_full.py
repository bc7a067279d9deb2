"""A full disk under a running site: it says so, issues nothing, spends nothing twice, and recovers by itself."""

import asyncio
import resource

import pytest
from fault_rehearsal import SITES, Consumers, Store, blocks, check_stores, new_block, small_blocks, until

from heliograph.authentication.anchors.psk import make_book, secret_size, slot_range
from heliograph.errors import KeySupplyError, StoreUnavailable
from heliograph.vault.anchor import FileAnchor
from heliograph.vault.pskfile import PskFile, SlotUsed, write_book

FULL = 8192  # bytes: no file of the site may grow beyond; its store, its log and its anchor's successor are stuck


def fill_disk(process):
    """Let every write beyond the first pages fail with EFBIG, as a quota does."""
    _, hard = resource.prlimit(process.pid, resource.RLIMIT_FSIZE)
    resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (FULL, hard))


def free_disk(process):
    _, hard = resource.prlimit(process.pid, resource.RLIMIT_FSIZE)
    resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (hard, hard))


async def scene(full, other):
    rehearsal = small_blocks()
    consumers = Consumers(rehearsal)
    try:
        await rehearsal.start_all()
        await new_block(rehearsal)
        await new_block(rehearsal)
        fill_disk(rehearsal.processes[full])

        async def says_so():
            return (await rehearsal.status(full)).link.state.startswith("store unavailable: store ")

        await until(says_so)
        state = (await rehearsal.status(full)).link.state
        assert "\n" not in state
        # It serves what needs no write, and issues nothing that would.
        status = await rehearsal.status(full)
        assert status.kme.deliverable_keys > 0
        async with consumers.client(full) as client:
            for _ in range(3):
                with pytest.raises(KeySupplyError, match="Error on server side"):  # 503: come back later
                    await client.get_key()
        again = await rehearsal.status(full)
        assert again.kme.deliverable_keys == status.kme.deliverable_keys
        assert again.kme.delivered_to_masters == status.kme.delivered_to_masters
        # The peer must not pay for it: while the disk is full its pads stay.
        pads = (await rehearsal.status(other)).link.pad_sets
        made = await blocks(rehearsal, other)
        await asyncio.sleep(3.0)
        assert (await rehearsal.status(other)).link.pad_sets == pads
        assert await blocks(rehearsal, other) == made
        # Space again: no repair, no restart.
        free_disk(rehearsal.processes[full])
        await new_block(rehearsal)
        consumers.start()

        async def delivered():
            return len(consumers.deliveries.slaves) >= 20

        await until(delivered)
        await new_block(rehearsal)
        await consumers.stop()
        await rehearsal.stop_all()
        logs = [(rehearsal.directory / f"{name}.log").read_text(errors="replace") for name in SITES]
        return (*(Store.of(rehearsal, name) for name in SITES), consumers.deliveries, logs)
    finally:
        await rehearsal.stop_all()
        rehearsal.remove()


@pytest.mark.slow
@pytest.mark.parametrize("full", SITES)
def test_a_full_disk_stops_the_link_and_space_heals_it(full):
    other = next(name for name in SITES if name != full)
    a, b, deliveries, logs = asyncio.run(scene(full, other))
    check_stores(a, b)
    assert deliveries.check() >= 10
    for log in logs:
        assert "Traceback" not in log
        assert "internal error" not in log


# The same for the two files outside the store.
@pytest.fixture
def book(tmp_path):
    write_book(
        tmp_path / "book", make_book(bytes(range(1, 256)) * (secret_size() // 255) + bytes([1]) * (secret_size() % 255))
    )
    return PskFile(tmp_path / "book")


@pytest.fixture
def full_disk():
    """Fail this process's own writes; the limit is lifted again whatever happens."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)

    class Disk:
        @staticmethod
        def fill():
            resource.setrlimit(resource.RLIMIT_FSIZE, (0, before[1]))

        @staticmethod
        def free():
            resource.setrlimit(resource.RLIMIT_FSIZE, before)

    yield Disk
    Disk.free()


def test_a_slot_that_cannot_be_erased_is_not_used(book, full_disk, tmp_path):
    whole = (tmp_path / "book").read_bytes()
    full_disk.fill()
    with pytest.raises(StoreUnavailable, match="the slot was not used"):
        book.burn_slot(1)
    full_disk.free()
    assert (tmp_path / "book").read_bytes() == whole
    secrets = book.burn_slot(1)
    start, stop = slot_range(0)
    assert secrets.filter_key_to_receiver == whole[start : start + 32]
    assert (tmp_path / "book").read_bytes()[start:stop] == bytes(stop - start)
    with pytest.raises(SlotUsed):
        book.burn_slot(1)


def test_an_anchor_that_cannot_be_written_keeps_its_mark(full_disk, tmp_path):
    anchor = FileAnchor(tmp_path / "anchor")
    anchor.advance(1, 5)
    full_disk.fill()
    with pytest.raises(StoreUnavailable, match="nothing was sent"):
        anchor.advance(1, 6)
    full_disk.free()
    assert anchor.read() == FileAnchor(tmp_path / "anchor").read() == (1, 5)
    anchor.advance(1, 6)
    assert FileAnchor(tmp_path / "anchor").read() == (1, 6)
