"""Published after the first block: who holds all that a link began with gets nothing, until he is let in anew."""

import asyncio
import shutil
from dataclasses import dataclass, field, replace

import pytest
from cryptography import x509
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
    NEEDS_OPENPGP,
    Loot,
    command,
    figures,
    free_ports_with_a_tap,
    honest_link,
    lines,
    reasons,
    signer_of,
    stand_in,
    tell,
)

from heliograph.authentication.anchors.psk import parse_header, slot_range, slot_secrets
from heliograph.authentication.bootstrap import SignedEpoch, is_bootstrap_block
from heliograph.authentication.pads import PadRole
from heliograph.lab.rehearsal import Rehearsal
from heliograph.lab.wiretap import Wiretap
from heliograph.protocol.handshake import Door
from heliograph.protocol.hello import Hello, HelloWelcome, decode_hello
from heliograph.site.config import read_site
from heliograph.storage.database import Database
from heliograph.storage.link_door import LinkDoor
from heliograph.testing.openpgp_web import OpenPgpWeb
from heliograph.vault.filekek import FileKek
from heliograph.vault.randomness import SystemRandomness
from heliograph.vault.rehearsal_ca import RehearsalCa

pytestmark = pytest.mark.slow


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


@pytest.mark.parametrize(
    "method", ["psk+pki", pytest.param("pki", marks=pytest.mark.soak), pytest.param("psk", marks=pytest.mark.soak)]
)
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
        doors = [Door(0, key) for key in published_doors(link)[:2]]
        if method != "psk":
            doors.insert(0, replace(doors[-1], signer=signer_of(link.eve, "b")))
        acts = [answered(link.identity, presence_as("site-b", now[0]), door) for door in doors]
        acts = [replayed(past[-1]), replayed(now[0]), *acts]
        # A restart at her hands changes nothing.
        waiting = asyncio.create_task(lie_in_wait(link.port, acts))
        await honest.stop("site_a")
        await honest.start("site_a")
        assert await waiting == [None] * len(acts)

        async def cause_told():  # a site logs one refusal a second at most, so the last one is tried until it is told
            assert await lie_in_wait(link.port, acts[-1:]) == [None]
            return any("does not prove itself" in one for one in reasons(honest, "site_a"))

        await until(cause_told, 60)
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
                Door(0, key, signer_of(link.eve, "a")),
                Door(generation, key),
                Door(generation, key, signer_of(link.eve, "a")),
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
                signed = SignedEpoch(context, signer_of(link.eve, "ab"[role % 2]), None)
                assert tag[-64:] == signed.sign(covered)
        if is_bootstrap_block(block):
            assert [role for role, *_ in tags] == list(PadRole)
            assert epoch == 1


# Published after the first block, and used when an operator opens the bootstrap again.
async def order(rehearsal, home):
    toml = rehearsal.directory / home / "SITE.toml"
    done = await asyncio.to_thread(command, "rebootstrap", "--yes", "--approver", "Ann", toml)
    assert done.exit_code == 0, done.output


def withdrawn(link, method):
    """Let B's operator withdraw what was stolen of B; return the option and the file for A's operator."""
    path = link.honest.directory / "withdrawn"
    stolen = link.loot.directory / "b" / "identity"
    if method == "pki":
        authority = RehearsalCa.load(link.honest.directory / "ca-b")
        authority.revoke(x509.load_pem_x509_certificate((stolen / "link.pem").read_bytes()).serial_number)
        path.write_bytes(authority.revocation_lists(7.0))
        return "--crl", path
    with OpenPgpWeb() as web:
        web.gpg("--import", data=(stolen / "openpgp.key").read_bytes())
        said = b"y\n1\n\ny\n"  # yes; the key has been compromised; no more to say; yes
        path.write_bytes(web.gpg("--armor", "--command-fd=0", "--gen-revoke", "site-b", data=said))
    return "--revocation", path


@pytest.mark.parametrize("method", ["pki", pytest.param("openpgp", marks=[NEEDS_OPENPGP, pytest.mark.soak])])
def test_stolen_afterwards_and_used_for_a_new_bootstrap_is_refused_once_it_is_revoked(method):
    async def scene(link):
        honest, eve = link.honest, link.eve
        await link.record()
        await honest.start_all()
        await new_block(honest, 90)
        await honest.stop("site_b")
        await honest.stop("site_a")
        # Not revoked: to A's operator this is B, and so a new bootstrap is what lets a thief in.
        await order(honest, "a")
        await eve.start("site_b")
        await honest.start("site_a")
        await new_block(honest, 90)
        assert (await figures(honest, "site_a"))["epoch"] == 2
        assert (await figures(eve, "site_b"))["chain"] == (await figures(honest, "site_a"))["chain"]
        # Revoked: she has all that she had before, and both doors stand open as they did before.
        await honest.stop("site_a")
        await eve.stop("site_b")
        option, path = withdrawn(link, method)
        done = await asyncio.to_thread(command, "revoke", honest.sites["site_a"], option, path, "--approver", "Ann")
        assert done.exit_code == 0, done.output
        await order(honest, "a")
        await order(eve, "b")
        opened = [len(lines(one, name, "epoch opened")) for one, name in ((honest, "site_a"), (eve, "site_b"))]
        so_far = len(reasons(honest, "site_a"))
        await eve.start("site_b")
        await honest.start("site_a")
        before = await figures(honest, "site_a")
        assert before["pad_sets"] == 0

        async def tried():
            return [("revoked" in one) for one in reasons(honest, "site_a")[so_far:]].count(True) >= 3

        await until(tried, 90)
        assert "revoked" in (await honest.status("site_a")).link.state
        assert await figures(honest, "site_a") == before
        assert [len(lines(one, n, "epoch opened")) for one, n in ((honest, "site_a"), (eve, "site_b"))] == opened
        await eve.stop("site_b")
        if method == "openpgp":
            return  # a new key needs new certifications: people's work, as in any registration
        # B's operator has a new certificate issued, which A needs not be told of.
        identity = honest.directory / "b" / "identity"
        for name in ("link.pem", "link.key"):
            (identity / name).unlink()
        RehearsalCa.load(honest.directory / "ca-b").issue_to(identity, "site-b", 7.0)
        await order(honest, "b")
        await honest.start("site_b")
        await new_block(honest, 90)
        assert (await figures(honest, "site_a"))["epoch"] == 3
        assert (await figures(honest, "site_b"))["chain"] == (await figures(honest, "site_a"))["chain"]

    tell_published(method, scene)
