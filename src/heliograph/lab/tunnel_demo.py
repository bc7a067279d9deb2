"""``heliograph demo --tunnel KIND``: two whole sites in network namespaces, their tunnel one that carries networks.

The fibre and both sites are processes as in the other demo; between the sites there is a wire that is recorded. Paced
packets cross while the keys of the link rotate, then both sites end, and nothing may pass any more.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import shutil
import sys
import time
from collections.abc import Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from heliograph.errors import ConfigurationError, HeliographError, TransportClosed
from heliograph.lab.bulk import MARKER
from heliograph.lab.demo import DemoOptions, check, working_directory
from heliograph.lab.network_path import NetworkPath
from heliograph.lab.progress import Progress
from heliograph.lab.rehearsal import Ports, Rehearsal
from heliograph.lab.tunnel_kinds import KINDS, Ends
from heliograph.lab.wire import frames, recorded

__all__ = ["failures", "render", "run_tunnel_demo"]

# Our choices.
_RATE: Final = 200.0
_ROTATIONS: Final = 3
_UP_S: Final = 90.0
_POLL_S: Final = 0.25
_WORD: Final = MARKER[:24]
_CLEAR_PACKETS: Final = 10


@dataclass(slots=True)
class _Seen:
    """What the two sites said of themselves while packets crossed: key_IDs, and moments without a key in use."""

    key_ids: set[object] = field(default_factory=set)
    not_encrypting: int = 0
    looks: int = 0


async def run_tunnel_demo(kind: str, options: DemoOptions) -> dict[str, Any]:
    """Run it; return the report's document. Raises HeliographError in one line if it cannot be run here."""
    check(options)
    if options.payload is not None or options.stay:
        raise ConfigurationError(f"--tunnel {kind} sends packets of its own and ends: leave out the payload and --stay")
    chosen = KINDS[kind]
    if (why := chosen.missing()) is not None:
        raise ConfigurationError(
            f"--tunnel {kind}: {why}; --tunnel built-in and tls-psk need neither root nor programs"
        )
    seconds = options.seconds or (_ROTATIONS + 0.5) * float(str(chosen.limits["rekey_seconds"]))
    directory = working_directory(options.keep)
    began = time.monotonic()
    async with AsyncExitStack() as stack:
        if options.keep is None:
            stack.callback(shutil.rmtree, directory, ignore_errors=True)
        path = stack.enter_context(NetworkPath(namespaces=True))
        (sink_port,) = path.ports(1)
        ends = stack.enter_context(chosen.open(path, directory, sink_port))
        rehearsal = Rehearsal(
            directory,
            Ports.free().direct(),
            options.distance_km,
            options.seed,
            dict(chosen.limits),
            decoys=options.decoys,
            bootstrap=options.bootstrap,
            hosts=path.outer,
            spaces=path.spaces,
            tunnels=ends.tables,
        )
        rehearsal.prepare()
        progress = stack.enter_context(Progress(enabled=not options.quiet))
        stack.push_async_callback(rehearsal.stop_all)
        progress.say(f"starting site A, site B and the simulated fibre; the tunnel between: {kind}")
        wire = directory / "wire"
        stack.enter_context(recorded(path, wire))
        await _sink(path, sink_port, stack)
        await rehearsal.start_all()
        await _until_encrypting(rehearsal)
        up_s = time.monotonic() - began
        progress.say(f"the tunnel is up; packets cross for {seconds:.0f} s while keys rotate")
        sent, seen = await _carry(rehearsal, path, ends, seconds)
        a, b = await asyncio.gather(rehearsal.status("site_a"), rehearsal.status("site_b"))
        await rehearsal.stop_all()
        after = await _packets(path, ends.host, ends.port, _CLEAR_PACKETS)
        clear = await asyncio.to_thread(_in_clear, wire)
        # The search itself has to find what does go in clear.
        with recorded(path, directory / "clear"):
            await _packets(path, path.outer[1], sink_port, _CLEAR_PACKETS)
        return {
            "tunnel": kind,
            "first_key_in_use_s": up_s,
            "seconds": seconds,
            "packets": {"sent": sent.get("sent", 0), "received": sent.get("received", 0)},
            "trouble": sent.get("error"),
            "rotations": _figure(a.agent, "rekeys"),
            "keys_in_use": len(seen.key_ids),
            "looks": {"all": seen.looks, "not_encrypting": seen.not_encrypting},
            "alarms": [status.agent and status.agent["alarm"] for status in (a, b)],
            "link": {"blocks": a.link.blocks, "qber_z": a.link.qber_z, "secret_key_bits": a.link.secret_key_bits},
            "wire": {"frames": sum(1 for _ in frames(wire)), "in_clear": clear},
            "search_finds": {"sent_in_clear": _CLEAR_PACKETS, "found": _in_clear(directory / "clear")},
            "after_the_sites_ended": {"received": after.get("received", 0)},
        }


def _figure(agent: Mapping[str, object] | None, name: str) -> int:
    value = (agent or {}).get(name, 0)
    return value if isinstance(value, int) else 0


def _in_clear(file: Path) -> int:
    return sum(_WORD in frame for frame in frames(file))


