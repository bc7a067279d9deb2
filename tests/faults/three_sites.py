"""Sites A, B and C with a fibre from A to B and one from C to A: at A one process serves both links."""

import tempfile
from dataclasses import replace
from pathlib import Path

from fault_rehearsal import DISTANCE_KM

from heliograph.http.client import Etsi014Client
from heliograph.http.tls import client_tls
from heliograph.lab.ports import free_ports
from heliograph.lab.rehearsal import Ports, Rehearsal
from heliograph.protocol.registration import SaePair
from heliograph.site.added_link import LinkSetup, add_link
from heliograph.site.config import read_site
from heliograph.site.credentials import PeerFiles
from heliograph.site.register import register
from heliograph.site.setup import SiteSetup, set_up_site
from heliograph.testing.links import example_registration
from heliograph.vault.pskfile import create_book, write_book
from heliograph.vault.randomness import SystemRandomness

SITES = ("site_a", "site_b", "site_c")
FIBRES = ("fibre_b", "fibre_c")
FIRST, FURTHER = "a-b", "c-a"
HOST = "127.0.0.1"


class ThreeSites(Rehearsal):
    """Their processes. A sends light to B and dials it; C sends light to A and dials it."""

    def __init__(self, directory=None):
        super().__init__(directory or Path(tempfile.mkdtemp(prefix="hg3")), Ports.free(), DISTANCE_KM)

    @property
    def sites(self):
        return {name: self.directory / name[-1] / "SITE.toml" for name in SITES}

    def prepare(self):
        first = replace(example_registration(), link=FIRST)
        further = replace(
            first,
            link=FURTHER,
            transmitter_site="site-c",
            receiver_site="site-a",
            transmitter_pairs=(SaePair("sae-c", "sae-a"),),
            receiver_pairs=(SaePair("sae-a", "sae-c"),),
        )
        to_b, to_a, *kme = free_ports(5)
        ends = (("a", "transmitter", "b", first), ("b", "receiver", "a", first), ("c", "transmitter", "a", further))
        dial = {"a": f"{HOST}:{to_b}", "c": f"{HOST}:{to_a}"}
        for (home, role, peer, registration), port in zip(ends, kme, strict=True):
            setup = SiteSetup(
                name=f"site-{home}",
                role=role,
                kme_id=f"kme-{home}",
                peer_kme_id=f"kme-{peer}",
                kme_listen=f"{HOST}:{port}",
                sae=f"sae-{home}",
                module=f"simulated-{role}",
                module_settings=self.light(home, "b" if home != "c" else "c", role),
                dial=dial.get(home),
                listen=f"{HOST}:{to_b}" if home == "b" else None,
            )
            set_up_site(self.directory / home, setup, registration, SystemRandomness())
        add_link(
            read_site(self.sites["site_a"]),
            LinkSetup(further, None, self.light("a", "c", "receiver"), listen=f"{HOST}:{to_a}", peer_kme_id="kme-c"),
        )
        self.introduce(("a/psk.book", "b/psk.book"), ("a/links/2/psk.book", "c/psk.book"))
        for number, fibre in enumerate(FIBRES):
            text = "".join(f'{end} = "unix:{self.directory}/{fibre}-{end}"\n' for end in ("transmitter", "receiver"))
            config = f"{text}seed = {number + 1}\n\n[fibre]\ndistance_km = {DISTANCE_KM}\n"
            (self.directory / f"{fibre}.toml").write_text(config)
        return first

    def light(self, _, fibre, role):
        return {"address": f"unix:{self.directory}/fibre_{fibre}-{role}"}

    def introduce(self, *books):
        """Carry a book to both ends of each link, and register both ends."""
        for number, copies in enumerate(books):
            book = self.directory / f"book-{number}"
            create_book(book, SystemRandomness())
            for copy in copies:
                write_book(self.directory / copy, book.read_bytes())
        views = [view for toml in self.sites.values() for view in read_site(toml).links]
        shown = [register(view, "the rehearsal", PeerFiles()).fingerprint for view in views]
        assert len(set(shown)) == 2

    def program(self, name):
        if name in FIBRES:
            return ["heliograph.sim", str(self.directory / f"{name}.toml")]
        return super().program(name)

    async def link(self, link, name="site_a"):
        """Return the status of one link."""
        return next(one for one in (await self.status(name)).links if one.link == link)

    def client(self, name, peer, ca=None):
        """Return the client of the site's SAE, for keys shared with ``peer``."""
        config = read_site(self.sites[name])
        kme, pki = config.file.kme, config.path("pki")
        tls = client_tls(pki / "sae.pem", pki / "sae.key", ca or pki / "ca.pem", kme.id)
        return Etsi014Client(f"https://{kme.listen}", tls, f"sae-{name[-1]}", peer)
