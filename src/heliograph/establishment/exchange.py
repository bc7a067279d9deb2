"""One establishment between two agents, from offer to key; the same code for QKD, Diffie-Hellman and ML-KEM.

    initiator                                       responder
    share of each method
    Offer(key_ID, components, shares)   ------->    tag, names, policy; answer and secret of each method; combine
    tag, names, policy; secrets; combine <-------   Answer(components, shares, digest of the offer)

Neither side uses the key before the rotation's proofs under it have passed: they are its confirmation (``consumer``).
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from heliograph.errors import KeySupplyError, RemoteProtocolError
from heliograph.establishment.combiner import Combiner, Context, combine
from heliograph.establishment.messages import Answer, Offer, PeerKeys, Tagged, read, tagged
from heliograph.establishment.policy import QKD, Requirement
from heliograph.ports import KeyEstablishment, PendingShare
from heliograph.types import EstablishedKey

__all__ = ["Initiated", "Settings", "initiate", "read_offer", "respond"]


_ID_BYTES: Final = 16
_PAD: Final = "one-time-pad"


@dataclass(frozen=True, slots=True)
class Settings:
    """One site's view of a tunnel's establishment: every security parameter, none of it from the peer."""

    initiator: str
    responder: str
    requirement: Requirement
    combiner: Combiner
    usage: str
    keys: PeerKeys = field(repr=False)

    @property
    def is_pad(self) -> bool:
        """Whether a key is a one-time pad: many keys of the link, as they are."""
        return self.usage == _PAD


@dataclass(frozen=True, slots=True)
class Initiated:
    """An offer on its way. ``message``: to send; ``finish`` takes the peer's answer, once."""

    settings: Settings
    key_id: bytes
    message: Tagged
    pending: Mapping[str, PendingShare] = field(repr=False)

    def finish(self, answer: Tagged) -> EstablishedKey:
        """Return the key. Raises RemoteProtocolError: then there is no key at all."""
        settings = self.settings
        reply = read(answer, settings.keys.answers)
        if not isinstance(reply, Answer) or reply.key_id != self.key_id:
            raise RemoteProtocolError("an answer to another offer came: replayed, or out of order")
        if reply.offer_digest != _digest(self.message):
            raise RemoteProtocolError("the answer belongs to another offer under the same key_ID")
        settings.requirement.check(reply.components)
        if len(reply.shares) != len(reply.components) or not set(reply.components) <= set(self.pending):
            raise RemoteProtocolError("the answer has shares for components that were not offered")
        secrets = [self.pending[name].finish(share) for name, share in zip(reply.components, reply.shares, strict=True)]
        return _combined(settings, self.key_id, tuple(reply.components), secrets, self.message, answer)


async def initiate(settings: Settings, methods: Mapping[str, KeyEstablishment], fresh_id: bytes) -> Initiated:
    """Make the offer. ``fresh_id``: 16 random bytes, the key's name if no key of QKD gives it one.

    Raises KeySupplyError if a component that the policy demands cannot be had.
    """
    requirement = settings.requirement
    pending: dict[str, PendingShare] = {}
    if requirement.policy.asks_qkd:
        try:
            pending[QKD] = await methods[QKD].offer()
        except KeySupplyError:
            if requirement.policy.needs_qkd:
                raise
    for name in requirement.exchanges:
        pending[name] = await methods[name].offer()
    requirement.check(tuple(pending))
    key_id = pending[QKD].share[:_ID_BYTES] if QKD in pending else fresh_id
    offer = Offer(
        key_id=key_id,
        initiator=settings.initiator,
        responder=settings.responder,
        policy=settings.requirement.policy,
        combiner=settings.combiner,
        usage=settings.usage,
        components=list(pending),
        shares=[each.share for each in pending.values()],
    )
    return Initiated(settings, key_id, tagged(offer, settings.keys), pending)


async def respond(
    settings: Settings, methods: Mapping[str, KeyEstablishment], message: Tagged
) -> tuple[EstablishedKey, Tagged]:
    """Return the key and the answer to send. Nothing is asked of a key manager before the tag and the policy are good.

    Raises RemoteProtocolError, KeySupplyError.
    """
    offer = read_offer(settings, message)
    components, shares, secrets = [], [], []
    for name, share in zip(offer.components, offer.shares, strict=True):
        try:
            secret, reply = await methods[name].answer(share)
        except KeySupplyError:
            if name != QKD or settings.requirement.policy.needs_qkd:
                raise
            continue
        components.append(name)
        shares.append(reply)
        secrets.append(secret)
    settings.requirement.check(components)
    answer = tagged(Answer(offer.key_id, components, shares, _digest(message)), settings.keys)
    return _combined(settings, offer.key_id, tuple(components), secrets, message, answer), answer


def read_offer(settings: Settings, message: Tagged) -> Offer:
    """Check an offer against everything this site demands. Raises RemoteProtocolError."""
    offer = read(message, settings.keys.offers)
    if not isinstance(offer, Offer):
        raise RemoteProtocolError("something else came where an offer belongs: reflected")
    for what, theirs, ours in (
        ("initiator", offer.initiator, settings.initiator),
        ("responder", offer.responder, settings.responder),
        ("policy", offer.policy, settings.requirement.policy),
        ("combiner", offer.combiner, settings.combiner),
        ("cipher", offer.usage, settings.usage),
    ):
        if theirs != ours:
            raise RemoteProtocolError(
                f"the peer's {what} is {theirs!r}, here it is {ours!r}: set the same on both sites"
            )
    settings.requirement.check(offer.components)
    if len(offer.shares) != len(offer.components):
        raise RemoteProtocolError("an offer with a share too few or too many")
    if QKD in offer.components and offer.shares[0][:_ID_BYTES] != offer.key_id:
        raise RemoteProtocolError("an offer names one key_ID and offers another")
    return offer


def _digest(message: Tagged) -> bytes:
    return hashlib.sha384(message.signed + message.tag).digest()


def _combined(
    settings: Settings,
    key_id: bytes,
    components: tuple[str, ...],
    secrets: list[bytes],
    offered: Tagged,
    answered: Tagged,
) -> EstablishedKey:
    context = Context(
        settings.initiator,
        settings.responder,
        key_id,
        settings.requirement.policy,
        components,
        settings.usage,
        offered.signed,
        answered.signed,
    )
    if settings.is_pad:
        # A pad never passes through a key derivation; a policy of several secrets has no pad (agent configuration).
        if components != (QKD,):
            raise RemoteProtocolError("a one-time pad is made of QKD alone")
        return EstablishedKey(key_id, secrets[0], components, "none")
    material = combine(settings.combiner, secrets, context, settings.keys.combining)
    return EstablishedKey(key_id, material, components, settings.combiner)
