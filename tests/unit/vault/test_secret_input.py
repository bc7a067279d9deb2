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


def test_a_credential_is_read_from_the_directory_that_systemd_names(tmp_path, monkeypatch):
    (tmp_path / "store").write_bytes(b"horse battery\n")
    (tmp_path / "store").chmod(0o400)
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    assert take_secret("credential:store", "passphrase") == b"horse battery"
    assert take_secret("credential:absent", "passphrase") is None
    (tmp_path / "store").chmod(0o444)
    with pytest.raises(ConfigurationError, match="others can read it"):
        take_secret("credential:store", "passphrase")
    monkeypatch.delenv("CREDENTIALS_DIRECTORY")
    assert take_secret("credential:store", "passphrase") is None


def test_a_closed_descriptor_and_a_terminal_are_nothing_at_hand():
    assert take_secret("fd:987", "passphrase") is None
    assert take_secret("terminal", "passphrase") is None


@pytest.mark.parametrize(
    "source", ["", "env:X", "fd:", "fd:-1", "fd:x", "credential:", "credential:../x", "credential:.."]
)
def test_every_other_source_is_refused(source):
    with pytest.raises(ConfigurationError, match="terminal, fd:N or credential:NAME"):
        check_source(source)
