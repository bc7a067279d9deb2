"""One link's blocks: routes frames and events to the machine of their block (one machine per block).

Several blocks may be in flight; they share nothing but the pool, and each spends only pads at its own addresses.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from heliograph.errors import LocalProtocolError, RemoteProtocolError
from heliograph.protocol import commitment, cutting, receiver, transmitter
from heliograph.protocol.actions import Action, Event, Failed, Received, Send, Start
from heliograph.protocol.codec import decode
from heliograph.protocol.conversation import Conversation
from heliograph.protocol.frames import Direction, Frame, parse_frame
from heliograph.protocol.messages import ParticipantAccept, Proposal
from heliograph.protocol.records import StoredCommitment
from heliograph.protocol.registration import LinkRegistration
from heliograph.protocol.transmitter_states import AwaitingParticipant, CheckingParticipant, Context
from heliograph.protocol.transmitter_states import State as TransmitterBlock
from heliograph.types import BlockId

__all__ = ["BLOCKS_REMEMBERED", "BlockAction", "Session", "SessionStep"]

BLOCKS_REMEMBERED = 64  # our choice: ended blocks whose last word can still be repeated from memory

BlockState = transmitter.TransmitterState | receiver.ReceiverState


@dataclass(frozen=True, slots=True)
class BlockAction:
    """An action and the block it belongs to."""

    block: BlockId
    action: Action


@dataclass(frozen=True, slots=True)
class Session:
    """The state of one link in one epoch. ``floor``: no new block has this number or a lower one."""

    registration: LinkRegistration
    is_transmitter: bool
    epoch: int
    floor: int
    blocks: Mapping[int, BlockState]

    @classmethod
    def resumed(
        cls,
        registration: LinkRegistration,
        *,
        is_transmitter: bool,
        epoch: int,
        floor: int,
        stored: Sequence[StoredCommitment],
    ) -> Session:
        """Return the session as the store remembers it."""
        identity = registration.identity()
        blocks: dict[int, BlockState] = {}
        for s in stored:
            context = commitment.CommitContext(registration, identity, epoch, s.block, s.length)
            match s.stage:
                case "decided":
                    blocks[s.block] = commitment.AwaitingAcknowledgement(context, s.wire, s.refills)
                case "local":
                    blocks[s.block] = commitment.AwaitingDecision(context, s.wire)
                case "obeyed":
                    blocks[s.block] = commitment.AwaitingSettlement(context, s.wire)
                case _:
                    blocks[s.block] = commitment.Ended(s.wire)
        return cls(registration, is_transmitter, epoch, floor, blocks)

    @property
    def own(self) -> Direction:
        """The direction in which this site sends."""
        return Direction.TO_RECEIVER if self.is_transmitter else Direction.TO_TRANSMITTER

    def open_blocks(self) -> tuple[BlockId, ...]:
        """Return the blocks that are neither ended nor only in doubt."""
        return tuple(BlockId(b) for b, s in self.blocks.items() if not isinstance(s, commitment.CommitState))

    def doubtful_blocks(self) -> tuple[BlockId, ...]:
        """Return the blocks whose fate hangs on the peer's next word."""
        return tuple(
            BlockId(b)
            for b, s in self.blocks.items()
            if isinstance(s, AwaitingParticipant)
            or (isinstance(s, commitment.CommitState) and not isinstance(s, commitment.Ended))
        )

    def raised(self, floor: int) -> Session:
        """Return the session with its floor at least ``floor`` (what the peer's marks prove)."""
        return replace(self, floor=max(self.floor, floor))

    def _talk(self, block: BlockId) -> Conversation:
        return Conversation(self.registration.identity(), self.epoch, block, self.own)

    def begin(self, block: BlockId, refill_for: tuple[int, ...]) -> SessionStep:
        """Start a block on the transmitter's site.

        Raises LocalProtocolError for a number that was used, or a refill that the block's key cannot hold.
        """
        if not self.is_transmitter or block <= self.floor:
            raise LocalProtocolError(f"block {block} cannot begin here: the floor is {self.floor}")
        parameters = self.registration.for_block(block)
        if not cutting.refills_fit(block, parameters.secret_key_length, len(refill_for)):
            raise LocalProtocolError(
                f"{parameters.secret_key_length} secret bits cannot refill {len(refill_for)} blocks"
            )
        context = Context(self.registration, parameters, refill_for)
        machine = transmitter.propose(context, self._talk(block))
        return replace(self, floor=block, blocks={**self.blocks, block: machine}).feed(block, Start())

    def receive(self, wire: bytes) -> SessionStep:
        """Route a frame that passed the pre-filter. Raises RemoteProtocolError, and then nothing changed."""
        frame = parse_frame(wire)
        if frame.epoch != self.epoch or frame.direction == self.own:
            raise RemoteProtocolError(f"a frame of epoch {frame.epoch}, {frame.direction.name.lower()}")
        block = BlockId(frame.block)
        if block in self.blocks:
            return self.feed(block, Received(frame))
        return self._unknown(block, frame)

    def _unknown(self, block: BlockId, frame: Frame) -> SessionStep:
        message = decode(frame.body)
        if not self.is_transmitter and isinstance(message, Proposal) and block > self.floor:
            machine = receiver.await_proposal(self.registration, self._talk(block))
            # The floor rises only with the proposal's tag: a forged proposal changes no other block.
            return replace(self, blocks={**self.blocks, block: machine}).feed(block, Received(frame))
        if self.is_transmitter and isinstance(message, ParticipantAccept) and frame.tagged and block <= self.floor:
            # A restart lost the transcript this tag is over, so it cannot be checked: the decision is abort.
            context = commitment.CommitContext(
                self.registration, self.registration.identity(), self.epoch, block, length=0
            )
            machine_, actions = commitment.abort(context)
            return self._with(block, machine_, actions)
        raise RemoteProtocolError(f"a {type(message).__name__} for block {block}, which is not open here")

    def feed(self, block: BlockId, event: Event) -> SessionStep:
        """Give one block an event. An event for a block that is gone is dropped."""
        state = self.blocks.get(block)
        if state is None:
            return self, []
        after, actions = _step(state, event)
        if not self.is_transmitter and block > self.floor and isinstance(after, commitment.Ended):
            return self._without(block), [BlockAction(block, action) for action in actions]
        session = self
        if isinstance(after, receiver.Collecting) and block > self.floor:
            session = replace(self, floor=block)
        return session._with(block, after, actions)  # noqa: SLF001  - the same class

    def _without(self, block: BlockId) -> Session:
        """Return the session without a block that never began: its proposal was not authentic."""
        return replace(self, blocks={b: s for b, s in self.blocks.items() if b != block})

    def _with(self, block: BlockId, state: BlockState, actions: list[Action]) -> SessionStep:
        blocks = {**self.blocks, block: state}
        ended = sorted(b for b, s in blocks.items() if isinstance(s, commitment.Ended))
        for old in ended[:-BLOCKS_REMEMBERED]:
            del blocks[old]
        return replace(self, blocks=blocks), [BlockAction(block, action) for action in actions]

    def disconnected(self) -> SessionStep:
        """Take the loss of the connection: blocks that committed nobody end here, blocks in doubt wait."""
        return self.give_up(self.open_blocks(), Failed("TransportClosed", "the connection to the peer ended"))

    def give_up(self, blocks: Sequence[BlockId], why: Failed) -> SessionStep:
        """End these blocks as far as this site may (after a time-out, a failed module or a lost connection)."""
        session, actions = self, list[BlockAction]()
        for block in blocks:
            if why.cause == "TransportClosed" and isinstance(
                session.blocks.get(block), AwaitingParticipant | CheckingParticipant
            ):
                continue  # the peer may have committed; it will say so on the next connection
            session, more = session.feed(block, why)
            actions += more
        return session, actions

    def resumptions(self) -> list[BlockAction]:
        """Return what is resent, verbatim, on a new connection."""
        resend: list[BlockAction] = []
        for block, state in sorted(self.blocks.items()):
            match state:
                case commitment.AwaitingAcknowledgement():
                    wire = state.decision
                case commitment.AwaitingDecision():
                    wire = state.acceptance
                case commitment.AwaitingSettlement():
                    wire = state.acknowledgement
                case _:
                    continue
            resend.append(BlockAction(BlockId(block), Send(parse_frame(wire))))
        return resend


def _step(state: BlockState, event: Event) -> tuple[BlockState, list[Action]]:
    if isinstance(state, commitment.CommitState):
        return commitment.step(state, event)
    if isinstance(state, TransmitterBlock):
        return transmitter.step(state, event)
    return receiver.step(state, event)


SessionStep = tuple[Session, list[BlockAction]]
