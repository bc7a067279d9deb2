"""``heliograph site init --key-size``: a link's keys have the size that both sites registered."""

import json

import pytest
from typer.testing import CliRunner

from heliograph.cli.main import app


def init(directory, size):
    options = ["--name", "a", "--peer", "b", "--role", "transmitter", "--key-size", str(size)]
    return CliRunner().invoke(app, ["site", "init", str(directory), *options])


def test_the_size_is_in_the_registration_and_in_its_digest(tmp_path):
    digests = set()
    for size in (128, 512):
        done = init(tmp_path / str(size), size)
        assert done.exit_code == 0, done.stderr
        assert json.loads((tmp_path / str(size) / "link.json").read_text())["key_size_bits"] == size
        digests.add(done.stdout.splitlines()[-1])
    assert len(digests) == 2


@pytest.mark.parametrize("size", [0, 100, 56, 4104, -8])
def test_a_size_that_cannot_be_is_one_line_and_leaves_nothing(tmp_path, size):
    done = init(tmp_path / "a", size)
    assert done.exit_code != 0
    assert "a multiple of 8, 64 to 4096" in done.stderr
    assert not (tmp_path / "a").exists()
