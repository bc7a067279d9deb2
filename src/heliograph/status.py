"""What people and dashboards may see: figures and names, never key material, by construction."""

from __future__ import annotations

from msgspec import Struct

__all__ = ["Budget", "ConfigurationStatus", "KmeStatus", "LinkStatus", "PadFlow", "SiteStatus"]


class PadFlow(Struct, frozen=True):
    """Authentication bits of one direction over the life of a link: in + refilled = spent + lost + left.

    ``bits_reserved``: those of the bits left that belong to blocks under way or in doubt.
    """

    bits_in: int
    bits_refilled: int
    bits_spent: int
    bits_lost: int
    bits_left: int
    bits_reserved: int


class Budget(Struct, frozen=True):
    """A link's authentication key. ``level``: normal, throttle, alarm, floor or empty, by complete pad sets left.

    Rates are over the last minutes. ``seconds_left``: until no block can begin, if all goes on like that; None while
    the pool holds or grows, or nothing is known yet. ``seconds_left_without_refill``: the same if refill stops now.
    """

    level: str
    to_receiver: PadFlow
    to_transmitter: PadFlow
    used_bps: float
    refilled_bps: float
    seconds_left: float | None
    seconds_left_without_refill: float | None


class LinkStatus(Struct, frozen=True):
    """One link. Rates of the error are over accepted blocks; ``None`` before the first.

    ``epoch_blocks``: blocks that made a key since the epoch's bootstrap; ``mac``: what authenticates them;
    ``assurance``: see ``authentication.assurance``; ``chain``: 32 hexadecimal digits that two people compare by voice,
    ``None`` before there is one; ``opened_at``: when the epoch's bootstrap was, in seconds since 1970, 0 before the
    first; ``algorithms``: what it rested on, the book first, then the signatures of the transmitter's and of the
    receiver's site; ``compared``: who compared this chain and when, empty if nobody did.
    """

    link: str
    state: str
    peer: str
    epoch: int
    bootstrap: str
    blocks: int
    blocks_discarded: int
    last_discard: str
    sifted_bits: int
    key_errors: int
    key_detections: int
    test_errors: int
    test_detections: int
    disclosed_bits: int
    secret_key_bits: int
    pulses: int
    double_clicks: int
    clock_hz: float
    first_key_s: float | None
    pad_sets: int
    pool_bits: int
    bits_spent: int
    bits_refilled: int
    budget: Budget
    eps_total: float
    junk_frames: int
    refused_frames: int
    blocks_in_doubt: int
    epoch_blocks: int = 0
    mac: str = ""
    assurance: str = ""
    chain: str | None = None
    opened_at: float = 0.0
    algorithms: tuple[str, ...] = ()
    compared: str = ""

    @property
    def qber_z(self) -> float | None:
        """Error rate in the key basis, exact, after reconciliation."""
        return self.key_errors / self.key_detections if self.key_detections else None

    @property
    def qber_x(self) -> float | None:
        """Error rate in the test basis."""
        return self.test_errors / self.test_detections if self.test_detections else None


class KmeStatus(Struct, frozen=True):
    """A site's key manager: keys that could be delivered now, and keys delivered by ``enc_keys`` and ``dec_keys``.

    ``damaged_keys``: set aside because they, or their block's key, do not open; they are never delivered.
    """

    deliverable_keys: int
    delivered_to_masters: int
    delivered_to_slaves: int
    damaged_keys: int = 0


class ConfigurationStatus(Struct, frozen=True):
    """The configuration in force. ``since``: seconds since 1970; ``last``: the line of the last reload, if any.

    ``reloads`` and ``refused``: how many were done, and how many changed nothing.
    """

    since: float = 0.0
    reloads: int = 0
    refused: int = 0
    last: str = ""


class SiteStatus(Struct, frozen=True):
    """One site. ``agent`` holds the encryptor's own status record where one runs here.

    ``further_links``: those beside ``link``, in the order of SITE.toml; ``kme`` counts the keys of all.
    """

    site: str
    process_id: int
    randomness: str
    kek: str
    link: LinkStatus
    kme: KmeStatus
    agent: dict[str, object] | None
    configuration: ConfigurationStatus = ConfigurationStatus()
    further_links: tuple[LinkStatus, ...] = ()

    @property
    def links(self) -> tuple[LinkStatus, ...]:
        """All links, the first one first."""
        return (self.link, *self.further_links)
