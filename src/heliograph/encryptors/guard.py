"""A routing rule that refuses packets for the peer's networks when no security association takes them.

charon's own routes stand in table 220, which the kernel asks first (rule 220); they come and go with its associations.
Without this rule a packet would then follow the default route and leave in clear.
"""

from __future__ import annotations

import ipaddress
import subprocess
from collections.abc import Iterable
from typing import Final

from heliograph.errors import EncryptorUnavailable

__all__ = ["refuse_clear_text"]

_PREFERENCE: Final = "221"  # next after charon's own
_COMMAND_SECONDS: Final = 5.0


def refuse_clear_text(networks: Iterable[str], netns: str | None) -> tuple[str, ...]:
    """Add the rule for each network that lacks it, and return those; rules stay when the agent ends.

    Raises EncryptorUnavailable.
    """
    added = []
    where = [] if netns is None else ["-netns", netns]
    for network in networks:
        family = f"-{ipaddress.ip_network(network).version}"
        done = _ip(*where, family, "rule", "add", "pref", _PREFERENCE, "to", network, "unreachable")
        if not done.returncode:
            added.append(network)
        elif b"File exists" not in done.stderr:
            said = " ".join(done.stderr.decode(errors="replace").split())[:200]
            raise EncryptorUnavailable(
                f"strongswan: guard: no rule could be set for {network} ({said}): nothing is started, because packets "
                "could leave in clear; give the agent CAP_NET_ADMIN, or set guard = false and filter yourself"
            )
    return tuple(added)


def _ip(*words: str) -> subprocess.CompletedProcess[bytes]:
    try:
        return subprocess.run(  # noqa: S603  - fixed program, checked words
            ["ip", *words],  # noqa: S607  - where the operating system has it
            capture_output=True,
            timeout=_COMMAND_SECONDS,
            check=False,
        )
    except FileNotFoundError:
        raise EncryptorUnavailable("the program ip is missing: apt-get install -y iproute2") from None
    except (OSError, subprocess.TimeoutExpired) as why:
        raise EncryptorUnavailable(f"the program ip did not run: {why}") from None
