"""Whether two people compared the link's chain by voice: kept for each epoch, and told in the audit log."""

from __future__ import annotations

import hmac
from datetime import UTC, datetime
from typing import Annotated

import msgspec

from heliograph.authentication.anchors.words import parse_value
from heliograph.errors import ConfigurationError, HeliographError
from heliograph.site.audit import TIME_END, AuditLog, check_approver
from heliograph.site.config import SiteConfig
from heliograph.site.files import replace_file
from heliograph.status import LinkStatus

__all__ = ["ChainDiffers", "Comparison", "compare_chain", "describe_comparison", "read_comparison"]

NAME = "compared.json"


class ChainDiffers(HeliographError):
    """The other site has another chain. Somebody in between may have made both keys: stop the link, use none of it."""


class Comparison(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Who found the chain of ``epoch`` equal on both sites, and when (seconds since 1970)."""

    epoch: int
    chain: str
    approver: str
    time: Annotated[float, msgspec.Meta(ge=0, lt=TIME_END)]


def read_comparison(config: SiteConfig, epoch: int, chain: str | None) -> Comparison | None:
    """Return who compared this ``chain`` of this epoch, if two people did. What cannot be read was not compared.

    A store that was made anew counts its epochs from 1 again: the number alone says nothing.
    """
    found = _read(config)
    return next((one for one in found if one.epoch == epoch and one.chain == chain), None)


def _read(config: SiteConfig) -> tuple[Comparison, ...]:
    try:
        return msgspec.json.decode((config.trust / NAME).read_bytes(), type=tuple[Comparison, ...])
    except (OSError, msgspec.MsgspecError, ValueError):
        return ()


def describe_comparison(found: Comparison | None) -> str:
    """Return who and when, in words; empty if nobody did."""
    if found is None:
        return ""
    return f"{found.approver}, {datetime.fromtimestamp(found.time, UTC):%Y-%m-%d %H:%M} UTC"


def chain_of(link: LinkStatus) -> bytes:
    """Return the chain that two people compare. Raises ConfigurationError before there is one."""
    if link.chain is None:
        raise ConfigurationError(
            f"link {link.link}: there is no chain to compare yet: it needs a block whose key both sites committed; "
            "wait until `heliograph site status` shows one"
        )
    return bytes.fromhex(link.chain)


def compare_chain(config: SiteConfig, link: LinkStatus, said: str, approver: str) -> Comparison:
    """Record that the other site ``said`` the same chain, in words or hexadecimal digits.

    Raises ChainDiffers for another one, which is told in the audit log too; ConfigurationError for what is none.
    """
    check_approver(approver)
    own, theirs = chain_of(link), parse_value(said)
    equal = hmac.compare_digest(own, theirs)
    entry = AuditLog(config.audit).append(
        "chain comparison",
        approver,
        {"link": link.link, "epoch": link.epoch, "own": own.hex(), "said": theirs.hex(), "equal": equal},
    )
    others = tuple(one for one in _read(config) if one.epoch < link.epoch)
    if not equal:
        if read_comparison(config, link.epoch, link.chain):  # nobody may go on believing an earlier, wrong one
            _write(config, others)
        raise ChainDiffers(
            f"the other site's chain is NOT this one's (epoch {link.epoch}). If both were read out correctly, a "
            "man in the middle shares a key with each of you: stop both sites, use no key of this link, register anew"
        )
    found = Comparison(link.epoch, own.hex(), approver, entry.time)
    _write(config, (*others, found))
    return found


def _write(config: SiteConfig, comparisons: tuple[Comparison, ...]) -> None:
    replace_file(config.trust / NAME, msgspec.json.encode(comparisons) + b"\n")
