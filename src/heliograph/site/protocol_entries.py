"""The site file's entries for the delivery protocols beside ETSI GS QKD 014; each is optional and shut by default.

[skip]
listen = "192.0.2.2:8444"
local_system_id = "key-provider-a"
remote_systems = { "key-provider-b" = ["sae-b"] }   # names may be globs
"""

from __future__ import annotations

import msgspec

from heliograph.kme.skip import SkipSystems

__all__ = ["SkipEntry"]


class SkipEntry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """SKIP for encryptors of this site; certificates are those of ``[kme]``."""

    listen: str
    local_system_id: str
    remote_systems: dict[str, list[str]]

    def systems(self) -> SkipSystems:
        """Return the declared systems. Raises ConfigurationError."""
        return SkipSystems(self.local_system_id, {name: tuple(saes) for name, saes in self.remote_systems.items()})
