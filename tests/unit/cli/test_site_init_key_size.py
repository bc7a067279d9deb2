"""``heliograph site init --key-size``: a link's keys have the size that both sites registered."""

import json

import pytest
from typer.testing import CliRunner

from heliograph.cli.main import app


def init(directory, *sizes):
    options = ["--name", "a", "--peer", "b", "--role", "transmitter"]
    for size in sizes:
        options += ["--key-size", str(size)]
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


def test_several_sizes_are_pools_of_both_directions_and_the_first_is_the_usual_one(tmp_path):
    done = init(tmp_path / "a", 512, 128, 264)
    assert done.exit_code == 0, done.stderr
    link = json.loads((tmp_path / "a" / "link.json").read_text())
    assert link["key_size_bits"] == 512
    for pairs in ("transmitter_pairs", "receiver_pairs"):
        assert [pair["key_sizes"] for pair in link[pairs]] == [[512, 128, 264]]


def test_a_link_with_one_size_is_registered_as_before(tmp_path):
    for name, sizes in (("one", (256,)), ("none", ())):
        assert init(tmp_path / name, *sizes).exit_code == 0
    assert (tmp_path / "one" / "link.json").read_bytes() == (tmp_path / "none" / "link.json").read_bytes()


@pytest.mark.parametrize("sizes", [(256, 100), (256, 256), tuple(range(64, 136, 8))])
def test_further_sizes_that_cannot_be_are_one_line_and_leave_nothing(tmp_path, sizes):
    done = init(tmp_path / "a", *sizes)
    assert done.exit_code != 0
    assert "key_sizes of SAEs" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "a").exists()
