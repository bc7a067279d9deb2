"""The pages on SKIP, key streams and the boundary, run as they are written, one after the other."""

import json
import re
import shutil
from contextlib import ExitStack

import pytest
from markdown_pages import ROOT, blocks
from test_walkthroughs import _running, _shell

from heliograph.lab.ports import free_ports

pytestmark = [
    pytest.mark.slow,  # real processes
    pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed: apt-get install -y curl"),
]
PORTS = ("8444", "8445", "8446", "25575", "25576", "7004", "7005")


def page(name, ports):
    """Return the page's blocks by marker, its example ports replaced by free ones of this machine."""

    def here(text):
        return re.sub(rf"\b({'|'.join(PORTS)})\b", lambda match: ports[match[0]], text)

    return {b.marker: here(b.text) for b in blocks(ROOT / "docs/how-to" / name) if b.marker}


def test_the_delivery_pages_do_what_they_say(tmp_path):
    ports = dict(zip(PORTS, map(str, free_ports(len(PORTS))), strict=True))
    streams, boundary = page("skip-and-streams.md", ports), page("boundary.md", ports)

    def done(text):
        run = _shell(text, tmp_path)
        assert run.returncode == 0, run.stderr
        return run.stdout.strip().splitlines()

    def running(stack):
        stack.enter_context(_running(streams["fibre"].strip(), tmp_path, "stdout", "ready"))
        for marker in ("site b", "site a"):
            stack.enter_context(_running(streams[marker].strip(), tmp_path, "stdout", "ready"))

    done(streams["make"])
    done(streams["configure"])
    (tmp_path / "streams.py").write_text(streams["file: streams.py"])
    with ExitStack() as stack:
        running(stack)
        capabilities, same, again = done(streams["skip"])
        assert json.loads(capabilities)["remoteSystemID"] == ["key-provider-b*"]
        assert same == "the same key at both encryptors"
        assert "not found" in json.loads(again)["message"]
        opened, *chunks, closed = done(streams["streams"])
        assert opened == "PEER_NOT_CONNECTED SUCCESSFUL"
        assert [line.split()[:3] for line in chunks] == [[str(i), "64", "True"] for i in range(3)]
        assert closed == "SUCCESSFUL SUCCESSFUL"

    done(boundary["configure"])
    with ExitStack() as stack:
        running(stack)
        same, refused = done(boundary["walkthrough"])
        assert (same, refused) == ("the same key at both sites", "401")
    done(streams["psk configure"])
    (tmp_path / "encryptor.py").write_text(streams["file: encryptor.py"])
    with ExitStack() as stack:
        stack.enter_context(_running(streams["fibre"].strip(), tmp_path, "stdout", "ready"))
        stack.enter_context(_running(streams["site a"].strip(), tmp_path, "stdout", "ready"))
        assert done(streams["psk"]) == ["200 ['key', 'keyId'] 32"]
    done(streams["tls12 configure"])
    with ExitStack() as stack:
        stack.enter_context(_running(streams["fibre"].strip(), tmp_path, "stdout", "ready"))
        stack.enter_context(_running(streams["site a"].strip(), tmp_path, "stdout", "ready"))
        suite, status = done(streams["tls12"])
        assert suite.endswith("Cipher is DHE-PSK-AES256-GCM-SHA384")
        assert status.startswith("HTTP/1.1 200")
    assert not list(tmp_path.glob("*.json"))
