"""A network of sites on one machine: every node a process, every link two sites and a fibre, and keys across relays."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
import time
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from heliograph.errors import ConfigurationError, HeliographError, TransportClosed
from heliograph.http.client import Etsi014Client
from heliograph.http.tls import client_tls
from heliograph.lab.dealt_links import DealtLink
from heliograph.lab.introductions import introduce
from heliograph.lab.network_layout import LinkAccess, NetworkPlan, lay_out
from heliograph.lab.ports import free_ports
from heliograph.lab.rehearsal import Ports, Rehearsal
from heliograph.network.letters import LAYERS
from heliograph.network.sharing import check_scheme
from heliograph.network.stocks import VENDOR
from heliograph.node.config import read_node
from heliograph.node.status import NodeStatus, PairStatus
from heliograph.protocol.registration import LinkRegistration
from heliograph.site.setup import SiteSetup, plan_registration, set_up_site
from heliograph.site.status_socket import read_document
from heliograph.vault.randomness import SystemRandomness

__all__ = ["NetworkOptions", "NetworkRehearsal", "failures", "render", "run_network"]

_HOST = "127.0.0.1"
# Our choices.
_DEALT_KEYS = 400
_KEYS_MAX = 400  # at which a simulated link rests
_DEADLINE_S = 240.0
_START_S = 90.0  # many processes on one machine
_POLL_S = 0.25


@dataclass(frozen=True, slots=True)
class NetworkOptions:
    """What the command line said. ``dealt``: links whose keys a dealer gives, in place of simulated light."""

    relays: int = 1
    threshold: int = 1
    layer: str = ""
    dealt: bool = False
    distance_km: float = 25.0
    keys: int = 8
    keep: Path | None = None
    stay: bool = False

    def check(self) -> None:
        """Raise ConfigurationError for what cannot be rehearsed."""
        try:
            check_scheme(self.threshold, self.relays)
        except ConfigurationError as error:
            raise ConfigurationError(f"--threshold and --relays: {error}") from None
        if self.layer not in LAYERS:
            raise ConfigurationError(f"--layer {self.layer}: one of {', '.join(LAYERS[1:])}")
        if not 1 <= self.keys <= 64:
            raise ConfigurationError(f"--keys {self.keys}: between 1 and 64")
        if not 0 <= self.distance_km <= 1000:
            raise ConfigurationError(f"--distance-km {self.distance_km}: give a length between 0 and 1000 km")


class LinkRehearsal(Rehearsal):
    """One simulated link: two sites and a fibre, whose key managers serve the two nodes. ``names``: theirs."""

    def __init__(self, directory: Path, names: tuple[str, str], distance_km: float) -> None:
        super().__init__(directory, Ports.free(), distance_km, start_s=_START_S)
        self.names = names

    def prepare(self) -> LinkRegistration:
        """Write both sites and register each at the other. Raises ConfigurationError."""
        one, other = self.names
        sites = (f"{one}-to-{other}", f"{other}-to-{one}")
        registration = plan_registration(f"{one}--{other}", sites, self.names, self.distance_km)
        light = {end: f"unix:{self.directory / f'{end[0]}.sock'}" for end in ("transmitter", "receiver")}
        classical = f"{_HOST}:{self.ports.classical}"
        for home, at, role, port in (
            ("a", 0, "transmitter", self.ports.kme_a),
            ("b", 1, "receiver", self.ports.kme_b),
        ):
            setup = SiteSetup(
                name=sites[at],
                role=role,
                kme_id=f"kme-{sites[at]}",
                peer_kme_id=f"kme-{sites[1 - at]}",
                kme_listen=f"{_HOST}:{port}",
                sae=self.names[at],
                peer_sae=self.names[1 - at],
                module=f"simulated-{role}",
                module_settings={"address": light[role]},
                dial=classical if at == 0 else None,
                listen=None if at == 0 else classical,
            )
            path = set_up_site(self.directory / home, setup, registration, SystemRandomness())
            text = path.read_text(encoding="utf-8").replace("[link]\n", f"[link]\nkeys_max = {_KEYS_MAX}\n")
            path.write_text(text, encoding="utf-8")
        introduce(self.directory, registration)
        text = "".join(f'{end} = "{address}"\n' for end, address in light.items())
        text += f"\n[fibre]\ndistance_km = {self.distance_km}\n"
        (self.directory / "FIBRE.toml").write_text(text, encoding="utf-8")
        return registration

    def access(self, name: str) -> LinkAccess:
        """Return how a node reaches its end. The bootstrap is a key book, so that is what it may demand."""
        at = self.names.index(name)
        pki = self.directory / "ab"[at] / "pki"
        port = (self.ports.kme_a, self.ports.kme_b)[at]
        kme = f"kme-{name}-to-{self.names[1 - at]}"
        files = (pki / "sae.pem", pki / "sae.key", pki / "ca.pem")
        return LinkAccess(f"https://{_HOST}:{port}", kme, files, "information-theoretic")


class NetworkRehearsal(Rehearsal):
    """The nodes' processes. ``files``: NODE.toml by name."""

    def __init__(self, directory: Path, files: dict[str, Path]) -> None:
        super().__init__(directory, Ports(*free_ports(10)), start_s=_START_S)
        self.files = files

    def program(self, name: str) -> list[str]:
        """Return a node's command."""
        return ["heliograph.cli.main", "network", "run", "--log-level", self.log_level, str(self.files[name])]

    async def start_all(self) -> None:
        """Start every node."""
        for name in self.files:  # one after the other: many processes that start at once take long, all of them
            await self.start(name)

    async def node_status(self, name: str) -> NodeStatus:
        """Ask a node. Raises TransportClosed if it does not answer, with its last words if it ended."""
        process = self.processes[name]
        if process.returncode is not None:
            raise TransportClosed(f"{name} ended with status {process.returncode}: {self.last_words(name)}")
        return msgspec.json.decode(await read_document(self.files[name].parent / "status.sock"), type=NodeStatus)

    def client(self, name: str, other: str) -> Etsi014Client:
        """Return the client of a node's SAE, ``sae-<name>``, for the one at ``other``."""
        file, pki = read_node(self.files[name]).file, self.files[name].parent / "pki"
        tls = client_tls(pki / "sae.pem", pki / "sae.key", pki / "ca.pem", file.kme.id)
        return Etsi014Client(f"https://{file.kme.listen}", tls, f"sae-{name}", f"sae-{other}")


