"""No key, pad or secret in any log, status, output or recorded byte, in any usual spelling."""

import asyncio
import base64
import json
import sys

import pytest
from fault_rehearsal import SITES, Consumers, blocks, small_blocks, until
from sightings import sightings, stored_secrets

from heliograph.authentication.anchors.psk import secret_size
from heliograph.lab.rehearsal import Ports
from heliograph.lab.wiretap import Wiretap

pytestmark = pytest.mark.slow


async def watched_run():
    """Run both sites at debug level behind recorders; return all secrets, and all that anyone could see."""
    ports = Ports.free()
    rehearsal = small_blocks(ports=ports, log_level="debug", bootstrap="psk+pki")
    books = [(rehearsal.sites[name].parent / "psk.book").read_bytes() for name in SITES]
    keys, statuses, taps = [], [], []
    consumers = Consumers(rehearsal, keep=keys)
    try:
        for name, listen, target in (
            ("classical", ports.classical_tap, ports.classical),
            ("control", ports.control_tap, ports.control),
            ("tunnel", ports.tunnel_tap, ports.tunnel),
        ):
            tap = Wiretap(name, rehearsal.directory)
            await tap.start(("127.0.0.1", listen), ("127.0.0.1", target))
            taps.append(tap)
        await rehearsal.start_all()
        consumers.start()

        async def enough():
            return await blocks(rehearsal) >= 4 and len(keys) >= 100

        await until(enough)
        for name in SITES:
            program = [sys.executable, "-m", "heliograph.cli.main", "site", "status", "--json"]
            shown = await asyncio.create_subprocess_exec(
                *program, str(rehearsal.sites[name]), stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
            )
            statuses.append((await shown.communicate())[0])
            assert json.loads(statuses[-1])["link"]["blocks"] >= 3
        await consumers.stop()
        await rehearsal.stop_all()
        for tap in taps:
            await tap.close()
        secrets = keys + [s for name in SITES for s in stored_secrets(rehearsal, name)]
        assert len(books[0]) >= secret_size()
        book = books[0]
        assert books[0] == books[1]
        secrets += [book[at : at + 32] for at in range(32, len(book) - 32, 32)]
        seen = {f"status {number}": text for number, text in enumerate(statuses)}
        for path in (*rehearsal.directory.glob("*.log"), *rehearsal.directory.glob("*.bin")):
            seen[path.name] = path.read_bytes()
        logs = b"".join(content for name, content in seen.items() if name.endswith(".log"))
    finally:
        await rehearsal.stop_all()
        rehearsal.remove()
    return secrets, seen, logs


@pytest.fixture(scope="module")
def run():
    return asyncio.run(watched_run())


def test_no_key_pad_or_secret_is_seen_anywhere(run):
    secrets, seen, logs = run
    assert len(secrets) > 200
    assert len(seen["classical.dialler.bin"]) > 100_000
    assert b"enc_keys" in logs  # the debug level is on
    assert sightings(secrets, seen) == set()


def test_no_warning_of_the_event_loop_is_in_the_logs(run):
    _, _, logs = run
    for words in (b"never awaited", b"never retrieved", b"was destroyed but it is pending", b"Traceback", b"Unclosed"):
        assert words not in logs


PLANTED = {
    "raw": bytes,
    "hexadecimal": lambda secret: secret.hex().encode(),
    "upper case": lambda secret: secret.hex().upper().encode(),
    "with colons": lambda secret: secret.hex(":").encode(),
    "base64": base64.b64encode,
    "base64 in a URL": base64.urlsafe_b64encode,
    "base64 behind a name": lambda secret: base64.b64encode(b"k" + secret),
    "base64 behind two bytes": lambda secret: base64.b64encode(b"k=" + secret),
    "a Python literal": lambda secret: repr(secret).encode(),
    "a list of numbers": lambda secret: repr(list(secret)).encode(),
    "its first half only": lambda secret: secret[:16].hex().encode(),
}


@pytest.mark.parametrize("spelling", PLANTED)
def test_the_search_itself_finds_a_planted_key(run, spelling):
    secrets, seen, _ = run
    log = seen["site_a.log"]
    for number in (1, len(secrets) - 1):
        spoilt = log[: len(log) // 2] + PLANTED[spelling](secrets[number]) + log[len(log) // 2 :]
        assert number in {n for _, n in sightings(secrets, {"site_a.log": spoilt})}
