"""The page on PostgreSQL, run as it is written, with a server and ports of the test's own."""

import asyncio
import re
import shutil
import sys
from contextlib import ExitStack
from pathlib import Path

import pytest
from markdown_pages import ROOT, blocks
from test_walkthroughs import _running, _shell

from heliograph.errors import InsufficientKeys
from heliograph.http.client import Etsi014Client
from heliograph.http.tls import client_tls
from heliograph.lab.ports import free_ports
from heliograph.site.config import read_site

sys.path.insert(0, str(Path(__file__).parents[1] / "site"))
sys.path.insert(0, str(Path(__file__).parents[2] / "faults"))
from front_end_processes import fill, short_directory
from site_on_disk import make_site

pytestmark = pytest.mark.slow


@pytest.mark.soak
def test_the_page_on_postgresql_does_what_it_says(server):
    place = short_directory()
    ports = dict(zip(("8443", "8444"), map(str, free_ports(2)), strict=True))
    page = {b.marker: b.text for b in blocks(ROOT / "docs/how-to/postgresql.md") if b.marker}
    entry = re.sub(r"\b844[34]\b", lambda match: ports[match[0]], page["file: DELIVERY.toml"])
    entry = re.sub(r'server = ".*"', f'server = "{server.conninfo()}"', entry)
    try:
        toml = make_site(place / "a", light=place / "light.sock") / "SITE.toml"
        toml.write_text(toml.read_text() + "\n" + entry)
        keys = fill(toml, 1, owned=3, held=0)
        moved = _shell(page["postgresql: move"], toml.parent)
        assert moved.stdout == "The delivery server has its tables now.\n3 keys moved.\n", moved.stderr
        with ExitStack() as stack:
            for line in page["postgresql: serve"].strip().splitlines():
                stack.enter_context(_running(line, toml.parent, "stdout", "ready"))
            got = asyncio.run(ask_both(toml, ports.values()))
            assert got.items() <= keys.items()
            assert len(got) == 2
        reopened = _shell(page["postgresql: reopen"], toml.parent)
        assert reopened.stdout == "1 keys destroyed; start the front end fe-1 again.\n", reopened.stderr
        with ExitStack() as stack:
            for line in page["postgresql: serve"].strip().splitlines():
                stack.enter_context(_running(line, toml.parent, "stdout", "ready"))
            with pytest.raises(InsufficientKeys):
                asyncio.run(ask_both(toml, ports.values()))
    finally:
        shutil.rmtree(place)


async def ask_both(toml, ports):
    config, got = read_site(toml), {}
    kme, agent = config.file.kme, config.file.agent
    tls = client_tls(config.path(agent.certificate), config.path(agent.key), config.path(kme.ca), kme.id)
    for port in ports:
        async with Etsi014Client(f"https://127.0.0.1:{port}", tls, agent.sae, agent.peer_sae) as client:
            key = await client.get_key()
            got[key.key_id] = key.material
    return got
