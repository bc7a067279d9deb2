"""Live progress on a terminal: one table that is redrawn; plain lines, now and then, where there is no terminal."""

from __future__ import annotations

import time
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.live import Live
from rich.table import Table

from heliograph.status import SiteStatus

__all__ = ["Progress"]

_LINE_EVERY_S = 2.0


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.2f} %"


class Progress:
    """Shows photons, errors, key, pools, rekeys and traffic on stderr."""

    def __init__(self, *, enabled: bool) -> None:
        self._enabled = enabled
        self._console = Console(stderr=True)
        self._live: Live | None = None
        self._last_line = 0.0

    def __enter__(self) -> Self:
        if self._enabled and self._console.is_terminal:
            self._live = Live(console=self._console, refresh_per_second=8, transient=True)
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.stop()

    def say(self, text: str) -> None:
        """Say one thing."""
        if self._enabled:
            self._console.print(text, highlight=False)

    def show(self, a: SiteStatus, b: SiteStatus, crossed: int, size: int) -> None:
        """Show the state of both sites."""
        if not self._enabled:
            return
        if self._live is not None:
            self._live.update(_table(a, b, crossed, size))
        elif time.monotonic() - self._last_line >= _LINE_EVERY_S:
            self._last_line = time.monotonic()
            self._console.print(_line(a, b, crossed), highlight=False, soft_wrap=True)


def _rekeys(status: SiteStatus) -> object:
    return status.agent["rekeys"] if status.agent else 0


def _line(a: SiteStatus, b: SiteStatus, crossed: int) -> str:
    link = a.link
    return (
        f"pulses {link.pulses:.2e}  blocks {link.blocks}  qber Z {_percent(link.qber_z)} X {_percent(link.qber_x)}  "
        f"secret {link.secret_key_bits} bit  keys A {a.kme.deliverable_keys} B {b.kme.deliverable_keys}  "
        f"rekeys {_rekeys(a)}  traffic {crossed / 1e6:.1f} MB  [{link.state}]"
    )


def _table(a: SiteStatus, b: SiteStatus, crossed: int, size: int) -> Table:
    table = Table(title="Heliograph: two sites, simulated light", title_justify="left", show_edge=False)
    for heading in ("", "site A", "site B"):
        table.add_column(heading)
    la, lb = a.link, b.link
    table.add_row("link", la.state, lb.state)
    table.add_row("pulses sent / sifted bits", f"{la.pulses:.3e}", f"{lb.sifted_bits:,}")
    table.add_row("QBER Z / X", f"{_percent(la.qber_z)} / {_percent(la.qber_x)}", _percent(lb.qber_z))
    table.add_row("blocks (discarded)", f"{la.blocks} ({la.blocks_discarded})", f"{lb.blocks} ({lb.blocks_discarded})")
    table.add_row("secret key, bits", f"{la.secret_key_bits:,}", f"{lb.secret_key_bits:,}")
    table.add_row("authentication pool, bits", f"{la.pool_bits:,}", f"{lb.pool_bits:,}")
    table.add_row("keys to deliver", f"{a.kme.deliverable_keys:,}", f"{b.kme.deliverable_keys:,}")
    table.add_row("tunnel rekeys", str(_rekeys(a)), str(_rekeys(b)))
    whole = f"of {size / 1e6:.1f} MB" + (", again and again" if crossed > size else "")
    table.add_row("payload across", f"{crossed / 1e6:.1f} MB", whole)
    return table
