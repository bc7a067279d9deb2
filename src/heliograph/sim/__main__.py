"""``python -m heliograph.sim FIBRE.toml``: run the fibre process until SIGTERM or SIGINT.

Prints one line, ``{"ready": true}``, once it listens. Exit codes: 0 ended by signal, 1 refused, 2 wrong usage.
"""

from __future__ import annotations

import asyncio
import signal
import sys
from pathlib import Path

from heliograph.errors import ConfigurationError
from heliograph.sim.config import FibreConfig, read_config
from heliograph.sim.fibre import Fibre

__all__ = ["main"]


def main(arguments: list[str]) -> int:
    """Run the fibre process of one configuration file and return its exit code."""
    if len(arguments) != 1 or arguments[0].startswith("-"):
        sys.stderr.write("usage: python -m heliograph.sim FIBRE.toml\n")
        return 2
    try:
        asyncio.run(_serve(read_config(Path(arguments[0]))))
    except ConfigurationError as error:
        line = " ".join(str(error).split())
        sys.stderr.write(f"{line}\n")
        return 1
    return 0


async def _serve(config: FibreConfig) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    await Fibre(config).run(stop, _announce)


def _announce() -> None:
    sys.stdout.write('{"ready": true}\n')
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
