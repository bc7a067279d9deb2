"""Stolen before the bootstrap: of one anchor alone, a man in the middle; one of two, nobody. Real sites and fibres."""

import asyncio
import os

import pytest
from eve_at_the_door import knock
from fault_rehearsal import SITES, Consumers, new_block, until
from stolen_anchors import (
    NEEDS_OPENPGP,
    Middle,
    arm,
    ask,
    burnt_slots,
    command,
    figures,
    lines,
    refused,
    signer_of,
    tell,
)

from heliograph.authentication.anchors.psk import parse_header
from heliograph.protocol.handshake import Door, Presence
from heliograph.protocol.hello import HelloWelcome, decode_hello
from heliograph.protocol.records import Marks

pytestmark = pytest.mark.slow


def cases(*rows):
    """Make one case of each row; those with OpenPGP need GnuPG. All but the first take part in `make soak` only."""
    return [
        pytest.param(
            *row,
            marks=[*([NEEDS_OPENPGP] if "openpgp" in row[0] else []), *([pytest.mark.soak] if row != rows[0] else [])],
            id=" stolen ".join(dict.fromkeys(row)),
        )
        for row in rows
    ]


# Published before the bootstrap.
@pytest.mark.parametrize(
    ("method", "stolen"), cases(("pki", "pki"), ("openpgp", "openpgp"), ("psk", "psk"), ("psk+pki", "psk+pki"))
)
def test_stolen_before_the_bootstrap_all_of_it_makes_a_man_in_the_middle_whom_two_people_find(method, stolen):
    async def scene(middle):
        await asyncio.gather(*(one.start_all() for one in middle.links))
        await asyncio.gather(*(new_block(one, 90) for one in middle.links))
        # She reads along: every key that A's consumer takes is in her own B' too, and the same on the other side.
        consumers = [Consumers(one) for one in middle.links]
        for one in consumers:
            one.start()

        async def read():
            return all(len(one.deliveries.slaves) >= 10 for one in consumers)

        await until(read, 60)
        for one in consumers:
            await one.stop()
            assert one.deliveries.check() >= 10
        # What the two operators see and say.
        a, b = middle.left.sites["site_a"], middle.right.sites["site_b"]
        status = [await ask("status", "--json", toml) for toml in (a, b)]
        assert [one["link"]["state"] for one in status] == ["running", "running"]
        shown = [await ask("compare", toml, "--json") for toml in (a, b)]
        chains = [one["chain"]["hex"] for one in shown]
        assert [one["link"]["chain"] for one in status] == chains
        assert chains[0] != chains[1]
        for toml in (a, b):
            window = await ask("window", toml, "--json")
            assert window["compared"] is None
            assert window["bootstrap"] == method
        for toml, said in ((a, shown[1]), (b, shown[0])):
            for spelling in said["chain"].values():
                done = await asyncio.to_thread(command, "compare", toml, "--matches", spelling, "--approver", "Ann")
                assert done.exit_code == 1
                assert "NOT this one's" in done.stderr
                assert "man in the middle" in done.stderr
                assert len(done.stderr.splitlines()) == 1
        assert (await middle.left.status("site_a")).link.compared == ""
        # The chain is not different by accident: she and her victim on either side have the same.
        for one, chain in zip(middle.links, chains, strict=True):
            for name in SITES:
                assert (await ask("compare", one.sites[name], "--json"))["chain"]["hex"] == chain

    tell(lambda: Middle.prepare(method, stolen.split("+")), scene)


@pytest.mark.parametrize(
    ("method", "stolen"),
    cases(("psk+pki", "pki"), ("psk+pki", "psk"), ("psk+openpgp", "psk")),
)
def test_stolen_before_the_bootstrap_one_of_two_anchors_gets_nobody_in(method, stolen):
    async def scene(middle):
        books = [middle.left.directory / "a" / "psk.book", middle.right.directory / "b" / "psk.book"]
        before = [book.read_bytes() for book in books]
        await asyncio.gather(*(one.start_all() for one in middle.links))

        async def enough():
            return refused(middle.left, "site_a") >= 4 and refused(middle.right, "site_b") >= 4

        await until(enough, 60)
        cause = "does not prove itself" if stolen != "psk" else "site-b"
        for one, name in ((middle.left, "site_a"), (middle.right, "site_b")):
            link = (await one.status(name)).link
            assert link.state.startswith("not connected: ")
            assert "\n" not in link.state
            assert (await figures(one, name)) | {"chain": None} == {
                "epoch": 0, "blocks": 0, "blocks_discarded": 0, "pad_sets": 0, "bits_spent": 0, "bits_refilled": 0,
                "eps_total": 0.0, "secret_key_bits": 0, "chain": None, "opened_at": 0.0,
            }  # fmt: skip
            assert lines(one, name, "epoch opened") == []
        assert cause in (await middle.left.status("site_a")).link.state
        assert [book.read_bytes() for book in books] == before
        assert burnt_slots(books[0]) == burnt_slots(books[1]) == []
        # An A' that does not care what B proves to her gets no further; one with both halves would.
        right = middle.right
        as_a = Presence("site-a", Marks(0, 0, 0, 0, 0), os.urandom(16))
        hers = Door(
            0, parse_header((right.directory / "a" / "psk.book").read_bytes()).resync_key, signer_of(right, "a")
        )
        identity = right.registration.identity()
        assert await knock(right.ports.classical, identity, as_a, hers) is None
        assert [book.read_bytes() for book in books] == before
        arm(right, "a", middle.loot, method.split("+"))
        both = Door(0, parse_header(middle.loot.book.read_bytes()).resync_key, signer_of(right, "a"))
        assert decode_hello(await knock(right.ports.classical, identity, as_a, both), HelloWelcome)

    tell(lambda: Middle.prepare(method, [stolen]), scene)
