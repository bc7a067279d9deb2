from __future__ import annotations

import tempfile
from pathlib import Path

import pytest


@pytest.fixture
def folder():
    with tempfile.TemporaryDirectory(prefix="hg") as name:  # short: a Unix socket's path has 107 bytes at most
        yield Path(name)
