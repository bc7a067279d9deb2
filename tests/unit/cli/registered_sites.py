"""Two sites for command line tests: made once for each bootstrap, copied for each test."""

import contextlib
import dataclasses
import shutil
import tempfile
from functools import cache
from pathlib import Path

from typer.testing import CliRunner

from heliograph.cli.main import app
from heliograph.lab.rehearsal import Ports, Rehearsal
from heliograph.testing.links import example_registration

_KEPT = []


@cache
def pattern(method):
    keeper = tempfile.TemporaryDirectory(prefix="hgc")
    _KEPT.append(keeper)
    directory = Path(keeper.name) / "pair"
    registration = dataclasses.replace(example_registration(), bootstrap=method)
    Rehearsal(directory, Ports.free(), registration=registration).prepare()
    return directory


@contextlib.contextmanager
def two_sites(method):
    """Both sites below a directory with a short name, for Unix sockets."""
    with tempfile.TemporaryDirectory(prefix="hgc") as name:
        directory = Path(name) / "p"
        shutil.copytree(pattern(method), directory)
        yield directory


def forget(home):
    """Take a site's registration away, with its log."""
    shutil.rmtree(home / "trust")
    for name in ("audit.jsonl", "audit.jsonl.head"):
        (home / name).unlink()


def run(*words):
    return CliRunner().invoke(app, [str(word) for word in words])


def snapshot(directory):
    return {p: p.read_bytes() if p.is_file() else None for p in sorted(directory.rglob("*"))}


def refused(done, *says):
    """One line, exit 1."""
    assert done.exit_code == 1, (done.output, done.exception)
    (line,) = done.stderr.splitlines()
    assert line.startswith("heliograph: ")
    assert "internal error" not in line
    for word in says:
        assert word in line, line
    return line


__all__ = ["forget", "pattern", "refused", "run", "snapshot", "two_sites"]
