"""Everything this package raises on purpose.

Three kinds of no (docs/glossary.md): a message is *refused*, a block is *discarded*, a session is *aborted*.
A class's docstring is what an operator reads; the raised text adds the offending value and never key material.
"""

from __future__ import annotations

from typing import Literal

__all__ = [
    "AnchorRefused",
    "AuthenticationFailed",
    "BlockDiscarded",
    "ConfigurationError",
    "EncryptorUnavailable",
    "HeliographError",
    "InsufficientKeys",
    "KeyNotFound",
    "KeySupplyError",
    "LocalProtocolError",
    "NotPermitted",
    "PadsExhausted",
    "QBERTooHigh",
    "ReconciliationFailed",
    "RefusalCause",
    "RemoteProtocolError",
    "RollbackDetected",
    "SiteSealed",
    "StoreUnavailable",
    "TransportClosed",
    "VerificationFailed",
]


class HeliographError(Exception):
    """Parent of every error this package raises on purpose."""


class LocalProtocolError(HeliographError):
    """We asked our own machine for something the protocol does not allow: a bug on this side."""


class RemoteProtocolError(HeliographError):
    """The peer, or someone in between, sent something the protocol does not allow; it was not acted on."""


RefusalCause = Literal[
    "malformed",
    "untrusted",
    "expired",
    "not-yet-valid",
    "revoked",
    "revocation-unknown",
    "wrong-name",
    "wrong-key-usage",
    "path-length",
    "weak-algorithm",
    "too-few-introducers",
]


class AnchorRefused(RemoteProtocolError):
    """The peer's credential does not lead to the anchor that is registered here; nobody was believed.

    ``cause`` is for programs; the text names the certificate or key, the reason and the remedy, for a person.
    """

    def __init__(self, cause: RefusalCause, text: str) -> None:
        super().__init__(text)
        self.cause: RefusalCause = cause


class TransportClosed(HeliographError):
    """The connection to the peer ended; the link reconnects by itself."""


class ConfigurationError(HeliographError):
    """The configuration cannot be used as written; the text names the file, the entry and the remedy."""


class EncryptorUnavailable(HeliographError):
    """An encryptor that we drive did not do what it was told: nothing passes until it does."""


class SiteSealed(ConfigurationError):
    """The passphrase or PIN that opens the key-encryption key is not at hand; nothing was opened."""


class RollbackDetected(HeliographError):
    """The store is older than its anchor or than what the peer proves: a restored backup or a cloned machine."""


class StoreUnavailable(HeliographError):
    """The key store cannot be written or read: disk full, I/O error, or not unsealed. Nothing was issued."""


class BlockDiscarded(HeliographError):
    """This block yields no key; the session goes on with the next one."""


class AuthenticationFailed(BlockDiscarded):
    """A tag did not match: a damaged or forged message. The block is destroyed whole."""


class QBERTooHigh(BlockDiscarded):
    """The error rate leaves no secret key: misalignment, noise, or an eavesdropper. Check alignment first."""


class ReconciliationFailed(BlockDiscarded):
    """Reconciliation went over one of its caps before both sides could agree."""


class VerificationFailed(BlockDiscarded):
    """The two keys still differ after reconciliation."""


class KeySupplyError(HeliographError):
    """The key manager cannot serve this request."""


class InsufficientKeys(KeySupplyError):
    """Fewer keys are stored for this pair of SAEs than were asked for; try again when the link has made more."""


class KeyNotFound(KeySupplyError):
    """One or more of the key_IDs are not stored for this SAE: unknown, delivered already, or expired."""


class NotPermitted(KeySupplyError):
    """This SAE is not one of those the keys were allocated to."""


class PadsExhausted(HeliographError):
    """No authentication pad is left for this address: the link stops until an operator re-bootstraps it."""
