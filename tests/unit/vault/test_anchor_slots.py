"""The anchor's two slots: a mark is there whole, or the one before it is; and nothing else passes for one."""

import os

import pytest

from heliograph.errors import ConfigurationError, RollbackDetected, StoreUnavailable
from heliograph.vault.anchor import FileAnchor

BLOCK = 4096  # what file systems and disks write, tear and lose together
RECORD = 512


@pytest.fixture
def path(tmp_path):
    return tmp_path / "anchor"


def advanced(path, marks):
    anchor = FileAnchor(path)
    for mark in marks:
        anchor.advance(*mark)
    return anchor


@pytest.mark.parametrize("last", range(1, 6))
def test_the_highest_mark_is_read_whichever_slot_it_is_in(path, last):
    advanced(path, [(1, block) for block in range(1, last + 1)])
    assert FileAnchor(path).read() == (1, last)
    assert path.stat().st_size == 2 * BLOCK
    assert advanced(path, [(2, 0)]).read() == FileAnchor(path).read() == (2, 0)


@pytest.mark.parametrize("cut", [1, 7, 30, 200, RECORD - 1, BLOCK - 1])
def test_a_mark_that_was_cut_short_by_a_power_loss_leaves_the_one_before(path, cut):
    before = advanced(path, [(1, 5), (1, 6)])
    old = path.read_bytes()
    before.advance(1, 70)
    new = path.read_bytes()
    (slot,) = [n for n in (0, 1) if old[n * BLOCK :][:BLOCK] != new[n * BLOCK :][:BLOCK]]
    changed = next(at for at in range(slot * BLOCK, slot * BLOCK + BLOCK) if old[at] != new[at])
    torn = new[: changed + cut] + old[changed + cut :]
    path.write_bytes(torn)
    assert FileAnchor(path).read() == ((1, 70) if torn == new else (1, 6))
    assert advanced(path, [(1, 71)]).read() == FileAnchor(path).read() == (1, 71)


def test_a_mark_is_written_in_place_and_its_predecessor_is_never_touched(path):
    anchor = advanced(path, [(1, 1), (1, 2)])
    inode, before = path.stat().st_ino, path.read_bytes()
    anchor.advance(1, 3)
    after = path.read_bytes()
    assert path.stat().st_ino == inode
    assert sum(before[n * BLOCK :][:BLOCK] == after[n * BLOCK :][:BLOCK] for n in (0, 1)) == 1
    assert b"1 2 " in after
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize(
    "content",
    [b"", b"1 2\n", b"x" * 2 * BLOCK, bytes(2 * BLOCK), bytes(2 * RECORD), b"1 2 " + b"0" * 16 + b" " * 2000 + b"9"],
)
def test_a_damaged_anchor_is_refused(path, content):
    path.write_bytes(content)
    with pytest.raises(RollbackDetected, match=r"damaged.*rebootstrap"):
        FileAnchor(path)


@pytest.mark.parametrize("rubbish", [b"\0", b"\xff", b"9 9 9 9 "])
@pytest.mark.parametrize("last", [(1, 6), (1, 7)])  # in either slot
def test_a_block_torn_or_lost_whole_while_a_mark_is_written_leaves_the_mark_before(path, last, rubbish):
    """The disk writes 4 KiB or nothing it can promise: whatever was in the block of the new mark is gone."""
    before = advanced(path, [(1, 5), last])
    old = path.read_bytes()
    before.advance(1, 70)
    new = path.read_bytes()
    (at,) = [n * BLOCK for n in (0, 1) if old[n * BLOCK :][:BLOCK] != new[n * BLOCK :][:BLOCK]]
    for torn in (0, 1, 511, 512, 513, BLOCK - 1):
        lost = new[at : at + torn] + (rubbish * BLOCK)[: BLOCK - torn]
        path.write_bytes(new[:at] + lost + new[at + BLOCK :])
        assert FileAnchor(path).read() in {last, (1, 70)}
        assert (torn < RECORD) == (FileAnchor(path).read() == last)
    assert advanced(path, [(1, 71)]).read() == FileAnchor(path).read() == (1, 71)


