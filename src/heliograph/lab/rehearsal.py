"""Two sites and a fibre on one machine, as three processes that share no memory, file or key.

What couriers and operators would do by hand is done here once: books, certificates or keys are carried over, and each
site registers the other.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

from heliograph.errors import ConfigurationError, TransportClosed
from heliograph.lab.introductions import introduce
from heliograph.lab.ports import free_ports
from heliograph.protocol.registration import LinkRegistration
from heliograph.site.setup import SiteSetup, plan_registration, set_up_site
from heliograph.site.status_socket import read_status
from heliograph.status import SiteStatus
from heliograph.vault.randomness import SystemRandomness

__all__ = ["Ports", "Rehearsal"]

_HOST = "127.0.0.1"
_START_S = 30.0


@dataclass(frozen=True, slots=True)
class Ports:
    """Where everything listens. ``*_tap``: the recorder that the dialling site reaches instead of its peer."""

    classical: int
    classical_tap: int
    control: int
    control_tap: int
    tunnel: int
    tunnel_tap: int
    kme_a: int
    kme_b: int
    inner: int
    host_b: int

    @classmethod
    def free(cls) -> Ports:
        """Return ten free ports."""
        return cls(*free_ports(10))

    def direct(self) -> Ports:
        """Return the same without recorders: the dialling site reaches its peer."""
        return replace(self, classical_tap=self.classical, control_tap=self.control, tunnel_tap=self.tunnel)


@dataclass
class Rehearsal:
    """The processes of one rehearsal below ``directory``. ``tunnel_limits``: rekey_seconds, rekey_bytes and so on."""

    directory: Path
    ports: Ports
    distance_km: float = 25.0
    fibre_seed: int | None = None
    tunnel_limits: dict[str, object] = field(default_factory=dict)
    eve: str = ""
    registration: LinkRegistration | None = None
    log_level: str = "info"
    decoys: int = 1
    bootstrap: str = "psk"
    processes: dict[str, asyncio.subprocess.Process] = field(default_factory=dict)
    start_s: float = _START_S
    # Sites at a distance: their addresses to each other, the network namespaces that they run in, and what each
    # tunnel's table has in place of forwards and targets. Without them: one machine, recorders between.
    hosts: tuple[str, str] = (_HOST, _HOST)
    spaces: tuple[str, str] | None = None
    tunnels: tuple[Mapping[str, object], Mapping[str, object]] | None = None

    @property
    def sites(self) -> dict[str, Path]:
        """SITE.toml of each site."""
        return {name: self.directory / name[-1] / "SITE.toml" for name in ("site_a", "site_b")}

    def prepare(self) -> LinkRegistration:
        """Write both sites and the fibre's configuration, register each at the other; return the link's registration.

        Raises ConfigurationError, for instance out of reach.
        """
        ports = self.ports
        if self.registration is None:
            self.registration = plan_registration(
                "a--b",
                ("site-a", "site-b"),
                ("sae-a", "sae-b"),
                self.distance_km,
                decoys=self.decoys,
                bootstrap=self.bootstrap,
            )
        light = {end: f"unix:{self.directory / f'{end[0]}.sock'}" for end in ("transmitter", "receiver")}
        host = self.hosts[1]
        tunnels = self.tunnels or (
            {"outer_connect": f"{host}:{ports.tunnel_tap}", "forwards": {"host-b": f"{_HOST}:{ports.inner}"}},
            {"outer_listen": f"{host}:{ports.tunnel}", "targets": {"host-b": f"{_HOST}:{ports.host_b}"}},
        )
        a = SiteSetup(
            name="site-a",
            role="transmitter",
            kme_id="kme-a",
            peer_kme_id="kme-b",
            kme_listen=f"{_HOST}:{ports.kme_a}",
            sae="sae-a",
            peer_sae="sae-b",
            module="simulated-transmitter",
            module_settings={"address": light["transmitter"]},
            dial=f"{host}:{ports.classical_tap}",
            tunnel={
                **self.tunnel_limits,
                "role": "initiator",
                "control": f"{host}:{ports.control_tap}",
                **tunnels[0],
            },
        )
        b = SiteSetup(
            name="site-b",
            role="receiver",
            kme_id="kme-b",
            peer_kme_id="kme-a",
            kme_listen=f"{_HOST}:{ports.kme_b}",
            sae="sae-b",
            peer_sae="sae-a",
            module="simulated-receiver",
            module_settings={"address": light["receiver"]},
            listen=f"{host}:{ports.classical}",
            tunnel={
                **self.tunnel_limits,
                "role": "responder",
                "control": f"{host}:{ports.control}",
                **tunnels[1],
            },
        )
        for setup, where in ((a, "a"), (b, "b")):
            set_up_site(self.directory / where, setup, self.registration, SystemRandomness())
        introduce(self.directory, self.registration)
        seed = "" if self.fibre_seed is None else f"seed = {self.fibre_seed}\n"
        text = "".join(f'{end} = "{address}"\n' for end, address in light.items()) + seed
        text += f"\n[fibre]\ndistance_km = {self.distance_km}\n{self.eve}"
        (self.directory / "FIBRE.toml").write_text(text, encoding="utf-8")
        return self.registration

    def program(self, name: str) -> list[str]:
        """Return a process's module and arguments."""
        if name == "fibre":
            return ["heliograph.sim", str(self.directory / "FIBRE.toml")]
        return ["heliograph.cli.main", "site", "run", "--log-level", self.log_level, str(self.sites[name])]

    async def start(self, name: str) -> None:
        """Start "fibre", "site_a" or "site_b" and wait until it listens. Raises ConfigurationError with its reason."""
        program = self.program(name)
        # Through ``lab.child`` and a pipe to its standard input: it ends when this process ends, even by SIGKILL.
        command = [sys.executable, "-m", "heliograph.lab.child", *program]
        if self.spaces is not None and name in self.sites:
            command = ["ip", "netns", "exec", self.spaces[list(self.sites).index(name)], *command]
        log = (self.directory / f"{name}.log").open("ab")
        with log:
            process = await asyncio.create_subprocess_exec(
                *command,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=log,
                start_new_session=True,  # Ctrl-C reaches the command only, which then ends this
            )
        self.processes[name] = process
        assert process.stdout is not None
        try:
            async with asyncio.timeout(self.start_s):
                line = await process.stdout.readline()
            ready = bool(line) and json.loads(line).get("ready") is True
        except (TimeoutError, ValueError):
            ready = False
        if not ready:
            raise ConfigurationError(f"{name} did not start: {self.last_words(name)}")

    async def start_all(self) -> None:
        """Start the three processes, the sites together once the fibre listens."""
        await self.start("fibre")
        await asyncio.gather(self.start("site_b"), self.start("site_a"))

    async def first_end(self) -> str:
        """Wait until one of the processes ends by itself; return which and its last words."""
        watched = dict(self.processes)
        waiting = {asyncio.create_task(process.wait(), name=name) for name, process in watched.items()}
        try:
            done, _ = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in waiting:
                task.cancel()
            await asyncio.gather(*waiting, return_exceptions=True)
        name = next(iter(done)).get_name()
        return f"{name} ended with status {watched[name].returncode}: {self.last_words(name)}"

    def last_words(self, name: str) -> str:
        """Return the last line of a process's log."""
        lines = (self.directory / f"{name}.log").read_text(errors="replace").strip().splitlines()
        return lines[-1] if lines else "it said nothing"

    async def status(self, name: str) -> SiteStatus:
        """Ask a site. Raises TransportClosed if it does not answer, with its last words if it ended."""
        process = self.processes[name]
        if process.returncode is not None:
            raise TransportClosed(f"{name} ended with status {process.returncode}: {self.last_words(name)}")
        return await read_status(self.sites[name].parent / "status.sock")

    async def stop(self, name: str, number: signal.Signals = signal.SIGTERM) -> None:
        """Send a signal to a process and wait for its end."""
        process = self.processes.pop(name)
        _signal(process, number)
        try:
            async with asyncio.timeout(10):
                await process.wait()
        except TimeoutError:
            _signal(process, signal.SIGKILL)
            await process.wait()

    async def stop_all(self) -> None:
        """Stop what runs."""
        await asyncio.gather(*(self.stop(name) for name in tuple(self.processes)))

    def remove(self) -> None:
        """Remove every file: keys, books, recordings."""
        shutil.rmtree(self.directory, ignore_errors=True)

    def pids(self) -> dict[str, int]:
        """Return the process numbers by name."""
        return {name: process.pid for name, process in sorted(self.processes.items())}


def _signal(process: asyncio.subprocess.Process, number: signal.Signals) -> None:
    """Send a signal. Not by ``Process.send_signal``: that one looks first whether the process has ended, and so takes
    its exit status away from the loop that waits for it.
    """  # noqa: D205  - one sentence of two lines
    if process.returncode is None:
        with suppress(ProcessLookupError):
            os.kill(process.pid, number)
