"""The page on operating a site, run as it is written, on a site whose light stands still."""

import json
import shutil
import socket
import tempfile
from pathlib import Path

import pytest
from test_walkthroughs import _block, _running, _shell, _until_status

from heliograph.lab.rehearsal import Ports, Rehearsal
from heliograph.testing.links import example_registration

pytestmark = pytest.mark.slow  # real processes


def block(marker):
    return _block("operate.md", marker)


def test_certificates_and_settings_are_taken_over_as_the_page_says():
    directory = Path(tempfile.mkdtemp(prefix="hgo"))  # short, for Unix sockets
    try:
        Rehearsal(directory, Ports.free(), 5.0, registration=example_registration()).prepare()
        (directory / "a").rename(directory / "site-a")
        toml = directory / "site-a/SITE.toml"
        with socket.socket(socket.AF_UNIX) as light:
            light.bind(str(directory / "t.sock"))
            light.listen()
            with _running("heliograph site run site-a/SITE.toml", directory, "stdout", "ready"):
                renewed = _shell(block("renew"), directory)
                assert renewed.returncode == 0, renewed.stderr
                # The signal's reload is over: the file that it reads is changed next.
                _until_status(directory / "site-a", lambda s: s.configuration.reloads + s.configuration.refused)
                done = _shell(block("reload"), directory)
                assert done.returncode == 0, done.stderr
                assert "changed: [kme] requests_per_s\n" in done.stdout
                assert "  configuration: changed: [kme] requests_per_s\n" in done.stdout
                before = toml.read_text()
                refused = _shell(block("refused"), directory)
                assert refused.returncode == 1
                assert "[kme] id: changed by a restart only" in refused.stderr
                assert len(refused.stderr.splitlines()) == 1
                assert _shell(block("put back"), directory).returncode == 0
                assert toml.read_text() == before
                status = json.loads(_shell("heliograph site status site-a/SITE.toml --json", directory).stdout)
                found = status["configuration"]
                assert (found["reloads"], found["refused"]) == (2, 1)
                assert "[kme] id" in found["last"]
        assert '"configuration reloaded"' in (directory / "site-a/audit.jsonl").read_text()
    finally:
        shutil.rmtree(directory)
