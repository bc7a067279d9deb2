"""What an attacker makes of stolen anchors: sites of her own, a man in the middle, and the watch on her victims."""

import json
import shutil
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

from cryptography.hazmat.primitives.serialization import load_pem_private_key
from fault_rehearsal import DISTANCE_KM, direct_ports
from typer.testing import CliRunner

from heliograph.authentication.anchors.psk import slot_range
from heliograph.cli.main import app
from heliograph.lab.rehearsal import Ports, Rehearsal
from heliograph.site.config import read_site
from heliograph.site.credentials import PeerFiles
from heliograph.site.register import register
from heliograph.testing.links import example_registration

HOMES = ("a", "b")
KEY_BYTES = 32
# What an anchor's thief must not move at a site. Figures of the link's status.
FIGURES = (
    "epoch",
    "blocks",
    "blocks_discarded",
    "pad_sets",
    "bits_spent",
    "bits_refilled",
    "eps_total",
    "secret_key_bits",
    "chain",
    "opened_at",
)


def registration_of(method):
    return replace(example_registration(), bootstrap=method)


def honest_link(method, ports=None):
    """Prepare two sites that registered each other; their directory is short, for Unix sockets."""
    directory = Path(tempfile.mkdtemp(prefix="hgs")) / "l"
    directory.mkdir(mode=0o700)
    rehearsal = Rehearsal(directory, ports or direct_ports(), DISTANCE_KM, 1, registration=registration_of(method))
    rehearsal.prepare()
    return rehearsal


@dataclass(frozen=True)
class Loot:
    """Copies of everything that the trust of one link started from, as it was before the first use."""

    directory: Path

    @classmethod
    def of(cls, rehearsal):
        """Copy site keys, the CAs' keys and the unused book, and the public files beside them."""
        loot = cls(rehearsal.directory.parent / "loot")
        loot.directory.mkdir(mode=0o700)
        for home in HOMES:
            for name in (f"{home}/identity", f"ca-{home}"):
                if (rehearsal.directory / name).exists():
                    shutil.copytree(rehearsal.directory / name, loot.directory / name)
        if (rehearsal.directory / "people").exists():
            shutil.copytree(rehearsal.directory / "people", loot.directory / "people")
        if (rehearsal.directory / "a" / "psk.book").exists():
            shutil.copy2(rehearsal.directory / "a" / "psk.book", loot.book)
        return loot

    @property
    def book(self):
        return self.directory / "psk.book"

    def peer_files(self, home):
        """Return what anybody knows by which the honest site at ``home`` is believed."""
        if (self.directory / f"ca-{home}").exists():
            return PeerFiles(
                ca=self.directory / f"ca-{home}" / "root.pem", crl=self.directory / f"ca-{home}" / "crl.pem"
            )
        if (self.directory / "people").exists():
            return PeerFiles(
                introducers=self.directory / "people" / "introducers.asc",
                threshold=2,
                user_id=f"site-{home} <site-{home}@example>",
                certificate=self.directory / home / "identity" / "openpgp.asc",
            )
        return PeerFiles()

    def keys(self):
        """Every 32 secret bytes that were published: of books, and of private keys for signatures."""
        found = []
        if self.book.exists():
            book = self.book.read_bytes()
            found += [book[at : at + KEY_BYTES] for at in range(KEY_BYTES, len(book) - KEY_BYTES + 1, KEY_BYTES)]
        for path in sorted(self.directory.rglob("*.key")):
            content = path.read_bytes()
            if path.name == "openpgp.key":  # wherever in it the secret is
                found += [content[at : at + KEY_BYTES] for at in range(len(content) - KEY_BYTES + 1)]
            else:
                found.append(load_pem_private_key(content, None).private_bytes_raw())
        return [bytes(KEY_BYTES), *found]