async def run_network(
    options: NetworkOptions, stop: asyncio.Event, say: Callable[[str], object] = str
) -> dict[str, Any]:
    """Rehearse a network; return the report's document. ``stop``: ends it, and a stay.

    Raises HeliographError in one line if it cannot be run.
    """
    began = time.monotonic()
    options.check()
    plan = NetworkPlan.around(
        options.relays, threshold=options.threshold, layer=options.layer, stock=min(32, options.keys)
    )
    directory = _directory(options.keep)
    async with AsyncExitStack() as stack:
        if options.keep is None:
            stack.callback(shutil.rmtree, directory, ignore_errors=True)
        work = asyncio.create_task(_rehearse(options, plan, directory, stack, say))
        waiting = asyncio.create_task(stop.wait())
        try:
            await asyncio.wait({work, waiting}, return_when=asyncio.FIRST_COMPLETED)
            if not work.done():
                raise TransportClosed("stopped before the network had keys")
            report = work.result()
        finally:
            for task in (work, waiting):
                task.cancel()
            await asyncio.gather(work, waiting, return_exceptions=True)
        report["seconds"] = round(time.monotonic() - began, 2)
        if options.stay:
            say(f"the network stays up in {directory}; Ctrl-C ends it")
            await stop.wait()
        return report


def _directory(keep: Path | None) -> Path:
    if keep is None:
        return Path(tempfile.mkdtemp(prefix="hg-"))  # short: sockets have short paths
    try:
        keep.mkdir(mode=0o700, parents=True)
    except OSError as error:
        raise ConfigurationError(f"--keep {keep}: {error.strerror}; name a directory that does not exist yet") from None
    return keep.absolute()


async def _rehearse(
    options: NetworkOptions, plan: NetworkPlan, directory: Path, stack: AsyncExitStack, say: Callable[[str], object]
) -> dict[str, Any]:
    what = "dealt keys" if options.dealt else "two sites and a fibre"
    say(f"starting {len(plan.edges)} links ({what} each) and {len(plan.nodes)} nodes")
    links: list[LinkRehearsal] = []
    if options.dealt:
        access = await _deal(plan, directory, stack)
    else:
        links = _prepared(options, plan, directory)
        access = {(name, other): link.access(name) for link in links for name, other in (link.names, link.names[::-1])}
    network = NetworkRehearsal(directory, lay_out(directory, plan, access))
    stack.push_async_callback(network.stop_all)
    await network.start_all()  # before the light, which takes all the processor that there is
    for link in links:
        stack.push_async_callback(link.stop_all)
        await link.start_all()
    say("waiting until both ends have keys for each other")
    await _until_ready(network, plan)
    fetched, same = await _fetch(network, plan, options.keys)
    nodes = [await network.node_status(name) for name in plan.nodes]
    return {
        "plan": {
            "nodes": plan.nodes,
            "links": [f"{one} - {other}" for one, other in plan.edges],
            "links_are": "dealt keys" if options.dealt else "simulated light",
            "scheme": f"{plan.threshold} of {plan.shares}",
            "layer": plan.layer,
        },
        "keys": {"fetched": fetched, "same_at_both_ends": same},
        "nodes": [msgspec.to_builtins(node) for node in nodes],
        "processes": network.pids(),
    }


