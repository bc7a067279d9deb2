"""Break it before, break it later: who steals a link's anchors, when, and what that gets him. Real sites and fibres."""

import asyncio
import json
import shutil
from dataclasses import dataclass, field

import pytest
from eve_at_the_door import (
    answered,
    filtered_by,
    knock,
    lie_in_wait,
    presence_as,
    recorded,
    replay_to_listener,
    replayed,
    tag_made_by,
    tagged,
)
from fault_rehearsal import SITES, Consumers, blocks, new_block, until
from sightings import sightings, stored_secrets
from stolen_anchors import (
    Loot,
    Middle,
    burnt_slots,
    command,
    figures,
    free_ports_with_a_tap,
    honest_link,
    lines,
    reasons,
    refused,
    stand_in,
)

from heliograph.authentication.anchors.psk import parse_header, slot_range, slot_secrets
from heliograph.authentication.bootstrap import SignedEpoch, is_bootstrap_block
from heliograph.authentication.pads import PadRole
from heliograph.lab.rehearsal import Rehearsal
from heliograph.lab.wiretap import Wiretap
from heliograph.protocol.handshake import Door
from heliograph.protocol.hello import Hello, HelloWelcome, decode_hello
from heliograph.site.config import read_site
from heliograph.site.credentials import own_credential
from heliograph.storage.database import Database
from heliograph.storage.link_door import LinkDoor
from heliograph.vault.filekek import FileKek
from heliograph.vault.randomness import SystemRandomness

pytestmark = pytest.mark.slow
NEEDS_GPG = pytest.mark.skipif(shutil.which("gpg") is None, reason="gpg is not installed: apt-get install -y gnupg")


def cases(*rows):
    """Make one case of each row; those with OpenPGP need GnuPG."""
    return [
        pytest.param(*row, marks=NEEDS_GPG if "openpgp" in row[0] else (), id=" stolen ".join(dict.fromkeys(row)))
        for row in rows
    ]


def tell(prepare, scene):
    """Play a scene between ``prepare``'s rehearsals; whatever happens, no process and no file is left."""

    async def stage():
        play = prepare()
        try:
            await scene(play)
            for one in play.links:
                for log in one.directory.glob("*.log"):
                    text = log.read_text()
                    assert "internal error" not in text
                    assert "Traceback" not in text
        finally:
            await asyncio.gather(*(one.stop_all() for one in play.links))
            play.remove()

    asyncio.run(stage())


async def ask(*words):
    done = await asyncio.to_thread(command, *words)
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout)


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

    tell(lambda: Middle.prepare(method, [stolen]), scene)


# Published after the first block.
@dataclass
class Published:
    """An honest link behind a recorder, everything that its trust started from, and Eve's sites in its places."""

    honest: Rehearsal
    eve: Rehearsal
    loot: Loot
    taps: list = field(default_factory=list)

    @classmethod
    def prepare(cls, method):
        honest = honest_link(method, free_ports_with_a_tap())
        loot = Loot.of(honest)
        return cls(honest, stand_in(honest, loot, method.split("+")), loot)

    @property
    def links(self):
        return self.honest, self.eve

    @property
    def port(self):
        return self.honest.ports.classical

    @property
    def identity(self):
        return self.honest.registration.identity()

    async def record(self):
        """Put a new recorder on the line in the place of the one before, whose connections end."""
        if self.taps:
            await self.taps[-1].close()
        tap = Wiretap(f"tap{len(self.taps)}", self.honest.directory)
        self.taps.append(tap)
        await tap.start(("127.0.0.1", self.honest.ports.classical_tap), ("127.0.0.1", self.port))

    def signer(self, home):
        """Eve's signer as the site at ``home``: the stolen key, None without signatures."""
        credential = own_credential(read_site(self.eve.directory / home / "SITE.toml"))
        return None if credential is None else credential.signer

    def remove(self):
        shutil.rmtree(self.honest.directory.parent)


def tell_published(method, scene):
    async def with_taps(link):
        try:
            await scene(link)
        finally:
            for tap in link.taps:
                await tap.close()

    tell(lambda: Published.prepare(method), with_taps)


async def alone(rehearsal, name):
    """Wait until a site knows that its peer has gone."""

    async def left():
        return (await rehearsal.status(name)).link.state.startswith("not connected")

    await until(left)


def books(link):
    return [path.read_bytes() for path in sorted(link.honest.directory.glob("?/psk.book"))]


async def first_blocks(link, keys):
    """Let the honest link make its first blocks and deliver keys; then once more over a second connection."""
    await link.record()
    await link.honest.start_all()
    consumers = Consumers(link.honest, keep=keys)
    consumers.start()

    async def enough():
        return await blocks(link.honest) >= 3 and len(keys) >= 20

    await until(enough, 90)
    await consumers.stop()
    assert consumers.deliveries.check() > 0
    await link.record()
    await new_block(link.honest, 60)


