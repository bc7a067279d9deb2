"""Both sites of a link in one process: real machines, real stores, a seeded fibre, and a wire that a test may bend.

The one place where both parties meet; the product never does this. The same seeds give the same transcript and key.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from heliograph.authentication.anchors.psk import make_book, secret_size, slot_range, slot_secrets
from heliograph.authentication.authenticator import Authenticator
from heliograph.authentication.pads import PadAddress
from heliograph.authentication.prefilter import FrameFilter
from heliograph.errors import AuthenticationFailed, HeliographError, PadsExhausted, RemoteProtocolError
from heliograph.kernels.expansion import SeededPulses, expand_bases
from heliograph.protocol import actions as a
from heliograph.protocol.frames import Direction
from heliograph.protocol.registration import LinkRegistration
from heliograph.protocol.session import BlockAction, Session
from heliograph.sim.channel import Channel
from heliograph.sim.clicks import sample_clicks
from heliograph.sim.eve import Attack
from heliograph.storage.commit_records import CommitRecords
from heliograph.storage.database import Database
from heliograph.storage.keys import KeyRecords
from heliograph.storage.link_records import LinkRecords
from heliograph.testing.randomness import SeededRandom
from heliograph.types import BlockId, DetectionRecord, LightParameters
from heliograph.vault.anchor import FileAnchor
from heliograph.vault.filekek import FileKek

__all__ = ["Pair", "Side", "Wire"]

Wire = Callable[[Direction, bytes], Iterable[bytes]]
"""What becomes of a frame on its way: nothing, itself, something else, several."""


def _honest(_: Direction, frame: bytes) -> Iterable[bytes]:
    return (frame,)


@dataclass
class Side:
    """One site: its session, its store, and what it did."""

    name: str
    session: Session
    database: Database
    records: LinkRecords
    commits: CommitRecords
    keys: KeyRecords
    authenticator: Authenticator
    randomness: SeededRandom
    outgoing: FrameFilter | None
    incoming: FrameFilter | None
    done: list[BlockAction] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)

    def discards(self) -> list[str]:
        """Return the causes of the blocks this side discarded."""
        return [item.action.cause for item in self.done if isinstance(item.action, a.Discard)]

    def finished(self) -> list[BlockId]:
        """Return the blocks whose keys are supplied here."""
        return [item.block for item in self.done if isinstance(item.action, a.Finish)]

    def deliverable(self, master: str, slave: str, number: int) -> list[tuple[str, bytes]]:
        """Take keys as the site's KME would for a master SAE."""
        return [(k.key_id, k.material) for k in self.keys.deliver_to_master(master, slave, number, 0.0)]