def arm(rehearsal, home, loot, stolen):
    """Let Eve's site at ``home`` pass for the honest one there by what was ``stolen`` ("psk", "pki", "openpgp").

    Whatever was not stolen stays Eve's own: her book, her CA, her introducers. She believes the honest peer.
    """
    directory = rehearsal.directory / home
    if "psk" in stolen:
        shutil.copy2(loot.book, directory / "psk.book")
    if set(stolen) & {"pki", "openpgp"}:
        shutil.copytree(loot.directory / home / "identity", directory / "identity", dirs_exist_ok=True)
    other = HOMES[1 - HOMES.index(home)]
    register(read_site(directory / "SITE.toml"), "Eve", loot.peer_files(other), replace=True)


@dataclass
class Middle:
    """A man in the middle of an honest link: A with Eve's B' on the ``left``, Eve's A' with B on the ``right``.

    Two rehearsals, each with its own fibre and ports, that share nothing but what Eve stole.
    """

    left: Rehearsal
    right: Rehearsal
    loot: Loot

    @classmethod
    def prepare(cls, method, stolen):
        left = honest_link(method)
        loot = Loot.of(left)
        # Eve's own link, with all that belongs to it.
        right = Rehearsal(
            left.directory.with_name("r"), direct_ports(), DISTANCE_KM, 2, registration=registration_of(method)
        )
        right.directory.mkdir(mode=0o700)
        right.prepare()
        # B stands at the other end of the right fibre, and her B' where A looks for B. Each keeps its secrets; only
        # addresses and light are those of the place.
        tables = [(one.directory / "b" / "SITE.toml").read_text() for one in (left, right)]
        aside = left.directory.with_name("b")
        (left.directory / "b").rename(aside)
        (right.directory / "b").rename(left.directory / "b")
        aside.rename(right.directory / "b")
        for one, table in zip((left, right), tables, strict=True):
            (one.directory / "b" / "SITE.toml").write_text(table)
        arm(right, "a", loot, stolen)
        arm(left, "b", loot, stolen)
        return cls(left, right, loot)

    @property
    def links(self):
        return self.left, self.right

    def remove(self):
        shutil.rmtree(self.left.directory.parent)


def stand_in(honest, loot, stolen):
    """Prepare Eve's sites at the honest ones' own addresses and fibre, with fresh stores."""
    eve = Rehearsal(honest.directory.with_name("e"), honest.ports, DISTANCE_KM, 2, registration=honest.registration)
    eve.directory.mkdir(mode=0o700)
    eve.prepare()
    for home in HOMES:
        toml = eve.directory / home / "SITE.toml"
        toml.write_text(toml.read_text().replace(f"unix:{eve.directory}/", f"unix:{honest.directory}/"))
        arm(eve, home, loot, stolen)
    return eve


def free_ports_with_a_tap():
    """Ports with a place for a recorder between the sites, on the classical channel alone."""
    ports = Ports.free()
    return replace(ports, control_tap=ports.control, tunnel_tap=ports.tunnel)


# Watching a victim.
async def figures(rehearsal, name):
    link = (await rehearsal.status(name)).link
    return {figure: getattr(link, figure) for figure in FIGURES}


def lines(rehearsal, name, event):
    """Return what a site logged under ``event``, as records."""
    text = (rehearsal.directory / f"{name}.log").read_text()
    found = (json.loads(line) for line in text.splitlines() if line.startswith("{"))
    return [one for one in found if one.get("event") == event]


def refused(rehearsal, name):
    """Return how many connections a site has refused, as its log counts them."""
    return sum(one["refused"] for one in lines(rehearsal, name, "connection refused"))


def reasons(rehearsal, name):
    return [one["reason"] for one in lines(rehearsal, name, "connection refused")]


def burnt_slots(book):
    content = book.read_bytes()
    return [slot + 1 for slot in range(16) if not any(content[slice(*slot_range(slot))])]


def command(*words):
    """Run ``heliograph site ...`` as an operator would."""
    return CliRunner().invoke(app, ["site", *map(str, words)])