@pytest.mark.parametrize("method", [pytest.param(m) for m in ("pki", "psk", "psk+pki")])
def test_published_after_the_first_block_nobody_gets_in_and_the_recordings_stay_shut(method):
    keys = []

    async def scene(link):
        honest, eve = link.honest, link.eve
        await first_blocks(link, keys)
        # B goes; Eve takes its address, with every secret that the link began with and all that crossed the wire.
        await honest.stop("site_b")
        await alone(honest, "site_a")
        await link.record()
        past, now = recorded(link.taps[0]), recorded(link.taps[1])
        before, pads = await figures(honest, "site_a"), books(link)
        await eve.start("site_b")

        async def tried():
            return any("not held here" in one for one in reasons(eve, "site_b"))

        await until(tried, 60)
        await eve.stop("site_b")
        doors = [Door(0, key, link.signer("b")) for key in published_doors(link)]
        acts = [replayed(past[-1]), replayed(now[0])]
        acts += [answered(link.identity, presence_as("site-b", now[0]), door) for door in doors]
        # A restart at her hands changes nothing.
        waiting = asyncio.create_task(lie_in_wait(link.port, acts))
        await honest.stop("site_a")
        await honest.start("site_a")
        assert await waiting == [None] * len(acts)
        assert "does not prove itself" in " ".join(reasons(honest, "site_a"))
        assert await figures(honest, "site_a") == before
        assert books(link) == pads
        # The honest B comes back, and the link goes on where it was.
        await honest.start("site_b")
        await new_block(honest, 60)
        # And the other way round: Eve's A' dials B.
        await honest.stop("site_a")
        await alone(honest, "site_b")
        before_b = await figures(honest, "site_b")
        await eve.start("site_a")

        async def tried_again():
            return any("new bootstrap, which is shut" in one for one in reasons(honest, "site_b"))

        await until(tried_again, 60)
        await eve.stop("site_a")
        for one in (*past, *now):
            assert await replay_to_listener(link.port, one) is None
        as_a = presence_as("site-a", now[0])
        generation = now[0].generation
        assert generation > 0
        for key in published_doors(link):
            for door in (
                Door(0, key, link.signer("a")),
                Door(generation, key),
                Door(generation, key, link.signer("a")),
            ):
                assert await knock(link.port, link.identity, as_a, door) is None
        assert await figures(honest, "site_b") == before_b
        assert books(link) == pads
        await link.record()
        await honest.start("site_a")
        await new_block(honest, 60)
        after = await figures(honest, "site_a")
        assert [after[one] for one in ("epoch", "chain", "opened_at")] == [
            before[one] for one in ("epoch", "chain", "opened_at")
        ]
        for name in SITES:
            assert len(lines(honest, name, "epoch opened")) == 1
        # Her tools are good: with the link's own key, which nobody published, they open the door.
        await honest.stop("site_a")
        await link.taps[-1].close()
        own = link_keys(honest, "site_a", generation)
        last = recorded(link.taps[-1])[-1]
        said = await knock(link.port, link.identity, presence_as("site-a", last), Door(generation, own.resync_key))
        assert decode_hello(said, HelloWelcome)
        await honest.stop("site_b")
        check_recordings(link, [*past, *now], own)
        secrets = keys + [secret for name in SITES for secret in stored_secrets(honest, name)]
        wire = {path.name: path.read_bytes() for tap in link.taps for path in tap.files}
        assert sum(map(len, wire.values())) > 100_000
        assert sightings(secrets, wire) == set()

    tell_published(method, scene)


def published_doors(link):
    """Return the published keys that have most to do with doors: none, the book's own, its slots' first ones."""
    found = [bytes(32)]
    if link.loot.book.exists():
        book = link.loot.book.read_bytes()
        found.append(parse_header(book).resync_key)
        found += [slot_secrets(book[slice(*slot_range(slot))]).filter_key_to_receiver for slot in range(2)]
    return found


def link_keys(rehearsal, name, generation):
    """Open a stopped site's own keys with its key-encryption key."""
    config = read_site(rehearsal.sites[name])
    database = Database(config.path(config.file.store), FileKek(config.path(config.file.kek), SystemRandomness()))
    try:
        return LinkDoor(database).keys(generation)
    finally:
        database.close()


def check_recordings(link, connections, own):
    """Show what the published secrets give of the recordings: of the bootstrap something, of all later nothing."""
    keys, method = link.loot.keys(), link.honest.registration.bootstrap
    bootstrap = [one for one in connections if one.generation == 0 and one.sent]
    later = [one for one in connections if one.generation > 0]
    assert bootstrap
    assert later
    for one in bootstrap:  # a book keys it, an exchange that nobody published does otherwise
        assert len(filtered_by(one, keys)) == (2 if method == "psk" else 0)
    for one in later:
        assert filtered_by(one, keys) == []
        assert filtered_by(one, [own.filter_to_receiver, own.filter_to_transmitter]) != []
    blocks_ = tagged(link.identity, connections)
    assert len([block for _, block in blocks_ if is_bootstrap_block(block)]) == 1
    assert len(blocks_) >= 3
    context = decode_hello(bootstrap[0].hello, Hello).context
    for (epoch, block), tags in blocks_.items():
        for role, covered, tag in tags:
            if not is_bootstrap_block(block):
                assert len(tag) == 16
                assert not tag_made_by(keys, covered, tag)
                continue
            # The same arithmetic finds the first block's tags at once, so it is the right one.
            if method.startswith("psk"):
                assert tag_made_by(keys, covered, tag)
            if method != "psk":
                signed = SignedEpoch(context, link.signer("ab"[role % 2]), None)
                assert tag[-64:] == signed.sign(covered)
        if is_bootstrap_block(block):
            assert [role for role, *_ in tags] == list(PadRole)
            assert epoch == 1
