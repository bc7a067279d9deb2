"""What the two end sites of a relayed key have beside their relays: a secret carried out of band (``peer_key``).

From it each end derives a key for proofs of parcels (``parcels``) and the keys of ``establishment.messages``, under
which an offer and an answer of ML-KEM travel with the transfer. Each key is then combined of two secrets, the relayed
bits and ML-KEM's, by ``establishment.combiner``: a relay that knows the first does not know the second.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

import msgspec
from cryptography.hazmat.primitives.hashes import SHA384
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from heliograph.errors import AuthenticationFailed, RemoteProtocolError
from heliograph.establishment.combiner import Combiner, Context, combine
from heliograph.establishment.messages import Answer, Offer, PeerKeys, Tagged, read, tagged
from heliograph.establishment.policy import Policy
from heliograph.network.letters import Letter, Receipt, read_letter
from heliograph.network.parcels import PROOF_BYTES, framed

__all__ = ["EndToEnd"]

_RELAY: Final = "relay"
_USAGE: Final = "relayed key"
_COMBINER: Final = Combiner.HKDF_SHA_512


@dataclass(frozen=True, slots=True)
class EndToEnd:
    """What two end nodes derive from the 32 bytes of their ``peer_key``."""

    peer: PeerKeys = field(repr=False)
    proofs: bytes = field(repr=False)

    @classmethod
    def derive(cls, secret: bytes) -> EndToEnd:
        """Derive by HKDF-SHA-384 (RFC 5869), apart from every other use of the same secret."""
        proofs = HKDF(SHA384(), PROOF_BYTES, None, b"heliograph/1 relay proofs").derive(secret)
        return cls(PeerKeys.derive(secret), proofs)

    # -- parcels -----------------------------------------------------------------------------------------------------

    def prove(self, wire: bytes, number: int, body: bytes) -> bytes:
        """Return the proof of one parcel. ``wire``: the letter's bytes, which name both ends."""
        covered = b"".join(framed(b"heliograph/1 parcel", wire, bytes((number,)), body))
        return hmac.digest(self.proofs, covered, "sha384")

    def check(self, wire: bytes, number: int, body: bytes, proof: bytes) -> None:
        """Return if the other end made the parcel. Raises AuthenticationFailed."""
        if not hmac.compare_digest(self.prove(wire, number, body), proof):
            raise AuthenticationFailed("a parcel that the other end did not send: a relay on its path lies")

    def refuse(self, wire: bytes, receipt: Receipt) -> Receipt:
        """Return the target's refusal with a proof of whom it names."""
        return msgspec.structs.replace(receipt, ack=self._refusal(wire, receipt))

    def proves_refusal(self, wire: bytes, receipt: Receipt) -> bool:
        """Tell whether the other end named these suspects in refusing this letter."""
        inside = all(1 <= number <= len(read_letter(wire).paths) for number in receipt.suspects)
        return bool(receipt.suspects) and inside and hmac.compare_digest(self._refusal(wire, receipt), receipt.ack)

    def _refusal(self, wire: bytes, receipt: Receipt) -> bytes:
        covered = b"".join(framed(b"heliograph/1 refused", wire, bytes(receipt.suspects)))
        return hmac.digest(self.proofs, covered, "sha384")

    # -- ML-KEM ------------------------------------------------------------------------------------------------------

    def offer(self, letter: Letter, share: bytes) -> tuple[bytes, bytes]:
        """Return the offer for a letter that has none yet. ``share``: the encapsulation key."""
        made = tagged(
            Offer(
                key_id=letter.transfer,
                initiator=letter.origin,
                responder=letter.target,
                policy=Policy.HYBRID_REQUIRED,
                combiner=_COMBINER,
                usage=_USAGE,
                components=[_RELAY, letter.layer],
                shares=[b"", share],
            ),
            self.peer,
        )
        return made.signed, made.tag

    def read_offer(self, letter: Letter) -> bytes:
        """Return the encapsulation key of a letter's offer. Raises RemoteProtocolError."""
        offer = read(Tagged(*letter.offer), self.peer.offers)
        if not isinstance(offer, Offer):
            raise RemoteProtocolError("an answer came where an offer belongs: reflected")
        said = (offer.key_id, offer.initiator, offer.responder, offer.policy, offer.combiner, offer.usage)
        ours = (letter.transfer, letter.origin, letter.target, Policy.HYBRID_REQUIRED, _COMBINER, _USAGE)
        if said != ours or offer.components != [_RELAY, letter.layer] or len(offer.shares) != 2:
            raise RemoteProtocolError("the offer belongs to another transfer, or to another layer than both ends have")
        return offer.shares[1]

    def answer(self, letter: Letter, share: bytes) -> tuple[bytes, bytes]:
        """Return the answer to a letter's offer. ``share``: the ciphertext."""
        made = tagged(Answer(letter.transfer, [_RELAY, letter.layer], [b"", share], _digest(letter)), self.peer)
        return made.signed, made.tag

    def read_answer(self, letter: Letter, answer: tuple[bytes, bytes]) -> bytes:
        """Return the ciphertext of the answer. Raises RemoteProtocolError."""
        reply = read(Tagged(*answer), self.peer.answers)
        if not isinstance(reply, Answer) or (reply.key_id, reply.offer_digest) != (letter.transfer, _digest(letter)):
            raise RemoteProtocolError("the answer belongs to another transfer")
        if reply.components != [_RELAY, letter.layer] or len(reply.shares) != 2:
            raise RemoteProtocolError("the answer is for another layer than both ends have")
        return reply.shares[1]

    def combined(
        self, letter: Letter, answer: tuple[bytes, bytes], secret: bytes, keys: Sequence[bytes]
    ) -> tuple[bytes, ...]:
        """Return the keys, each of its relayed bits and of the ``secret`` of ML-KEM."""
        return tuple(
            combine(_COMBINER, [key, secret], self._context(letter, key_id, answer[0]), self.peer.combining)
            for key_id, key in zip(letter.key_ids, keys, strict=True)
        )

    def _context(self, letter: Letter, key_id: bytes, answered: bytes) -> Context:
        return Context(
            letter.origin,
            letter.target,
            key_id,
            Policy.HYBRID_REQUIRED,
            (_RELAY, letter.layer),
            _USAGE,
            letter.offer[0],
            answered,
        )


def _digest(letter: Letter) -> bytes:
    return hashlib.sha384(letter.offer[0] + letter.offer[1]).digest()
