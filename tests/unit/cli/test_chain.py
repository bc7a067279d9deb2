"""`site window` and `site compare`: what a running site says of its chain, and what becomes of a comparison."""

import asyncio
import json
import threading
from contextlib import contextmanager

import msgspec
import pytest
from registered_sites import refused, run, two_sites

from heliograph.authentication.anchors.words import grouped, words
from heliograph.site.comparison import describe_comparison, read_comparison
from heliograph.site.config import read_site
from heliograph.site.status_socket import serve_status
from heliograph.status import Budget, KmeStatus, LinkStatus, PadFlow, SiteStatus

CHAIN = bytes(range(16))
FAR = json.dumps([{"epoch": 1, "chain": CHAIN.hex(), "approver": "Ann", "time": 1e300}]).encode()
TEXTS = {"link": "a-b", "state": "running", "peer": "site-b", "bootstrap": "psk", "last_discard": "", "compared": ""}
FIGURES = {field.name: 0 for field in msgspec.structs.fields(LinkStatus)}
OTHERS = {
    "first_key_s": None,
    "chain": CHAIN.hex(),
    "algorithms": ["psk-one-time-pads"],
    "epoch": 1,
    "blocks": 9,
    "epoch_blocks": 7,
    "opened_at": 1.6e9,
    "eps_total": 2e-15,
    "mac": "wegman-carter-poly1305",
    "assurance": "information-theoretic",
    "budget": msgspec.to_builtins(Budget("normal", PadFlow(*range(6)), PadFlow(*range(6)), 1.0, 1.0, None, 1.0)),
}
LINK = msgspec.convert({**FIGURES, **TEXTS, **OTHERS}, LinkStatus)


@contextmanager
def answering(config, **changes):
    """Answer at the site's status socket, as its process would."""
    link = msgspec.structs.replace(LINK, **changes)
    status = SiteStatus("site-a", 1, "computational", "file", link, KmeStatus(1, 2, 3), None)
    loop, ready, stop = asyncio.new_event_loop(), threading.Event(), asyncio.Event()

    async def serve():
        async def tell():
            return status

        server = await serve_status(config.path(config.file.status), tell)
        ready.set()
        await stop.wait()
        server.close()

    thread = threading.Thread(target=loop.run_until_complete, args=(serve(),))
    thread.start()
    try:
        assert ready.wait(10)
        yield
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join(10)
        loop.close()


@pytest.fixture
def config():
    with two_sites("psk") as directory:
        yield read_site(directory / "a" / "SITE.toml")


def events(config):
    return json.loads(run("audit", "verify", config.toml, "--json").stdout)["entries"]


def test_the_chain_is_shown_in_words_and_digits(config):
    with answering(config):
        said = run("site", "compare", config.toml)
        document = json.loads(run("site", "compare", config.toml, "--json").stdout)
    assert grouped(CHAIN) in said.stdout
    assert words(CHAIN) == " ".join(said.stdout.split("same:\n")[1].split("\n  0001")[0].split())
    assert "Nobody compared it" in said.stdout
    assert document == {
        "link": "a-b",
        "epoch": 1,
        "chain": {"words": words(CHAIN), "hex": CHAIN.hex()},
        "compared": None,
    }


@pytest.mark.parametrize("said", [words(CHAIN), CHAIN.hex(), grouped(CHAIN).upper(), words(CHAIN).replace(" ", "-")])
def test_an_equal_chain_is_recorded_for_this_epoch_only(config, said):
    with answering(config):
        done = run("site", "compare", config.toml, "--matches", said, "--approver", "Ann")
        assert done.exit_code == 0, done.output
        assert "compared: Ann" in done.stdout
        assert "compared: Ann" in run("site", "compare", config.toml).stdout
        window = json.loads(run("site", "window", config.toml, "--json").stdout)
    assert window["compared"]["approver"] == "Ann"
    assert events(config)[-1]["event"] == "chain comparison"
    found = read_comparison(config, 1, CHAIN.hex())
    assert (found.chain, found.approver) == (CHAIN.hex(), "Ann")
    assert describe_comparison(found).startswith("Ann, 20")
    with answering(config, epoch=2):
        assert "Nobody compared it" in run("site", "compare", config.toml).stdout
        assert run("site", "compare", config.toml, "--matches", said, "--approver", "Bob").exit_code == 0
    assert [read_comparison(config, epoch, CHAIN.hex()).approver for epoch in (1, 2)] == ["Ann", "Bob"]