async def _begun(words: list[str]) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        *words,
        stdout=asyncio.subprocess.PIPE,
        start_new_session=True,  # Ctrl-C reaches the command only, which then ends this
    )


async def _sink(path: NetworkPath, port: int, stack: AsyncExitStack) -> None:
    """Run the host at site 1 that counts packets; it listens on every address, so that a leak arrives, too."""
    words = path.words(1, sys.executable, "-m", "heliograph.lab.bulk", "packet-sink", "0.0.0.0", str(port))  # noqa: S104
    process = await _begun(words)

    async def end() -> None:
        process.kill()
        await process.wait()

    stack.push_async_callback(end)
    assert process.stdout is not None
    await process.stdout.readline()


async def _packets(path: NetworkPath, host: str, port: int, count: int) -> dict[str, Any]:
    """Send paced packets from a host at site 0; return what its source says."""
    words = [sys.executable, "-m", "heliograph.lab.bulk", "packet-source", host, str(port), str(count), str(_RATE)]
    process = await _begun(path.words(0, *words))
    try:
        out, _ = await process.communicate()
    except asyncio.CancelledError:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        raise
    found: dict[str, Any] = json.loads(out.decode().splitlines()[-1])
    return found


async def _until_encrypting(rehearsal: Rehearsal) -> None:
    ended = asyncio.create_task(rehearsal.first_end())
    try:
        async with asyncio.timeout(_UP_S):
            while not await _both_encrypt(rehearsal):
                if ended.done():
                    raise TransportClosed(ended.result())
                await asyncio.sleep(0.1)
    except TimeoutError:
        status = await rehearsal.status("site_a")
        said = status.agent and (status.agent["alarm"] or status.agent["last_refusal"])
        raise TransportClosed(
            f"the tunnel was not up after {_UP_S:g} s; link: {status.link.state}; {status.link.last_discard}; {said}"
        ) from None
    finally:
        ended.cancel()
        await asyncio.gather(ended, return_exceptions=True)


async def _both_encrypt(rehearsal: Rehearsal, seen: _Seen | None = None) -> bool:
    agents = [(await rehearsal.status(name)).agent or {} for name in rehearsal.sites]
    encrypting = all(agent.get("mode") == "encrypting" for agent in agents)
    if seen is not None:
        seen.looks += 1
        seen.not_encrypting += not encrypting
        seen.key_ids |= {agent.get("key_id") for agent in agents} - {None}
    return encrypting


async def _carry(rehearsal: Rehearsal, path: NetworkPath, ends: Ends, seconds: float) -> tuple[dict[str, Any], _Seen]:
    """Send packets for so long, and look at both sites meanwhile."""
    seen = _Seen()
    sending = asyncio.create_task(_packets(path, ends.host, ends.port, round(seconds * _RATE)))
    try:
        while not sending.done():
            with contextlib.suppress(HeliographError):
                await _both_encrypt(rehearsal, seen)
            await asyncio.wait({sending}, timeout=_POLL_S)
        return sending.result(), seen
    finally:
        sending.cancel()
        await asyncio.gather(sending, return_exceptions=True)


def render(report: Mapping[str, Any]) -> str:
    """Return the report on one screen."""
    packets, wire, link, found = report["packets"], report["wire"], report["link"], report["search_finds"]
    qber = "-" if link["qber_z"] is None else f"{100 * link['qber_z']:.2f} %"
    looks, after = report["looks"], report["after_the_sites_ended"]
    searched = f"(the search finds {found['found']} of {found['sent_in_clear']} sent in clear)"
    rows = {
        "link": f"{link['blocks']} blocks, QBER {qber}, {link['secret_key_bits']} secret bits",
        "first key": f"in use after {report['first_key_in_use_s']:.1f} s",
        "rotations": f"{report['rotations']}; {report['keys_in_use']} keys of the link were in use",
        "packets": f"{packets['received']} of {packets['sent']} arrived, {report['seconds']:.0f} s",
        "looked at": f"{looks['all']} times; not encrypting: {looks['not_encrypting']}",
        "on the wire": f"{wire['frames']} frames, {wire['in_clear']} in clear {searched}",
        "sites ended": f"{after['received']} packets arrived afterwards",
    }
    head = f"Tunnel: {report['tunnel']}, two sites in two network namespaces, simulated light"
    return "\n".join([head, *(f"  {name:14} {text}" for name, text in rows.items())])


def failures(report: Mapping[str, Any]) -> list[str]:
    """Return what must be true and was not."""
    packets, found = report["packets"], report["search_finds"]
    told = {
        f"no packet crossed: {report['trouble']}": packets["received"] == 0,
        "packets were seen in clear between the sites": report["wire"]["in_clear"] > 0,
        "the search of the wire finds nothing, so it proves nothing": found["found"] != found["sent_in_clear"],
        "packets arrived after both sites had ended": report["after_the_sites_ended"]["received"] > 0,
        "the keys did not rotate": report["rotations"] < 1,
        f"alarms: {report['alarms']}": any(report["alarms"]),
    }
    return [text for text, is_so in told.items() if is_so]
