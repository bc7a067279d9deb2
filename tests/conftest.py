"""Where the tests put their files, into memory where the machine has room for them there; and their order.

A store syncs at each commit, and a suite commits many thousand times; a busy disk makes minutes of that. What a test
proves is the same: a process that is killed loses nothing that it wrote on either, and disks that fail are played by
``lab.disk_faults`` above the file system. Whoever sets TMPDIR decides; ``make soak`` runs on the disk.
"""

import os
import tempfile
from contextlib import suppress

_MEMORY = "/dev/shm"
_ROOM_BYTES = 4 << 30  # four workers hold some 100 MB; a container's default of 64 MB is no room


def _has_room(place):
    with suppress(OSError):
        found = os.statvfs(place)
        free = found.f_bavail * found.f_frsize
        # Some tests write a program and run it.
        return free >= _ROOM_BYTES and not found.f_flag & os.ST_NOEXEC and os.access(place, os.W_OK | os.X_OK)
    return False


if "TMPDIR" not in os.environ and _has_room(_MEMORY):
    os.environ["TMPDIR"] = _MEMORY  # the processes that tests start look there too
    tempfile.tempdir = None


def pytest_collection_modifyitems(items):
    """Put the files with slow tests first: a long one that a worker begins last is waited for by all."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)