def test_another_chain_is_a_plain_warning_that_the_log_keeps(config):
    other = words(bytes(reversed(CHAIN)))
    with answering(config):
        done = run("site", "compare", config.toml, "--matches", other, "--approver", "Ann")
        refused(done, "NOT", "man in the middle", "stop both sites")
        as_json = run("site", "compare", config.toml, "--matches", other, "--approver", "Ann", "--json")
        assert "Nobody compared it" in run("site", "compare", config.toml).stdout
    assert json.loads(as_json.stdout)["error"]["code"] == "ChainDiffers"
    assert [e["event"] for e in events(config)] == ["registration", "chain comparison", "chain comparison"]
    assert read_comparison(config, 1, CHAIN.hex()) is None


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--matches", words(CHAIN)], "--approver"),
        (["--approver", "Ann"], "--matches"),
        (["--matches", "abuot " * 12, "--approver", "Ann"], "abuot"),
        (["--matches", "zoo " * 12, "--approver", "Ann"], "checksum"),
        (["--matches", "", "--approver", "Ann"], "0 words"),
        (["--matches", words(CHAIN), "--approver", " "], "--approver"),
    ],
)
def test_a_slip_of_the_tongue_is_no_alarm(config, options, says):
    with answering(config):
        line = refused(run("site", "compare", config.toml, *options), says)
    assert "middle" not in line
    assert [e["event"] for e in events(config)] == ["registration"]


def test_before_the_first_key_there_is_nothing_to_compare(config):
    with answering(config, chain=None):
        refused(run("site", "compare", config.toml), "no chain", "both sites committed", "site status")
        matched = run("site", "compare", config.toml, "--matches", words(CHAIN), "--approver", "Ann")
        refused(matched, "no chain")


def test_the_window_shows_what_the_keys_rest_on(config):
    with answering(config):
        said = run("site", "window", config.toml)
        document = json.loads(run("site", "window", config.toml, "--json").stdout)
    assert said.exit_code == 0, said.output
    for text in ("registered by the rehearsal", "bootstrap psk, 2020-09-13", "psk-one-time-pads", "epoch 1", "7 blocks",
                 "eps 2.00e-15", "wegman-carter-poly1305", "by nobody"):  # fmt: skip
        assert text in said.stdout, said.stdout
    assert document["registered"]["approver"] == "the rehearsal"
    assert document["bootstrap"] == "psk"
    assert (document["epoch"], document["blocks"], document["eps_total"]) == (1, 7, 2e-15)
    assert document["algorithms"] == ["psk-one-time-pads"]
    assert document["compared"] is None


@pytest.mark.parametrize("command", ["window", "compare"])
def test_a_site_that_does_not_run_has_no_chain_to_show(config, command):
    refused(run("site", command, config.toml), "is it running")


def test_a_comparison_that_cannot_be_read_was_not_made(config):
    for content in (b"", b"[", b"[]", b'[{"epoch":1}]', b"\xff", FAR):
        (config.trust / "compared.json").write_bytes(content)
        assert read_comparison(config, 1, CHAIN.hex()) is None
    with answering(config):
        assert run("site", "compare", config.toml, "--matches", words(CHAIN), "--approver", "Ann").exit_code == 0
    assert read_comparison(config, 1, CHAIN.hex()).approver == "Ann"


def test_a_comparison_is_of_one_chain_not_of_a_number(config):
    """A store that was made anew under the same anchors begins at epoch 1 again, with a chain nobody compared."""
    with answering(config):
        assert run("site", "compare", config.toml, "--matches", words(CHAIN), "--approver", "Ann").exit_code == 0
    with answering(config, chain=bytes(reversed(CHAIN)).hex()):
        assert "Nobody compared it" in run("site", "compare", config.toml).stdout
        assert "by nobody" in run("site", "window", config.toml).stdout


def test_a_chain_that_was_found_different_is_no_longer_told_as_compared(config):
    with answering(config):
        assert run("site", "compare", config.toml, "--matches", words(CHAIN), "--approver", "Ann").exit_code == 0
        other = words(bytes(reversed(CHAIN)))
        refused(run("site", "compare", config.toml, "--matches", other, "--approver", "Bob"), "NOT")
        assert "by nobody" in run("site", "window", config.toml).stdout