@pytest.mark.parametrize("bad", [0, 1])
def test_a_block_that_cannot_be_read_or_written_any_more_is_left_for_a_new_file(path, monkeypatch, bad):
    anchor = advanced(path, [(1, 5), (1, 6), (1, 7)])
    inode, pread, pwrite = path.stat().st_ino, os.pread, os.pwrite

    def broken(real):
        def call(descriptor, what, offset):
            if os.fstat(descriptor).st_ino == inode and offset // BLOCK == bad:
                raise OSError(5, "Input/output error")
            return real(descriptor, what, offset)

        return call

    monkeypatch.setattr(os, "pread", broken(pread))
    monkeypatch.setattr(os, "pwrite", broken(pwrite))
    assert FileAnchor(path).read() in {(1, 6), (1, 7)}
    anchor.advance(1, 8)
    anchor.advance(1, 9)
    assert path.stat().st_ino != inode
    assert FileAnchor(path).read() == (1, 9)
    both = path.stat().st_ino

    def unreadable(descriptor, what, offset):
        if os.fstat(descriptor).st_ino == both:
            raise OSError(5, "Input/output error")
        return pread(descriptor, what, offset)

    monkeypatch.setattr(os, "pread", unreadable)
    with pytest.raises(ConfigurationError, match="cannot be read"):
        FileAnchor(path)


@pytest.mark.parametrize("highest", [0, 1])
@pytest.mark.parametrize("torn", [False, True])
def test_two_slots_in_one_block_as_older_releases_wrote_them_are_read_and_replaced(path, highest, torn):
    advanced(path, [(1, 6), (1, 7)])
    records = [path.read_bytes()[n * BLOCK :][:RECORD] for n in (0, 1)]
    low, high = sorted(records)
    assert b"1 6 " in low
    if torn:
        high = high[:20] + low[20:]
    path.write_bytes(high + low if highest == 0 else low + high)
    assert path.stat().st_size == 2 * RECORD
    assert FileAnchor(path).read() == ((1, 6) if torn else (1, 7))
    assert advanced(path, [(1, 8)]).read() == FileAnchor(path).read() == (1, 8)
    assert path.stat().st_size == 2 * BLOCK
    advanced(path, [(1, 9)])
    assert path.stat().st_size == 2 * BLOCK


def test_a_digit_that_was_changed_by_hand_is_not_a_mark(path):
    advanced(path, [(1, 1), (1, 2), (1, 3)])
    path.write_bytes(path.read_bytes().replace(b"1 3 ", b"1 9 "))
    assert FileAnchor(path).read() == (1, 2)


def test_the_form_of_older_releases_is_read_and_replaced(path):
    machine = advanced(path, [(1, 1)]) and path.read_text().split()[2]
    path.write_text(f"3 17 {machine}\n")
    assert FileAnchor(path).read() == (3, 17)
    advanced(path, [(3, 18)])
    assert path.stat().st_size == 2 * BLOCK
    assert FileAnchor(path).read() == (3, 18)


def test_an_anchor_of_another_machine_is_refused_until_it_is_adopted(path):
    path.write_text(f"3 17 {'0' * 16}\n")
    with pytest.raises(RollbackDetected, match="another machine"):
        FileAnchor(path)
    FileAnchor.adopt(path)
    assert FileAnchor(path).read() == (3, 17)


def test_a_file_that_went_or_was_put_back_under_a_running_site_is_made_anew(path):
    anchor = advanced(path, [(1, 1), (1, 2)])
    path.unlink()
    anchor.advance(1, 3)
    assert FileAnchor(path).read() == (1, 3)
    path.write_bytes(b"1 1")
    anchor.advance(1, 4)
    assert FileAnchor(path).read() == (1, 4)


def test_a_write_that_the_disk_refuses_does_not_count(path, monkeypatch):
    anchor = advanced(path, [(1, 1), (1, 2)])

    def refused(*_):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "fdatasync", refused)
    monkeypatch.setattr(os, "fsync", refused)
    with pytest.raises(StoreUnavailable, match="nothing was sent"):
        anchor.advance(1, 3)
    assert anchor.read() == (1, 2)
    monkeypatch.undo()
    anchor.advance(1, 3)
    assert anchor.read() == FileAnchor(path).read() == (1, 3)
