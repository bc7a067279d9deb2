"""A process that holds keys leaves no core dump."""

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
