"""Setting up and starting a site touch nothing that was there before."""

import asyncio

import pytest
from typer.testing import CliRunner

from heliograph.cli.main import app
from heliograph.errors import ConfigurationError
from heliograph.site.status_socket import serve_status


def test_a_status_path_that_names_a_file_deletes_nothing(tmp_path):
    precious = tmp_path / "ca.key"
    precious.write_text("a key")
    with pytest.raises(ConfigurationError, match="no socket"):
        asyncio.run(serve_status(precious, None))
    assert precious.read_text() == "a key"


def test_init_takes_over_no_directory_that_is_in_use(tmp_path):
    (tmp_path / "mine").write_text("here before")
    tmp_path.chmod(0o755)
    done = CliRunner().invoke(
        app, ["site", "init", str(tmp_path), "--name", "a", "--peer", "b", "--role", "transmitter"]
    )
    assert done.exit_code == 1
    assert "not empty" in done.stderr
    assert tmp_path.stat().st_mode & 0o777 == 0o755
    assert [p.name for p in tmp_path.iterdir()] == ["mine"]
