"""A process that holds keys leaves no core dump, and does not stop to look through what it was started with."""

import subprocess
import sys

PROGRAM = """
import os, resource
from heliograph.cli.process import harden_process
harden_process()
import ctypes
print(resource.getrlimit(resource.RLIMIT_CORE), ctypes.CDLL(None).prctl(3, 0, 0, 0, 0), flush=True)  # PR_GET_DUMPABLE
os.abort()
"""


def test_a_site_that_crashes_dumps_no_core(tmp_path):
    done = subprocess.run([sys.executable, "-c", PROGRAM], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode < 0, done.stderr
    assert done.stdout == "(0, 0) 0\n"
    assert list(tmp_path.iterdir()) == []


PAUSES = """
import gc
from heliograph.cli.process import shorten_pauses
before = len(gc.get_objects())
shorten_pauses()
print(gc.get_freeze_count() > 0.9 * before and len(gc.get_objects()) < 0.1 * before)
"""


def test_what_stands_at_the_start_is_not_searched_for_garbage():
    done = subprocess.run([sys.executable, "-c", PAUSES], capture_output=True, text=True, check=True)
    assert done.stdout == "True\n"
