"""The README's demo and the how-to pages, run as they are written."""

import asyncio
import dataclasses
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
from contextlib import ExitStack, contextmanager

import pytest
from markdown_pages import ROOT, blocks

from heliograph.lab.ports import free_ports
from heliograph.lab.rehearsal import Ports, Rehearsal
from heliograph.site.status_socket import read_status
from heliograph.testing.links import example_registration
from heliograph.testing.openpgp_web import OpenPgpWeb
from heliograph.vault.rehearsal_ca import RehearsalCa

pytestmark = pytest.mark.slow  # real processes or real time: `make test` runs it

ENVIRONMENT = {**os.environ, "PATH": f"{os.path.dirname(sys.executable)}:{os.environ['PATH']}"}  # noqa: PTH120  - not resolved: a venv is a link
HOW_TO = ROOT / "docs/how-to"
PATIENCE_S = 300  # a bound on what hangs; a busy machine takes long


def _block(page, marker):
    (found,) = [block.text for block in blocks(HOW_TO / page) if block.marker == marker]
    return found


def _shell(text, directory, **more):
    return subprocess.run(
        ["sh", "-eu", "-c", text],
        cwd=directory,
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
        **more,
    )


@contextmanager
def _running(text, directory, stream, phrase):
    """Start one command of a page; go on when ``phrase`` appears; end it as Ctrl-C would, and demand exit 0."""
    with (directory / "other.log").open("a") as other:
        pipes = {"stdout": other, "stderr": other} | {stream: subprocess.PIPE}
        process = subprocess.Popen(["sh", "-c", f"exec {text}"], cwd=directory, env=ENVIRONMENT, text=True, **pipes)
    guard = threading.Timer(PATIENCE_S, process.kill)
    guard.start()
    pipe = process.stdout if stream == "stdout" else process.stderr
    seen = []
    drain = threading.Thread(target=lambda: [None for _ in pipe])
    try:
        for line in pipe:
            seen.append(line)
            if phrase in line:
                break
        else:
            pytest.fail(f"{text}: never said {phrase!r}: {seen[-3:]} {(directory / 'other.log').read_text()[-500:]}")
        drain.start()
        yield process
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 0
    finally:
        guard.cancel()
        process.kill()
        process.wait()
        if drain.ident:
            drain.join()
        pipe.close()


def _until_status(site, holds):
    """Ask a running site until its status is as wished: here, as a process for each question takes a second."""

    async def ask():
        async with asyncio.timeout(PATIENCE_S):
            while not holds(await read_status(site / "status.sock")):  # noqa: ASYNC110  - nobody tells
                await asyncio.sleep(0.1)

    asyncio.run(ask())


def test_a_key_book_is_made_and_compared_as_the_page_says(tmp_path):
    make, compare = (block.text for block in blocks(HOW_TO / "key-book.md") if block.marker == "run")
    made, compared = _shell(make, tmp_path), _shell(compare, tmp_path)
    assert (made.returncode, compared.returncode) == (0, 0)
    assert re.fullmatch(r"([0-9a-f]{4} ){7}[0-9a-f]{4}", compared.stdout.strip())
    assert compared.stdout.strip() in made.stdout


