"""``heliograph network``: keys for sites that share no link, over nodes between them."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Literal

import msgspec
import typer

from heliograph.cli.kek_options import Kek, Pkcs11Module, Pkcs11Token, Secret
from heliograph.cli.logs import configure_logs
from heliograph.cli.once import Once
from heliograph.cli.process import harden_process, shorten_pauses
from heliograph.cli.refusals import refusals
from heliograph.errors import ConfigurationError
from heliograph.network.sharing import SHARES_MAX
from heliograph.network.topology import describe
from heliograph.node.config import read_node
from heliograph.node.setup import NodeSetup, set_up_node
from heliograph.node.status import NodeStatus, PairStatus
from heliograph.site.seal_entry import SealEntry
from heliograph.site.status_socket import read_document
from heliograph.vault.randomness import SystemRandomness
from heliograph.vault.secret_input import read_secret

__all__ = ["app"]

app = typer.Typer(help="Set up, run and look at one node of a network; rehearse a whole one.", no_args_is_help=True)

NodeFile = Annotated[Path, typer.Argument(metavar="NODE.toml", help="The node's configuration.")]
Json = Annotated[bool, typer.Option("--json", help="One JSON document on standard output.")]


@app.command(cls=Once)
def init(
    directory: Annotated[Path, typer.Argument(help="A new directory for the node.")],
    name: Annotated[str, typer.Option(help="The node's name, as in the edges.")],
    edge: Annotated[list[str], typer.Option(help="A link of the network, NODE:NODE; once for each link.")],
    listen: Annotated[str, typer.Option(help="host:port where neighbours' nodes send to.")],
    kme_listen: Annotated[str, typer.Option(help="host:port of the node's own key manager.")] = "127.0.0.1:8443",
    carries: Annotated[
        list[str] | None, typer.Option(help="Ends between which this node hands shares on, NODE:NODE.")
    ] = None,
    sae: Annotated[str | None, typer.Option(help="An SAE of this node, for which a certificate is made.")] = None,
    kek: Kek = "file",
    secret: Secret = "terminal",  # noqa: S107  - where it comes from, not what it is
    pkcs11_module: Pkcs11Module = None,
    pkcs11_token: Pkcs11Token = None,
) -> None:
    """Set up a node: its secrets, a small certificate authority, NODE.toml without links and pairs."""
    with refusals():
        harden_process()
        edges = [_two(text, "--edge") for text in edge]
        setup = NodeSetup(name, listen, kme_listen, edges, [_two(text, "--carries") for text in carries or []], sae)
        seal = SealEntry(kek, secret, None if pkcs11_module is None else str(pkcs11_module.absolute()), pkcs11_token)
        seal.check()
        path = set_up_node(
            directory,
            setup,
            SystemRandomness(),
            seal,
            lambda: read_secret(secret, seal.what, again=kek == "passphrase"),
        )
        print(f"{path}: written. Next: add [[links]] and, at an end, [[pairs]]; then `heliograph network run {path}`.")


def _two(text: str, option: str) -> tuple[str, str]:
    one, colon, other = text.partition(":")
    if not colon or not one.strip() or not other.strip() or ":" in other:
        raise ConfigurationError(f"{option} {text!r}: write the names of two nodes, such as node-a:node-r")
    return one, other


@app.command(cls=Once)
def run(
    node: NodeFile,
    log_level: Annotated[
        Literal["debug", "info", "warning", "error"] | None,
        typer.Option(help="What to log, unless the configuration says it. Default: info."),
    ] = None,
) -> None:
    """Run the node until SIGTERM; SIGHUP reloads NODE.toml. A line of JSON on stdout says when it listens."""
    with refusals():
        harden_process()
        follow_level = configure_logs(log_level)
        # Imported here, so that the other commands start without the servers.
        from heliograph.node.node import run_node  # noqa: PLC0415

        config = read_node(node)
        follow_level(config.file.log_level)

        async def serve() -> None:
            stop, hung_up = _stop_on_signals(), asyncio.Event()
            asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, hung_up.set)

            async def ready() -> None:
                print(json.dumps({"ready": True}), flush=True)

            await run_node(config, ready, stop, hung_up, follow_level)

        shorten_pauses()
        asyncio.run(serve())


@app.command(cls=Once)
def status(node: NodeFile, as_json: Json = False) -> None:
    """Show a running node's figures, with the cost of each bit of key; no key material is among them."""
    with refusals(as_json=as_json):
        config = read_node(node)
        document = asyncio.run(read_document(config.path(config.file.status)))
        found = msgspec.json.decode(document, type=NodeStatus)
        if as_json:
            print(msgspec.json.encode(found).decode())
            return
        print("\n".join(_lines(found)))


