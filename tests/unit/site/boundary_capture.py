"""Run inside a fresh network namespace: fetch keys in each of three ways, record every frame of every interface.

Prints one JSON document: frames seen in each way, keys fetched, TCP listeners while only the co-located ways are open.
"""

import asyncio
import fcntl
import json
import os
import pwd
import socket
import struct
import sys
from contextlib import AsyncExitStack
from pathlib import Path

from site_on_disk import SiteOnDisk, make_site

from heliograph.http.client import Etsi014Client
from heliograph.http.tls import client_tls, server_tls
from heliograph.kme.supply import Limits, SaePair, Supply
from heliograph.site.clocks import WallClock
from heliograph.site.config import read_site
from heliograph.site.delivery import InProcessKeySource
from heliograph.site.kme_doors import open_doors
from heliograph.site.live_settings import site_reloads
from heliograph.site.store import SiteStore
from heliograph.storage.database import Database
from heliograph.storage.keys import KeyRecords, NewKey
from heliograph.vault.filekek import FileKek
from heliograph.vault.randomness import SystemRandomness

KEYS = 5
ETH_P_ALL, SIOCSIFFLAGS, IFF_UP = 3, 0x8914, 1


def bring_up(interface):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        fcntl.ioctl(any_socket, SIOCSIFFLAGS, struct.pack("16sh14x", interface.encode(), IFF_UP))


class Recorder:
    """Every frame on every interface of this namespace, loopback included."""

    def __init__(self):
        self.raw = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL))
        self.raw.settimeout(0)

    def frames(self):
        seen = []
        while True:
            try:
                seen.append(self.raw.recv(65536))
            except BlockingIOError:
                return seen


def listeners():
    """TCP and UDP sockets of this namespace that wait for somebody."""
    rows = [line.split() for name in ("tcp", "tcp6") for line in Path(f"/proc/net/{name}").read_text().splitlines()[1:]]
    udp = [line for name in ("udp", "udp6") for line in Path(f"/proc/net/{name}").read_text().splitlines()[1:]]
    return [row[1] for row in rows if row[3] == "0A"] + udp


def supply_of(config):
    database = Database(config.path(config.file.store), FileKek(config.path(config.file.kek), SystemRandomness()))
    keys = KeyRecords(database, SystemRandomness())
    rows = [
        NewKey(
            f"00000000-0000-4000-8000-{n:012d}",
            "sae-a",
            "sae-b",
            owner_here=True,
            material=os.urandom(32),
            created_at=0.0,
        )
        for n in range(KEYS)
    ]
    with database.transaction() as cursor:
        keys.add(cursor, 1, 1, rows)
        keys.acknowledge(cursor, 1, 1)
    supply = Supply(keys, "kme-a", [SaePair("sae-a", "sae-b", "kme-b")], Limits(), WallClock())
    return SiteStore(database, None, keys, None), supply, [row.material for row in rows]


async def fetch(site, boundary, recorder, source_of):
    document = site.document()
    del document["agent"]
    document["boundary"] = boundary
    site.write(document)
    config = read_site(site.toml)
    store, supply, expected = supply_of(config)
    kme = config.file.kme
    tls = server_tls(config.path(kme.certificate), config.path(kme.key), config.path(kme.ca))
    recorder.frames()
    async with AsyncExitStack() as stack:
        stack.callback(store.database.close)
        await open_doors(stack, config, supply, {"": store}, tls, site_reloads(config))
        waiting = listeners()
        source = source_of(config, supply)
        stack.push_async_callback(source.close)
        got = [(await source.get_key()).material for _ in range(KEYS)]
    frames = recorder.frames()
    return {
        "keys": len(got),
        "right": got == expected,
        "frames": len(frames),
        "in_clear": sum(key in frame for frame in frames for key in got),
        "listeners": waiting,
    }


def over_lan(config, _):
    pki = config.directory / "pki"
    tls = client_tls(pki / "sae.pem", pki / "sae.key", pki / "ca.pem", "kme-a")
    return Etsi014Client(f"https://{config.file.kme.listen}", tls, "sae-a", "sae-b")


def over_socket(config, _):
    return Etsi014Client.over_socket(config.boundary().socket, "sae-a", "sae-b")


def in_process(config, supply):
    return InProcessKeySource(supply, config.boundary().boundary, "sae-a", "sae-b")


async def main(directory):
    bring_up("lo")
    made = SiteOnDisk(make_site(directory / "made", light=directory / "light.sock"))
    recorder = Recorder()
    me = pwd.getpwuid(os.getuid()).pw_name
    ways = {
        "certificate": ({"certificates": ["sae-a"], "networks": ["127.0.0.0/8"]}, over_lan),
        "user": ({"certificates": [], "socket": "run/kme.sock", "users": {me: "sae-a"}}, over_socket),
        "in-process": ({"certificates": [], "in_process": ["sae-a"]}, in_process),
    }
    found = {}
    for name, (boundary, source_of) in ways.items():
        found[name] = await fetch(made.copy(directory / name), boundary, recorder, source_of)
    found["interfaces"] = [name for _, name in socket.if_nameindex()]
    sys.stdout.write(json.dumps(found))


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1])))
