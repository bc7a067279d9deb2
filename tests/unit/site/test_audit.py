"""The audit log tells of every act, in order; a crash loses no line that was acted on, and tampering is found."""

import json
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from heliograph.errors import ConfigurationError, StoreUnavailable
from heliograph.site import audit
from heliograph.site.audit import AuditLog, AuditTampered, check_approver, head_path


def written(path, count=4):
    log = AuditLog(path)
    for number in range(count):
        log.append("an act", f"Ann {number}", {"number": number, "files": ["ca.pem"], "note": "ü\n\r\u2028"})
    return log


def test_what_was_written_is_read_in_order(tmp_path):
    log = written(tmp_path / "audit.jsonl")
    found = log.verify(needs_head=True)
    assert [entry.sequence for entry in found.entries] == [1, 2, 3, 4]
    assert [entry.approver for entry in found.entries] == ["Ann 0", "Ann 1", "Ann 2", "Ann 3"]
    assert found.head == found.entries[-1].digest()
    assert found.end_checked
    lines = (tmp_path / "audit.jsonl").read_text().split("\n")
    assert [json.loads(line)["details"]["number"] for line in lines[:4]] == [0, 1, 2, 3]
    for name in ("audit.jsonl", "audit.jsonl.head"):
        assert (tmp_path / name).stat().st_mode & 0o777 == 0o600


def test_a_copy_without_its_second_file_verifies_but_says_that_its_end_is_unchecked(tmp_path):
    log = written(tmp_path / "audit.jsonl")
    head_path(tmp_path / "audit.jsonl").unlink()
    assert not log.verify().end_checked
    with pytest.raises(AuditTampered, match="is missing"):
        log.verify(needs_head=True)
    with pytest.raises(AuditTampered, match="nothing more is recorded"):
        log.append("an act", "Eve", {})


def test_many_writers_at_once_make_one_chain(tmp_path):
    path = tmp_path / "audit.jsonl"
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda n: AuditLog(path).append("an act", "Ann", {"n": n}), range(24)))
    assert len(AuditLog(path).verify(needs_head=True).entries) == 24


class Crash(BaseException):
    """The process ends here."""


class Boundary:
    """Ends the process at the n-th thing that reaches the disk."""

    def __init__(self, monkeypatch, after):
        self.left = after
        for name in ("replace_file", "sync_directory"):
            monkeypatch.setattr(audit, name, self.counted(getattr(audit, name)))
        monkeypatch.setattr(audit.os, "fsync", self.counted(os.fsync))

    def counted(self, act):
        def wrapped(*arguments):
            if self.left == 0:
                raise Crash
            self.left -= 1
            return act(*arguments)

        return wrapped


@pytest.mark.parametrize("after", range(8))
def test_a_crash_at_any_moment_leaves_a_log_that_verifies_and_goes_on(tmp_path, monkeypatch, after):
    path = tmp_path / "audit.jsonl"
    written(path, 2)
    with monkeypatch.context() as patch:
        Boundary(patch, after)
        try:
            AuditLog(path).append("an act", "Ann", {})
            done = True
        except Crash:
            done = False
    seen = len(AuditLog(path).verify(needs_head=True).entries)
    assert seen in ({3} if done else {2, 3})
    AuditLog(path).append("another act", "Ann", {})
    assert len(AuditLog(path).verify(needs_head=True).entries) == seen + 1


@pytest.mark.parametrize("kept", [1, 20, -1])
def test_half_a_line_left_by_a_crash_is_cleared_away(tmp_path, monkeypatch, kept):
    path = tmp_path / "audit.jsonl"
    written(path, 2)
    before = path.read_bytes()
    with monkeypatch.context() as patch:
        heads = [audit.replace_file]

        def last_head_is_never_written(*arguments):
            if not heads:
                raise Crash
            heads.pop()(*arguments)

        patch.setattr(audit, "replace_file", last_head_is_never_written)
        with pytest.raises(Crash):
            AuditLog(path).append("an act", "Ann", {})
    line = path.read_bytes()[len(before) :]
    path.write_bytes(before + line[:kept])
    assert len(AuditLog(path).verify(needs_head=True).entries) == 2
    AuditLog(path).append("an act", "Ann", {})
    assert len(AuditLog(path).verify(needs_head=True).entries) == 3


@pytest.mark.parametrize("name", ["", " Ann", "Ann\n", "a" * 65, "Ann\x1b[2J"])
def test_an_act_without_a_person_is_refused(tmp_path, name):
    with pytest.raises(ConfigurationError, match="--approver"):
        check_approver(name)
    with pytest.raises(ConfigurationError, match="--approver"):
        AuditLog(tmp_path / "audit.jsonl").append("an act", name, {})
    assert not list(tmp_path.iterdir())


def test_a_log_that_cannot_be_written_stops_the_act(tmp_path):
    (tmp_path / "audit.jsonl").mkdir()
    with pytest.raises(StoreUnavailable, match="nothing was done"):
        AuditLog(tmp_path / "audit.jsonl").append("an act", "Ann", {})
    (tmp_path / "elsewhere.jsonl").symlink_to("/dev/null")
    with pytest.raises(StoreUnavailable, match="nothing was done"):
        AuditLog(tmp_path / "elsewhere.jsonl").append("an act", "Ann", {})


def test_an_empty_copy_or_no_file_at_all_is_no_log(tmp_path):
    (tmp_path / "copy").touch()
    with pytest.raises(ConfigurationError, match="is empty"):
        AuditLog(tmp_path / "copy").verify()
    with pytest.raises(ConfigurationError, match="no regular file"):
        AuditLog(Path("/dev/zero")).verify()