class Pair:
    """``tx`` and ``rx`` joined by ``wire``; ``light`` goes through a seeded fibre, with Eve if a test wants her."""

    def __init__(
        self,
        registration: LinkRegistration,
        channel: Channel,
        directory: Path,
        *,
        seed: int = 1,
        prefilter: bool = True,
        attack: Attack | None = None,
        wire: Wire = _honest,
    ) -> None:
        self.wire = wire
        self.frames: list[tuple[Direction, bytes]] = []
        self._registration = registration
        self._channel = channel
        self._attack = attack
        self._optics = np.random.default_rng(seed)
        book = make_book(SeededRandom(seed, "book").draw(secret_size()))
        self.tx = self._side("tx", registration, directory, book, seed, prefilter=prefilter)
        self.rx = self._side("rx", registration, directory, book, seed, prefilter=prefilter)
        self._light: dict[BlockId, tuple[LightParameters, bytes]] = {}
        self._armed: dict[BlockId, tuple[LightParameters, bytes]] = {}
        self._todo: deque[tuple[Side, BlockId, a.Event] | tuple[Side, bytes]] = deque()

    @staticmethod
    def _side(
        name: str, registration: LinkRegistration, directory: Path, book: bytes, seed: int, *, prefilter: bool
    ) -> Side:
        randomness = SeededRandom(seed, name)
        here = directory / name
        here.mkdir(mode=0o700)
        database = Database(":memory:", FileKek.create(here / "kek", randomness))
        records = LinkRecords(database, FileAnchor(here / "anchor"), lambda: 0.0)
        keys = KeyRecords(database, randomness)
        is_transmitter = name == "tx"
        commits = CommitRecords(database, records, keys, registration, is_transmitter=is_transmitter, now=lambda: 0.0)
        start, stop = slot_range(0)
        records.open_epoch(1, slot_secrets(book[start:stop]), "psk")
        session = Session.resumed(registration, is_transmitter=is_transmitter, epoch=1, floor=0, stored=())
        filters = records.filter_keys()
        down, up = FrameFilter(filters.to_receiver), FrameFilter(filters.to_transmitter)
        outgoing, incoming = (down, up) if is_transmitter else (up, down)
        return Side(
            name,
            session,
            database,
            records,
            commits,
            keys,
            Authenticator(records),
            randomness,
            outgoing if prefilter else None,
            incoming if prefilter else None,
        )

    # Driving.
    def run_block(self, refills: int = 1) -> BlockId:
        """Run one more block until nothing moves any more; whatever came of it."""
        block = BlockId(self.tx.records.available(self.tx.session.floor)[0])
        last = self.tx.commits.assigned()
        self.tx.session, actions = self.tx.session.begin(block, tuple(range(last + 1, last + 1 + refills)))
        self._carry_out(self.tx, actions)
        self.settle()
        return block

    def settle(self) -> None:
        """Deliver and compute until nothing moves."""
        while self._todo:
            item = self._todo.popleft()
            if len(item) == 2:
                self._arrive(*item)
            else:
                side, block, event = item
                side.session, actions = side.session.feed(block, event)
                self._carry_out(side, actions)

    def time_out(self) -> None:
        """Let both sides lose patience with every open block, as their shells would."""
        why = a.Failed("TimedOut", "the test lost patience")
        for side in (self.tx, self.rx):
            blocks = (*side.session.open_blocks(),)
            side.session, actions = side.session.give_up(blocks, why)
            self._carry_out(side, actions)
        self.settle()

    def inject(self, side: Side, sealed: bytes) -> None:
        """Put bytes on the wire to one side."""
        self._todo.append((side, sealed))
        self.settle()

    def _arrive(self, side: Side, sealed: bytes) -> None:
        frame: bytes | None = sealed
        if side.incoming is not None:
            frame = side.incoming.open(sealed)
        if frame is None:
            side.refused.append("junk")
            return
        try:
            side.session, actions = side.session.receive(frame)
        except RemoteProtocolError as why:
            side.refused.append(str(why))
            return
        self._carry_out(side, actions)

    # Carrying out, inline and in order.
    def _carry_out(self, side: Side, actions: Iterable[BlockAction]) -> None:
        for item in actions:
            side.done.append(item)
            event = self._do(side, item.block, item.action)
            if event is not None:
                self._todo.append((side, item.block, event))

    def _do(self, side: Side, block: BlockId, action: a.Action) -> a.Event | None:
        match action:
            case a.Send(frame):
                self._send(side, frame.wire())
            case a.Tag(role, covered):
                try:
                    return a.Tagged(role, side.authenticator.tag(PadAddress(side.session.epoch, block, role), covered))
                except PadsExhausted as why:
                    return a.Failed("PadsExhausted", str(why))
            case a.CheckTag(role, covered, tag):
                try:
                    side.authenticator.check(PadAddress(side.session.epoch, block, role), covered, tag)
                except (AuthenticationFailed, PadsExhausted):
                    return a.TagRefused(role)
                return a.TagAccepted(role)
            case a.Draw(size):
                return a.Drawn(side.randomness.draw(size))
            case a.Persist(record):
                side.commits.persist(record)
            case a.Compute(job, function, arguments):
                try:
                    return a.Computed(job, function(*arguments))
                except HeliographError as why:
                    return a.Failed(type(why).__name__, str(why))
            case a.Emit(parameters):
                self._light[block] = (parameters.light, side.randomness.draw(32))
                self._shine(block)
            case a.Collect(parameters):
                self._armed[block] = (parameters.light, side.randomness.draw(32))
                self._shine(block)
            case a.Discard():
                side.records.discard(block)
            case a.Finish():
                pass
        return None

    def _send(self, side: Side, frame: bytes) -> None:
        sealed = side.outgoing.seal(frame) if side.outgoing is not None else frame
        direction = side.session.own
        self.frames.append((direction, sealed))
        other = self.rx if side is self.tx else self.tx
        for piece in self.wire(direction, sealed):
            self._todo.append((other, piece))

    def _shine(self, block: BlockId) -> None:
        """When light and detectors are both there: sample the clicks as the fibre process does."""
        if block not in self._light or block not in self._armed:
            return
        (light, seed), (_, basis_seed) = self._light.pop(block), self._armed.pop(block)
        pulses = SeededPulses(light, seed)
        clicks = sample_clicks(self._channel, pulses, basis_seed, self._optics, self._attack)
        double = clicks.patterns == 3
        coins = np.unpackbits(np.frombuffer(self.rx.randomness.draw(len(clicks.slots) // 8 + 1), np.uint8))
        bits = np.where(double, coins[: len(double)], clicks.patterns >> 1).astype(np.uint8)
        bases = expand_bases(basis_seed, clicks.slots, light.receiver_z_probability)
        record = DetectionRecord(light, clicks.slots, bases, bits, int(double.sum()), 0)
        self._todo.append((self.tx, block, a.Emitted(pulses)))
        self._todo.append((self.rx, block, a.Clicked(record)))
