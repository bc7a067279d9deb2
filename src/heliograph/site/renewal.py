"""Certificates renewed without a restart: all new ones can be used, or all old ones stay in force (ADR 0039)."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import msgspec

from heliograph.errors import HeliographError
from heliograph.site.bugs import place
from heliograph.site.config import SiteConfig, read_site

__all__ = ["Renewals"]

_log = logging.getLogger("heliograph.site")
_Made = TypeVar("_Made")


class Renewals:
    """What of a running site follows its files. ``config``: what is in force now."""

    def __init__(self, config: SiteConfig) -> None:
        self._config = config
        self._entries: list[tuple[Callable[[SiteConfig], Any], Callable[[Any], Awaitable[None]]]] = []

    def add(self, make: Callable[[SiteConfig], _Made], apply: Callable[[_Made], Awaitable[None]]) -> None:
        """Renew by ``apply`` of what ``make`` reads; ``make`` changes nothing and raises ConfigurationError."""
        self._entries.append((make, apply))

    async def watch(self, asked: asyncio.Event) -> None:
        """Renew each time that ``asked`` is set; say in one line what came of it. Never ends by itself."""
        while True:
            await asked.wait()
            asked.clear()
            try:
                _log.info("%s", await self.renew())
            except HeliographError as error:
                _log.error("nothing was renewed, the old certificates stay in force: %s", error)
            except Exception as error:  # noqa: BLE001  - a failed renewal never ends a running site
                _log.error("nothing more was renewed: %s at %s", type(error).__name__, place(error))

    async def renew(self) -> str:
        """Read SITE.toml and its certificates anew and use them. Returns one line; raises ConfigurationError."""
        fresh = read_site(self._config.toml)
        # (1) Everything is read and checked before (2) anything is changed.
        made = [(apply, make(fresh)) for make, apply in self._entries]
        for apply, one in made:
            await apply(one)
        changed = _changed(self._config, fresh)
        return "certificates renewed" + (f"; changed too, used from the next start on: {changed}" if changed else "")


def _changed(old: SiteConfig, new: SiteConfig) -> str:
    before, after = (msgspec.to_builtins(config.file) for config in (old, new))
    names = [name for name in after if _kept(name, before[name]) != _kept(name, after[name])]
    if old.registration != new.registration:
        names.append("the registration")
    return ", ".join(names)


def _kept(name: str, entry: object) -> object:
    if name in {"kme", "agent", "etsi020"} and isinstance(entry, dict):
        return {key: value for key, value in entry.items() if key not in {"certificate", "key", "ca"}}
    return entry