def _lines(found: NodeStatus) -> Iterator[str]:
    """Return a node's figures as lines of plain text."""
    yield f"{found.node}: {found.carried} shares carried for others"
    for link in found.links:
        stock = "its key manager does not answer" if link.stock < 0 else f"{link.stock} keys to draw"
        yield f"  link {link.link}: {stock}, {link.drawn_bits} bits drawn; {link.assurance}"
    for pair in found.pairs:
        yield from _pair_lines(pair)
    for path, times in found.suspected.items():
        yield f"  ALARM: a relay of {path} was caught lying, {times} times"
    if found.configuration.last:
        yield f"  configuration: {found.configuration.last}"


def _pair_lines(pair: PairStatus) -> Iterator[str]:
    yield f"  {pair.local_sae} with {pair.remote_sae} at {pair.node}, {pair.scheme} paths {pair.layer}".rstrip()
    yield f"    {pair.ready} keys ready, {pair.held} held; {pair.delivered_bits} bits made"
    for link, bits in pair.cost_per_bit.items():
        yield f"    each bit cost {bits:.2f} bits of {link}"
    for path, words in pair.paths.items():
        yield f"    path {path}: {words}"
    if pair.last:
        yield f"    no keys lately: {pair.last}"


@app.command(cls=Once)
def paths(
    node: NodeFile,
    target: Annotated[str, typer.Argument(metavar="NODE", help="The node at the other end.")],
    as_json: Json = False,
) -> None:
    """Show the paths to another node of which no two have a relay in common."""
    with refusals(as_json=as_json):
        config = read_node(node)
        found = config.topology.disjoint_paths(config.file.name, target, SHARES_MAX)
        if not found:
            raise ConfigurationError(f"{node}: edges join {config.file.name} and {target} by no path")
        print(json.dumps(found) if as_json else "\n".join(map(describe, found)))


@app.command(cls=Once)
def demo(
    relays: Annotated[int, typer.Option(help="Nodes between the two ends, each on a path of its own.")] = 1,
    threshold: Annotated[int | None, typer.Option(help="Paths that give a key. Default: all.")] = None,
    layer: Annotated[
        Literal["", "ml-kem-768", "ml-kem-1024"], typer.Option(help="Combine with ML-KEM between the ends.")
    ] = "",
    links: Annotated[
        Literal["simulated", "dealt"], typer.Option(help="Simulated light, or keys from a dealer: quicker.")
    ] = "simulated",
    distance_km: Annotated[float, typer.Option(help="Length of each simulated fibre.")] = 25.0,
    keys: Annotated[int, typer.Option(help="Keys to fetch in each direction.")] = 8,
    stay: Annotated[bool, typer.Option("--stay", help="Leave the network running until Ctrl-C.")] = False,
    keep: Annotated[Path | None, typer.Option(help="Keep the nodes in this new directory.")] = None,
    as_json: Json = False,
) -> None:
    """Rehearse a network on this machine: two ends, relays between them, keys across; exit 0 only if all is true."""
    with refusals(as_json=as_json):
        # Imported here, so that `heliograph --help` is quick.
        from heliograph.lab.network import NetworkOptions, failures, render, run_network  # noqa: PLC0415

        needed = relays if threshold is None else threshold
        options = NetworkOptions(relays, needed, layer, links == "dealt", distance_km, keys, keep, stay)

        async def rehearse() -> dict[str, object]:
            return await run_network(options, _stop_on_signals(), lambda text: print(text, file=sys.stderr, flush=True))

        report = asyncio.run(rehearse())
        print(json.dumps(report) if as_json else render(report))
        for failure in failures(report):
            print(f"heliograph: {failure}", file=sys.stderr)
        if failures(report):
            raise typer.Exit(1)


def _stop_on_signals() -> asyncio.Event:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    return stop