def test_counts_earn_the_key_that_the_page_prints(tmp_path):
    (tmp_path / "COUNTS.json").write_text(_block("keyrate.md", "file: COUNTS.json"))
    done = _shell(_block("keyrate.md", "walkthrough"), tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout == _block("keyrate.md", "output")


def test_a_link_gets_the_light_and_the_key_that_the_page_prints(tmp_path):
    """Digits may differ on another processor: words and their order must not, nor the key by more than 0.5 %."""
    for name in ("LINK.toml", "CURVE.toml"):
        (tmp_path / name).write_text(_block("keyrate.md", f"file: {name}"))
    done = _shell(_block("keyrate.md", "link"), tmp_path)
    assert done.returncode == 0, done.stderr
    page = _block("keyrate.md", "link output")
    words, printed = (re.sub(r"\d[\d.e+-]*|(?<=\d) +", "#", text) for text in (done.stdout, page))
    assert words.split() == printed.split()
    length, told = (int(re.search(r"^secret key  (\d+)", text)[1]) for text in (done.stdout, page))
    assert length / told == pytest.approx(1, abs=0.005)
    curve = _shell(_block("keyrate.md", "curve"), tmp_path)
    assert curve.returncode == 0, curve.stderr
    assert [line.split()[0] for line in curve.stdout.splitlines()[:4]] == ["km", "0", "50", "100"]


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl is not installed: apt-get install -y openssl")
def test_certificates_are_made_shown_and_revoked_as_the_page_says(tmp_path):
    make, compare, look = (b.text for b in blocks(HOW_TO / "pki.md") if b.marker == "walkthrough")
    made, compared, looked = (_shell(text, tmp_path) for text in (make, compare, look))
    assert [done.returncode for done in (made, compared, looked)] == [0, 0, 0], made.stderr + looked.stderr
    mark = compared.stdout.splitlines()[-1].strip()
    assert re.fullmatch(r"[0-9a-f]{64}", mark)
    assert mark in made.stdout
    assert looked.stdout.endswith("site-a/link.pem: OK\n")
    page = (HOW_TO / "pki.md").read_text()
    (purpose,) = re.findall(r"^  purposes +(2\.25\.\d+)$", looked.stdout, re.MULTILINE)[:1]
    assert purpose in page
    revoked = _shell(_block("pki.md", "revoke"), tmp_path)
    assert revoked.returncode == 0, revoked.stderr
    again = _shell(look, tmp_path)
    assert again.returncode != 0
    assert "certificate revoked" in again.stderr
    assert (tmp_path / "site-b.ocsp").exists()


@pytest.mark.slow
def test_the_readmes_demo_prints_the_report_it_shows(tmp_path):
    (sample,) = [b.text for b in blocks(ROOT / "README.md") if b.language == "text" and b.text.startswith("LIGHT")]
    run = _shell("heliograph demo --seed 1", tmp_path)
    assert run.returncode == 0, run.stderr

    def shape(text):
        return [re.sub(r"[0-9][0-9a-f,.]*|\s+", " ", line).split()[:2] for line in text.strip().splitlines()]

    assert shape(run.stdout) == shape(sample)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed: apt-get install -y curl")
def test_a_key_is_fetched_with_curl_as_the_page_says(tmp_path):
    demo = _block("fetch-a-key.md", "background").strip()
    with _running(demo, tmp_path, "stderr", "both sites stay up"):
        walk = _shell(_block("fetch-a-key.md", "walkthrough"), tmp_path)
    assert walk.returncode == 0, walk.stderr
    status, same, refused = walk.stdout.strip().splitlines()
    assert json.loads(status)["slave_SAE_ID"] == "sae-b"
    assert same == "the same key at both sites"
    assert json.loads(refused) == {"message": "one or more keys specified are not found on KME"}
    assert not list(tmp_path.glob("*.json"))


@pytest.mark.slow
def test_two_sites_come_up_as_the_page_says(tmp_path):
    """On one machine: the page's example addresses become ports of the loopback interface, nothing else changes."""
    page = blocks(HOW_TO / "two-sites.md")
    addresses = sorted({a for b in page for a in re.findall(r"192\.0\.2\.\d+:\d+|127\.0\.0\.1:9000", b.text)})
    local = {a: f"127.0.0.1:{p}" for a, p in zip(addresses, free_ports(len(addresses)), strict=True)}

    def here(text):
        return re.sub("|".join(map(re.escape, addresses)), lambda match: local[match[0]], text)

    def one(marker):
        return here(next(b.text for b in page if b.marker == marker)).strip()

    (tmp_path / "FIBRE.toml").write_text(one("file: FIBRE.toml"))
    digests, fingerprints = [], []
    for block in page:
        if block.marker == "setup":
            done = _shell(here(block.text), tmp_path)
            assert done.returncode == 0, done.stderr
            digests += re.findall(r"^  ([0-9a-f]{32})$", done.stdout, re.MULTILINE)
            fingerprints += re.findall(r"^  ((?:[0-9a-f]{4} ){7}[0-9a-f]{4})$", done.stdout, re.MULTILINE)
    assert len(digests) == 2
    assert digests[0] == digests[1]
    *_, at_a, at_b = fingerprints
    assert at_a == at_b
    for name in ("site-a/SITE.toml", "site-b/SITE.toml"):
        with (tmp_path / name).open("a") as file:
            file.write("\n" + one(f"append: {name}") + "\n")

    with ExitStack() as stack:
        stack.enter_context(_running(one("fibre"), tmp_path, "stdout", "ready"))
        for marker in ("site b", "site a"):
            stack.enter_context(_running(one(marker), tmp_path, "stdout", "ready"))
        _until_status(tmp_path / "site-a", lambda s: s.link.blocks and s.agent["mode"] == "encrypting")
        asked = _shell(one("status"), tmp_path)
        assert asked.returncode == 0, asked.stderr
        status = json.loads(asked.stdout.splitlines()[-1])
    assert status["link"]["blocks"] > 0, status
    assert status["agent"]["mode"] == "encrypting", status


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("gpg") is None, reason="gpg is not installed: apt-get install -y gnupg")
def test_peers_are_registered_and_revoked_as_the_page_says(tmp_path):
    """The rehearsal brings the files; the page's commands run where a site's operator would type them."""
    for method in ("psk", "pki", "openpgp"):
        pair = tmp_path / method
        registration = dataclasses.replace(example_registration(), bootstrap=method)
        Rehearsal(pair, Ports.free(), registration=registration).prepare()
        home = pair / "a"
        if method == "pki":
            authority = RehearsalCa.load(pair / "ca-b")
            issued = authority.find(int(next((pair / "ca-b" / "issued").iterdir()).stem, 16))
            (home / "other-root.pem").write_bytes((pair / "ca-b" / "root.pem").read_bytes())
            (home / "other-crl.pem").write_bytes(authority.revocation_lists(7.0))
            (home / "other.der").write_bytes(authority.ocsp_response(issued, 7.0))
        if method == "openpgp":
            (home / "introducers.asc").write_bytes((pair / "people" / "introducers.asc").read_bytes())
            (home / "b.asc").write_bytes((pair / "b" / "identity" / "openpgp.asc").read_bytes())
            with OpenPgpWeb() as web:
                (home / "stolen-key.asc").write_bytes(web.revocation(web.make("Somebody")))

        def page(marker):
            return _block("register.md", marker).replace("Site B <b@example.org>", "site-b <site-b@example>")

        for command in page(method).splitlines():
            for path in (home / "trust", home / "audit.jsonl", home / "audit.jsonl.head"):
                shutil.rmtree(path) if path.is_dir() else path.unlink()
            done = _shell(command, home)
            assert done.returncode == 0, done.stderr
            assert re.search(r"^  ([0-9a-f]{4} ){7}[0-9a-f]{4}$", done.stdout, re.MULTILINE)
            (home / "copy-of-audit.jsonl").write_bytes((home / "audit.jsonl").read_bytes())
            done = _shell(page("audit"), home)
            assert done.returncode == 0, done.stderr
            assert "registration, Ann Example" in done.stdout
            assert "end is unchecked" in done.stdout
            follow = {"psk": "psk again"}.get(method, f"revoke {method}")
            if follow != "revoke pki" or "--crl" in command:
                done = _shell(page(follow), home)
                assert done.returncode == 0, done.stderr