async def _deal(plan: NetworkPlan, directory: Path, stack: AsyncExitStack) -> dict[tuple[str, str], LinkAccess]:
    access: dict[tuple[str, str], LinkAccess] = {}
    for one, other in plan.edges:
        link = DealtLink(directory / f"{one}--{other}", (one, other), SystemRandomness())
        stack.push_async_callback(link.close)
        await link.start(_DEALT_KEYS)
        access |= {(one, other): link.access(one, VENDOR), (other, one): link.access(other, VENDOR)}
    return access


def _prepared(options: NetworkOptions, plan: NetworkPlan, directory: Path) -> list[LinkRehearsal]:
    links = []
    for number, names in enumerate(plan.edges, 1):
        home = directory / f"link{number}"
        home.mkdir(mode=0o700)
        links.append(LinkRehearsal(home, names, options.distance_km))
        links[-1].prepare()
    return links


async def _until_ready(network: NetworkRehearsal, plan: NetworkPlan) -> None:
    why = ""
    try:
        async with asyncio.timeout(_DEADLINE_S):
            while True:
                pairs = list[PairStatus]()
                for name in plan.ends:
                    pairs += (await network.node_status(name)).pairs
                if all(pair.ready >= plan.stock for pair in pairs):
                    return
                why = "; ".join(pair.last for pair in pairs if pair.last)
                await asyncio.sleep(_POLL_S)
    except TimeoutError:
        raise TransportClosed(f"the ends had no keys after {_DEADLINE_S:g} s: {why or 'the links made none'}") from None


async def _fetch(network: NetworkRehearsal, plan: NetworkPlan, number: int) -> tuple[int, bool]:
    """Fetch keys as both SAEs, as master and as slave; return how many and whether all were the same."""
    fetched, same = 0, True
    for master, slave in (plan.ends, plan.ends[::-1]):
        async with network.client(master, slave) as here, network.client(slave, master) as there:
            keys = await here.get_keys(min(number, plan.stock))
            fetched += len(keys)
            try:
                same = same and await there.get_keys_with_ids([key.key_id for key in keys]) == keys
            except HeliographError:
                same = False
    return fetched, same


def failures(report: dict[str, Any]) -> list[str]:
    """Return what the rehearsal promises and this run did not show, one line each."""
    found = []
    if not report["keys"]["fetched"] or not report["keys"]["same_at_both_ends"]:
        found.append("the two ends did not fetch the same keys")
    if suspected := {path for node in report["nodes"] for path in node["suspected"]}:
        found.append(f"a relay was caught lying: {', '.join(sorted(suspected))}")
    return found


def render(report: dict[str, Any]) -> str:
    """Return the report as people read it."""
    plan, keys = report["plan"], report["keys"]
    same = "the same" if keys["same_at_both_ends"] else "NOT THE SAME"
    lines = [
        f"NETWORK      {', '.join(plan['nodes'])}; {len(plan['links'])} links, {plan['links_are']}",
        f"SCHEME       {plan['scheme']} paths give a key"
        + (f"; combined with {plan['layer']}" if plan["layer"] else ""),
        f"KEYS         {keys['fetched']} keys of 256 bits fetched by ETSI GS QKD 014 at both ends: {same}",
    ]
    for node in report["nodes"]:
        for pair in node["pairs"]:
            lines.append(
                f"{node['node']:12} {pair['local_sae']} to {pair['remote_sae']}: {pair['delivered_bits']} bits"
            )
            lines += [f"  path       {path}: {words}" for path, words in pair["paths"].items()]
            lines += [
                f"  cost       {cost:.2f} bits of key of link {link} for each bit"
                for link, cost in pair["cost_per_bit"].items()
            ]
        if node["carried"]:
            lines.append(f"{node['node']:12} carried {node['carried']} shares; it is trusted with what it carries")
    rests = {link["link"]: link["assurance"] for node in report["nodes"] for link in node["links"]}
    lines += [f"ASSURANCE    {link}: {assurance}" for link, assurance in sorted(rests.items())]
    lines.append(f"TIME         {report['seconds']} s")
    return "\n".join(lines)
