"""One key-encryption key for several stores, none of which opens what was sealed for another."""

from __future__ import annotations

import hashlib

from heliograph.ports import Vault

__all__ = ["BoundVault"]


class BoundVault:
    """A vault for one store of several. ``name``: the store's, the same as long as it is to be opened.

    Rows of a store are bound to their numbers and names, which come again in another store. Without this, whoever can
    write both files could move a link's sealed pads into another link's store, and have them used a second time.
    """

    def __init__(self, vault: Vault, name: str) -> None:
        self._vault = vault
        self._before = b"heliograph/1 store of " + hashlib.sha256(name.encode()).digest()

    @property
    def kind(self) -> str:
        """What protects the key-encryption key itself."""
        return self._vault.kind

    def seal(self, secret: bytes, context: bytes) -> bytes:
        """Return ``secret`` encrypted and bound to the store and to ``context``."""
        return self._vault.seal(secret, self._before + context)

    def unseal(self, sealed: bytes, context: bytes) -> bytes:
        """Return the secret. Raises StoreUnavailable if it was altered or sealed for another store."""
        return self._vault.unseal(sealed, self._before + context)
