"""The site file's [delivery]: keys in a PostgreSQL server, which front ends hand out (docs/how-to/postgresql.md).

[delivery]
server = "host=/run/postgresql dbname=heliograph user=heliograph"    # libpq's words; no password among them
standby = "replica"                  # optional: a commit counts once this standby has it too
front_ends = [                       # all of them, also those on other machines
  { name = "fe-1", listen = "192.0.2.10:8443", directory = "fe-1" },
  { name = "fe-2", listen = "192.0.2.11:8443", directory = "fe-2" },
]
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from heliograph.errors import ConfigurationError
from heliograph.site.boundary_entry import BoundaryEntry
from heliograph.site.supply_plan import KmeEntry
from heliograph.storage.pg_server import ServerEntry

__all__ = ["DeliveryEntry", "FrontEndEntry", "check_alone"]

_FRONT_ENDS_MAX = 32  # our choice: each must be heard in each run of the server
_NAME_CHARS_MAX = 64


class FrontEndEntry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One process that hands keys out. ``directory``: its own file and anchor; relative to SITE.toml."""

    name: str
    listen: str
    directory: str


class DeliveryEntry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The entry as it is written."""

    server: str
    front_ends: list[FrontEndEntry]
    standby: str | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """The front ends' names."""
        return tuple(entry.name for entry in self.front_ends)

    def server_entry(self) -> ServerEntry:
        """Return where the server is."""
        return ServerEntry(self.server, self.standby)

    def front_end(self, name: str) -> FrontEndEntry:
        """Return one front end's entry. Raises ConfigurationError."""
        for entry in self.front_ends:
            if entry.name == name:
                return entry
        raise ConfigurationError(f"[delivery] front_ends: there is no {name!r}, only {', '.join(self.names)}")

    def check(self) -> None:
        """Raise ConfigurationError for what could not be served."""
        if not 1 <= len(self.front_ends) <= _FRONT_ENDS_MAX:
            raise ConfigurationError(f"[delivery] front_ends: between 1 and {_FRONT_ENDS_MAX} are needed")
        for entry in self.front_ends:
            if not (entry.name.isascii() and entry.name.isprintable() and 1 <= len(entry.name) <= _NAME_CHARS_MAX):
                raise ConfigurationError(
                    f"[delivery] front_ends: name {entry.name!r}: 1 to {_NAME_CHARS_MAX} plain characters"
                )
            if not entry.directory.strip("./") or "\0" in entry.directory:
                raise ConfigurationError(f"[delivery] front_ends: {entry.name}: name a directory of its own")
        for what, values in (
            ("name", self.names),
            ("directory", tuple(entry.directory.rstrip("/") for entry in self.front_ends)),
        ):
            if len(set(values)) != len(values):
                raise ConfigurationError(f"[delivery] front_ends: a {what} comes twice; each front end has its own")
        if self.standby is not None and not self.standby.isidentifier():
            raise ConfigurationError(f"[delivery] standby = {self.standby!r}: a name of letters, digits and _")
        self.server_entry().check()


def check_alone(
    kme: KmeEntry, boundary: BoundaryEntry | None, others: Mapping[str, object | None], *, links: int = 1
) -> None:
    """Refuse what front ends do not serve in this release. ``others``: further sections by name. ConfigurationError."""
    if links > 1:
        raise ConfigurationError(
            "[delivery] and [[further_links]]: front ends serve the keys of one link in this release; take one out"
        )
    found = [name for name, entry in others.items() if entry is not None]
    if kme.groups:
        found.append("[kme] groups")
    if boundary is not None and (boundary.socket is not None or boundary.in_process):
        found.append("[boundary] socket, users and in_process")
    if found:
        raise ConfigurationError(
            f"[delivery] and {found[0]}: front ends serve ETSI GS QKD 014 over mutual TLS, nothing else; take one out"
        )
