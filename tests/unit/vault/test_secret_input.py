"""Where a passphrase may come from, and what is never taken for one."""

import os

import pytest

from heliograph.errors import ConfigurationError
from heliograph.vault.secret_input import SECRET_BYTES_MAX, check_source, take_secret


def through_pipe(data):
    reader, writer = os.pipe()
    os.write(writer, data)
    os.close(writer)
    return take_secret(f"fd:{reader}", "passphrase")


def test_a_descriptor_gives_one_line_without_its_end():
    assert through_pipe(b"horse battery\n") == b"horse battery"
    assert through_pipe(b"horse battery\r\n") == b"horse battery"


@pytest.mark.parametrize("data", [b"", b"\n", b"two\nlines\n", b"a\0b", b"x" * (SECRET_BYTES_MAX + 1)], ids=repr)
def test_what_is_no_single_line_is_refused_and_not_quoted(data):
    with pytest.raises(ConfigurationError, match="one line of 1 to"):
        through_pipe(data)


def test_a_credential_is_read_as_systemd_hands_it_over(tmp_path):
    path = tmp_path / "store"
    path.write_bytes(b"horse battery\n")
    for mode in (0o400, 0o440):  # the group's bits are the mask of an access list
        path.chmod(mode)
        assert take_secret(f"credential:{path}", "passphrase") == b"horse battery"
    assert take_secret(f"credential:{tmp_path / 'absent'}", "passphrase") is None
    for mode in (0o444, 0o460):
        path.chmod(mode)
        with pytest.raises(ConfigurationError, match="others can read it"):
            take_secret(f"credential:{path}", "passphrase")


def test_a_closed_descriptor_and_a_terminal_are_nothing_at_hand():
    assert take_secret("fd:987", "passphrase") is None
    assert take_secret("terminal", "passphrase") is None


@pytest.mark.parametrize(
    "source", ["", "env:X", "fd:", "fd:-1", "fd:x", "credential:", "credential:x", "credential:../x"]
)
def test_every_other_source_is_refused(source):
    with pytest.raises(ConfigurationError, match="terminal, fd:N or credential:/PATH"):
        check_source(source)
