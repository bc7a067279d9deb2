"""docs/how-to/several-links.md, run as it is written, on one machine."""

import json
import re
import socket
from contextlib import ExitStack

import pytest
from markdown_pages import ROOT, blocks
from test_walkthroughs import _running, _shell

PAGES = [blocks(ROOT / "docs/how-to" / name) for name in ("two-sites.md", "several-links.md")]


@pytest.mark.slow
def test_a_site_gets_a_second_link_as_the_page_says(tmp_path):
    """The page's example addresses become ports of the loopback interface, nothing else changes."""
    two_sites, page = PAGES
    addresses = sorted({a for b in (*two_sites, *page) for a in re.findall(r"192\.0\.2\.\d+:\d+", b.text)})
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in addresses]
    local = {a: f"127.0.0.1:{s.getsockname()[1]}" for a, s in zip(addresses, sockets, strict=True)}
    for one in sockets:
        one.close()

    def here(text):
        return re.sub("|".join(map(re.escape, addresses)), lambda match: local[match[0]], text)

    def one(marker, of=page):
        return here(next(b.text for b in of if b.marker == marker)).strip()

    (tmp_path / "FIBRE.toml").write_text(one("file: FIBRE.toml", two_sites))
    (tmp_path / "FIBRE-C.toml").write_text(one("file: FIBRE-C.toml"))
    digests, fingerprints = [], []
    for block in (*two_sites, *page):
        if block.marker == "setup":
            done = _shell(here(block.text), tmp_path)
            assert done.returncode == 0, done.stderr
            digests += re.findall(r"^  ([0-9a-f]{32})$", done.stdout, re.MULTILINE)
            fingerprints += re.findall(r"^  ((?:[0-9a-f]{4} ){7}[0-9a-f]{4})$", done.stdout, re.MULTILINE)
    # Each printed at both of its ends: of the first link, of the further one. A book has one of its own before that.
    for shown in (digests, [*fingerprints[1:3], *fingerprints[4:6]]):
        assert len(shown) == 4
        assert shown[0] == shown[1] != shown[2] == shown[3]
    assert (tmp_path / "site-a" / "SITE.toml").read_text().endswith(one("written: site-a/SITE.toml") + "\n")

    with ExitStack() as stack:
        for text in (one("fibre", two_sites), one("fibre")):
            stack.enter_context(_running(text, tmp_path, "stdout", "ready"))
        for marker in ("site c", "site a"):
            stack.enter_context(_running(one(marker), tmp_path, "stdout", "ready"))
        for _ in range(60):  # each asks a running site and takes a while
            asked = _shell(one("status"), tmp_path)
            assert asked.returncode == 0, asked.stderr
            *told, last = asked.stdout.splitlines()
            status = json.loads(last)
            if status["further_links"][0]["blocks"]:
                break
    assert status["further_links"][0]["blocks"] > 0, status
    assert status["link"]["state"].startswith("not connected")  # nobody started B
    assert [line.split(":")[1].strip() for line in told if line.startswith("site-a: ")] == [
        "link site-a--site-b to site-b",
        "link site-a--site-c to site-c",
    ]
