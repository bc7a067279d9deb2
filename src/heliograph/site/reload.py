"""A running process takes over its changed configuration: all of it, or nothing (ADR 0052, ADR 0039)."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Generic, Protocol, TypeVar

from heliograph.errors import ConfigurationError, HeliographError
from heliograph.site.bugs import place
from heliograph.site.clocks import WallClock
from heliograph.site.file_looks import Look, changed, look_at
from heliograph.status import ConfigurationStatus

__all__ = ["Prepared", "Reloads", "Rules", "Setting"]

_log = logging.getLogger("heliograph.reload")
_KEPT: Final = "nothing was reloaded, the running configuration stays in force"
_Made = TypeVar("_Made")


class _FromFile(Protocol):
    @property
    def toml(self) -> Path: ...


_Config = TypeVar("_Config", bound=_FromFile)


@dataclass(frozen=True, slots=True)
class Setting:
    """A setting that differs between two files. ``live``: a running process can take it over."""

    name: str
    live: bool


@dataclass(frozen=True, slots=True)
class Rules(Generic[_Config]):
    """How one kind of configuration is reloaded.

    ``read``: raises ConfigurationError; ``files``: what the settings themselves come from; ``credentials``: the
    certificates and keys that they name; ``changes``: between two of them; ``record``: notes who asked for which
    changes, durably and before they are made, or raises.
    """

    read: Callable[[Path], _Config]
    files: Callable[[_Config], Sequence[Path]]
    credentials: Callable[[_Config], Sequence[Path]]
    changes: Callable[[_Config, _Config], Sequence[Setting]]
    record: Callable[[_Config, str, Sequence[str]], object] | None = None


@dataclass(frozen=True, slots=True)
class Prepared:
    """A change that is ready. ``apply``: makes it, and does not fail; ``discard``: forgets it instead."""

    apply: Callable[[], Awaitable[None]]
    discard: Callable[[], None] = lambda: None


class Reloads(Generic[_Config]):
    """What of a running process follows its files."""

    def __init__(self, config: _Config, rules: Rules[_Config]) -> None:
        self._config = config
        self._rules: Final = rules
        self._credentials = look_at(rules.credentials(config))
        self._entries: list[Callable[[_Config], Awaitable[Prepared]]] = []
        self._turn = asyncio.Lock()
        self._closed = False
        self._since, self._done, self._refused, self._last = WallClock().now(), 0, 0, ""

    @property
    def config(self) -> _Config:
        """What is in force now."""
        return self._config

    def status(self) -> ConfigurationStatus:
        """Tell since when it is in force, and what came of the last reload."""
        return ConfigurationStatus(self._since, self._done, self._refused, self._last)

    def prepare(self, make: Callable[[_Config], Awaitable[Prepared]]) -> None:
        """Take part in each reload. ``make`` changes nothing and raises ConfigurationError; they run in this order."""
        self._entries.append(make)

    def add(self, make: Callable[[_Config], _Made], apply: Callable[[_Made], object]) -> None:
        """Take part by ``apply`` of what ``make`` returns. ``make`` as in ``prepare``; ``apply`` does not fail."""

        async def prepared(config: _Config) -> Prepared:
            made = make(config)

            async def carry_out() -> None:
                apply(made)

            return Prepared(carry_out)

        self._entries.append(prepared)

    async def close(self) -> None:
        """Wait for a reload that is under way, then refuse every other: called before anything is closed."""
        async with self._turn:
            self._closed = True

    async def watch(self, asked: asyncio.Event) -> None:
        """Reload each time that ``asked`` is set. Never ends by itself."""
        while True:
            await asked.wait()
            asked.clear()
            with suppress(HeliographError):  # said already
                await self.reload("SIGHUP")

    async def reload(self, who: str) -> str:
        """Read the files anew and use them; log one line and return it. ``who`` asks, for the audit log.

        Raises ConfigurationError: what is in force then is what was. Nothing under way is ended, but for connections of
        consumers that may not come any more.
        """
        async with self._turn:
            if self._closed:
                raise self._refuse("nothing was reloaded: the site is ending")
            prepared: list[Prepared] = []
            try:
                fresh, names, credentials = await self._check(who, prepared)
            except BaseException as why:
                for one in prepared:
                    one.discard()
                if not isinstance(why, Exception):
                    raise
                raise self._refuse(
                    f"nothing was reloaded, the running configuration stays in force: {_told(why)}"
                ) from None
            self._config = fresh
            try:
                for one in prepared:
                    await one.apply()
            except Exception as why:  # noqa: BLE001  - what was applied stays
                raise self._refuse(f"reloaded in part, restart: {_told(why)}") from None
            self._since, self._done = WallClock().now(), self._done + 1
            self._last = _came_of(self._named(changed(self._credentials, credentials)), names)
            self._credentials = credentials
            _log.info("%s", self._last)
            return self._last

    def _refuse(self, said: str) -> ConfigurationError:
        self._refused, self._last = self._refused + 1, said
        _log.error("%s", said)
        return ConfigurationError(said)

    async def _check(self, who: str, prepared: list[Prepared]) -> tuple[_Config, list[str], dict[Path, Look | None]]:
        """Read and check everything, then write down what is going to change; fill ``prepared``."""
        before = look_at(self._rules.files(self._config))
        fresh = self._rules.read(self._config.toml)
        changes = self._rules.changes(self._config, fresh)
        if fixed := [change.name for change in changes if not change.live]:
            raise ConfigurationError(
                f"{self._config.toml}: {', '.join(fixed)}: changed by a restart only; put it back, or restart"
            )
        credentials = look_at(self._rules.credentials(fresh))
        for make in self._entries:
            prepared.append(await make(fresh))  # noqa: PERF401  - what was made before one fails is kept
        if look_at(self._rules.files(fresh)) != before:
            raise ConfigurationError(
                f"{self._config.toml}: it was being written while it was read; write a new file, move it in place, "
                "then reload"
            )
        now = look_at(credentials)
        if moved := [path for path, look in now.items() if look != credentials[path]]:
            # What was read may be of both sets: the certificate of one, the preshared key of the other.
            raise ConfigurationError(
                f"{', '.join(self._named(moved))}: exchanged while the files were read; put all of them in place, then "
                "reload"
            )
        names = [change.name for change in changes]
        if names and self._rules.record is not None:
            await asyncio.to_thread(self._rules.record, fresh, who, names)
        return fresh, names, credentials

    def _named(self, paths: Sequence[Path]) -> list[str]:
        """Return paths as the file with the settings names them."""
        home = self._config.toml.parent.absolute()
        return [str(path.relative_to(home) if path.is_relative_to(home) else path) for path in paths]


def _came_of(files: Sequence[str], names: Sequence[str]) -> str:
    parts = [f"renewed: {', '.join(files)}"] if files else []
    parts += [f"changed: {', '.join(names)}"] if names else []
    return "; ".join(parts) or "nothing to reload: no setting, certificate or key file differs from what is in force"


def _told(why: Exception) -> str:
    # The text of an error that nobody foresaw might quote key material: kind and place are enough.
    known = isinstance(why, HeliographError)
    return str(why) if known else f"internal error ({type(why).__name__} at {place(why)}): please report it"
