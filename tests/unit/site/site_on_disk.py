"""A site's directory for tests: made once, copied for each test, changed entry by entry."""

import copy
import json
import shutil
import socket
import tomllib

from heliograph.lab.ports import free_ports
from heliograph.site.config import read_site
from heliograph.site.credentials import PeerFiles
from heliograph.site.register import register
from heliograph.site.setup import SiteSetup, _value, set_up_site
from heliograph.testing.links import example_registration
from heliograph.vault.pskfile import create_book, write_book
from heliograph.vault.randomness import SystemRandomness


def make_site(directory, *, light, role="transmitter", ports=None):
    """Write a whole site, book and registration included, with a transmitter's light at the Unix socket ``light``."""
    kme, classical, control, outer, inner = ports or free_ports(5)
    here, peer = ("a", "b") if role == "transmitter" else ("b", "a")
    setup = SiteSetup(
        name=f"site-{here}",
        role=role,
        kme_id=f"kme-{here}",
        peer_kme_id=f"kme-{peer}",
        kme_listen=f"127.0.0.1:{kme}",
        sae=f"sae-{here}",
        peer_sae=f"sae-{peer}",
        module=f"simulated-{role}",
        module_settings={"address": f"unix:{light}"},
        dial=f"127.0.0.1:{classical}" if role == "transmitter" else None,
        listen=f"127.0.0.1:{classical}" if role == "receiver" else None,
        tunnel={
            "role": "initiator",
            "control": f"127.0.0.1:{control}",
            "outer_connect": f"127.0.0.1:{outer}",
            "forwards": {"host-b": f"127.0.0.1:{inner}"},
        }
        if role == "transmitter"
        else {
            "role": "responder",
            "control": f"127.0.0.1:{control}",
            "outer_listen": f"127.0.0.1:{outer}",
            "targets": {"host-b": f"127.0.0.1:{inner}"},
        },
    )
    set_up_site(directory, setup, example_registration(), SystemRandomness())
    book = directory.parent / "book"
    if not book.exists():
        create_book(book, SystemRandomness())
    write_book(directory / "psk.book", book.read_bytes())
    register(read_site(directory / "SITE.toml"), "Ann", PeerFiles())
    return directory


class SiteOnDisk:
    """One site's directory."""

    def __init__(self, directory):
        self.directory = directory
        self.toml = directory / "SITE.toml"
        self.registration = directory / "link.json"

    def copy(self, directory):
        shutil.copytree(self.directory, directory)
        return SiteOnDisk(directory)

    def document(self):
        return tomllib.loads(self.toml.read_text())

    def write(self, document):
        document = copy.deepcopy(document)
        tables = {name: value for name, value in document.items() if isinstance(value, dict)}
        text = "".join(f"{name} = {_value(value)}\n" for name, value in document.items() if name not in tables)
        for name, table in tables.items():
            text += f"\n[{name}]\n" + "".join(f"{json.dumps(k)} = {_value(v)}\n" for k, v in table.items())
        self.toml.write_text(text)

    def set(self, **entries):
        """Change entries, named ``table__entry`` or ``entry``; ``None`` removes one."""
        document = self.document()
        for name, value in entries.items():
            table, _, entry = name.rpartition("__")
            place = document[table] if table else document
            if value is None:
                place.pop(entry, None)
            else:
                place[entry] = value
        self.write(document)

    def snapshot(self):
        """Everything on the disk below the directory."""
        return {
            str(path.relative_to(self.directory)): (path.stat().st_mode, path.read_bytes() if path.is_file() else b"")
            for path in sorted(self.directory.rglob("*"))
        }


def listening(path):
    """Open a socket that stands for the fibre: the module connects and nothing ever comes."""
    server = socket.socket(socket.AF_UNIX)
    server.bind(str(path))
    server.listen()
    return server
