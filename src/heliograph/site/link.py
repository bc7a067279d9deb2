"""A site's end of one link: connects, proves itself, resynchronises, and keeps the session running."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import structlog

from heliograph.authentication.pads import PAD_SET_BITS
from heliograph.authentication.prefilter import FrameFilter, connection_key
from heliograph.errors import (
    ConfigurationError,
    PadsExhausted,
    RemoteProtocolError,
    RollbackDetected,
    StoreUnavailable,
    TransportClosed,
)
from heliograph.protocol.commitment import REFILLS_MAX
from heliograph.protocol.handshake import HELLO_BYTES_MAX, Established, Initiator, Responder
from heliograph.protocol.registration import LinkRegistration
from heliograph.protocol.resynchronisation import resynchronise
from heliograph.protocol.session import Session, SessionStep
from heliograph.site.engine import Connection, Engine, EngineParts
from heliograph.site.ledger import LinkLedger
from heliograph.status import LinkStatus
from heliograph.transport.tcp import TcpTransport, dial, listen
from heliograph.types import BlockId
from heliograph.vault.pskfile import PskFile

__all__ = ["LinkPlan", "LinkRunner"]

log = structlog.get_logger("heliograph.link")

# Our choices.
_HANDSHAKE_S = 5.0
_UNAUTHENTICATED_MAX = 8
_BACKOFF_S = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0)
_PADS_LOW, _PADS_TARGET = 8, 16


@dataclass(frozen=True, slots=True)
class LinkPlan:
    """How this site runs its end. ``dial`` or ``listen`` is (host, port); exactly one is given.

    ``in_flight``: blocks at once; ``doubtful_max``: blocks in doubt before no new one starts (security.md 3);
    ``keys_max``: deliverable keys at which the link rests.
    """

    site: str
    is_transmitter: bool
    dial: tuple[str, int] | None
    listen: tuple[str, int] | None
    in_flight: int = 2
    doubtful_max: int = 4
    keys_max: int = 20_000


class LinkRunner:
    """Runs until cancelled. Nothing that the peer or anyone else sends ends it."""

    def __init__(
        self,
        plan: LinkPlan,
        registration: LinkRegistration,
        book: PskFile,
        parts: EngineParts,
        deliverable_keys: Callable[[], int],
    ) -> None:
        self._plan = plan
        self._registration = registration
        self._book = book
        self._parts = parts
        self._deliverable_keys = deliverable_keys
        self._ledger = LinkLedger()
        for _, _, report in parts.commits.committed_blocks():
            self._ledger.figures.add(report)
        self._engine: Engine | None = None
        self._state = "starting"
        self._began = parts.clock.now()
        self._first_key_s: float | None = None
        self._promised = 0
        self._unauthenticated = 0
        self._serving: asyncio.Task[None] | None = None

    @property
    def connected(self) -> bool:
        """Whether the peer is there now."""
        return self._state == "running"

    # Connecting.
    async def run(self) -> None:
        """Keep the link up. Raises ConfigurationError if the address to listen on cannot be used."""
        if self._plan.listen is not None:
            server = await listen(*self._plan.listen, self._accept)
            self._state = "waiting for the peer"
            async with server:
                await server.serve_forever()
        assert self._plan.dial is not None
        attempt = 0
        while True:
            try:
                transport = await dial(*self._plan.dial)
                attempt = await self._guarded(self._initiate(transport), attempt)
            except TransportClosed as why:
                self._state = f"not connected: {why}"
                attempt += 1
            await asyncio.sleep(_BACKOFF_S[min(attempt, len(_BACKOFF_S) - 1)])

    async def _guarded(self, work: Awaitable[None], attempt: int) -> int:
        """Run one connection; say in one line why it ended. Returns the next attempt's number."""
        try:
            await work
        except (RollbackDetected, PadsExhausted, ConfigurationError) as why:
            self._state = f"stopped: {why}"
            if isinstance(why, RollbackDetected):
                self._parts.records.destroy_pads()
            log.error("link needs an operator", reason=str(why))  # noqa: TRY400  - one line, no traceback
            return len(_BACKOFF_S)
        except StoreUnavailable as why:
            # What the machines hold may be ahead of the disk: forget it, the store is the truth.
            self._engine = None
            self._state = f"store unavailable: {why}"
            log.error("store unavailable", reason=str(why))  # noqa: TRY400
            return attempt + 1
        except (RemoteProtocolError, TimeoutError, TransportClosed) as why:
            self._state = f"not connected: {why or 'the peer was silent'}"
            log.warning("connection refused", reason=str(why) or "the peer was silent")
            return attempt + 1
        self._state = "not connected"
        return 0

    async def _initiate(self, transport: TcpTransport) -> None:
        try:
            marks = self._parts.records.marks()
            side = Initiator(self._registration.identity(), self._plan.site, self._resync_key(), marks, self._nonce())
            async with asyncio.timeout(_HANDSHAKE_S):
                await transport.send(side.hello())
                last, established = side.confirm(await transport.receive(HELLO_BYTES_MAX))
                await transport.send(last)
            await self._serve(transport, established)
        finally:
            await transport.close()

    async def _accept(self, transport: TcpTransport) -> None:
        if self._unauthenticated >= _UNAUTHENTICATED_MAX:
            await transport.close()
            return
        await self._guarded(self._respond(transport), 0)

    async def _respond(self, transport: TcpTransport) -> None:
        self._unauthenticated += 1
        try:
            try:
                marks = self._parts.records.marks()
                identity = self._registration.identity()
                side = Responder(identity, self._plan.site, self._resync_key(), marks, self._nonce())
                async with asyncio.timeout(_HANDSHAKE_S):
                    await transport.send(side.reply(await transport.receive(HELLO_BYTES_MAX)))
                    established = side.finish(await transport.receive(HELLO_BYTES_MAX))
                if marks != self._parts.records.marks():
                    raise TransportClosed("the marks moved while the peer connected")
            finally:
                self._unauthenticated -= 1
            await self._replace(asyncio.create_task(self._serve(transport, established)))
        finally:
            await transport.close()

    async def _replace(self, task: asyncio.Task[None]) -> None:
        """Let the newest authenticated connection take the place of an older one."""
        if self._serving is not None and not self._serving.done():
            self._serving.cancel()
            await asyncio.gather(self._serving, return_exceptions=True)
        self._serving = task
        await task

    def _resync_key(self) -> bytes:
        return self._book.header().resync_key

    def _nonce(self) -> bytes:
        return self._parts.randomness.draw(32)

    # Serving.
    async def _serve(self, transport: TcpTransport, established: Established) -> None:
        records = self._parts.records
        plan = resynchronise(records.marks(), established.peer, records.operator_epoch())
        if plan.opens:
            # The slot is erased from the book before its first byte is used.
            records.open_epoch(plan.epoch, self._book.burn_slot(plan.epoch), "psk")
            log.info("epoch opened", epoch=plan.epoch, bootstrap="psk")
            self._engine = None
        self._promised = self._parts.commits.assigned()
        engine = self._engine_for(plan.epoch, plan.floor)
        keys = records.filter_keys()
        outgoing, incoming = keys.to_receiver, keys.to_transmitter
        if not self._plan.is_transmitter:
            outgoing, incoming = incoming, outgoing
        connection = Connection(
            transport,
            FrameFilter(connection_key(outgoing, established.transcript)),
            FrameFilter(connection_key(incoming, established.transcript)),
        )
        self._state = "running"
        log.info("link running", epoch=plan.epoch, floor=plan.floor)
        await engine.run(connection, self._next_block)

    def _engine_for(self, epoch: int, floor: int) -> Engine:
        if self._engine is not None and self._engine.session.epoch == epoch:
            self._engine.session = self._engine.session.raised(floor)
            return self._engine
        stored = self._parts.commits.in_doubt()
        session = Session.resumed(
            self._registration, is_transmitter=self._plan.is_transmitter, epoch=epoch, floor=floor, stored=stored
        )
        self._engine = Engine(session, self._parts, self._ledger.observe)
        return self._engine

    def _next_block(self, session: Session) -> SessionStep | None:
        """Decide whether a block starts now. Runs in the store's thread, since it reads the pool."""
        plan, records = self._plan, self._parts.records
        self._note_first_key()
        if not plan.is_transmitter or len(session.open_blocks()) >= plan.in_flight:
            return None
        if len(session.doubtful_blocks()) >= plan.doubtful_max or self._deliverable_keys() >= plan.keys_max:
            return None
        if records.totals().eps_total >= self._registration.eps_total_max:
            self._state = "stopped: the link's epsilon ledger is spent; plan a new link"
            return None
        free = records.available(session.floor)
        if not free:
            if not session.open_blocks() and not session.doubtful_blocks():
                raise PadsExhausted("no authentication pad is left: run `heliograph site rebootstrap` on both sites")
            return None
        refills = self._refills(len(free), self._registration.for_block(free[0]).secret_key_length)
        promised = max(self._promised, free[-1])
        refill_for = tuple(range(promised + 1, promised + 1 + refills))
        self._promised = refill_for[-1]
        return session.begin(BlockId(free[0]), refill_for)

    @staticmethod
    def _refills(free: int, length: int) -> int:
        """Return how many later blocks this one serves: more while the pool is low, within what the key can bear."""
        wanted = REFILLS_MAX if free < _PADS_LOW else 2 if free < _PADS_TARGET else 1
        affordable = max(1, length // (3 * PAD_SET_BITS))  # our choice: at most a third of a block refills the pool
        return min(wanted, affordable)

    def _note_first_key(self) -> None:
        if self._first_key_s is None and self._ledger.figures.blocks:
            self._first_key_s = self._parts.clock.now() - self._began

    def status(self) -> LinkStatus:
        """Return the link's public figures."""
        figures, totals, marks = self._ledger.figures, self._parts.records.totals(), self._parts.records.marks()
        self._note_first_key()
        engine = self._engine
        peer = self._registration.receiver_site if self._plan.is_transmitter else self._registration.transmitter_site
        return LinkStatus(
            link=self._registration.link,
            state=self._state,
            peer=peer,
            epoch=marks.epoch,
            bootstrap=totals.bootstrap,
            blocks=figures.blocks,
            blocks_discarded=totals.blocks_discarded,
            last_discard=self._ledger.last_discard,
            sifted_bits=figures.sifted_bits,
            key_errors=figures.key_errors,
            key_detections=figures.key_detections,
            test_errors=figures.test_errors,
            test_detections=figures.test_detections,
            disclosed_bits=figures.disclosed_bits,
            secret_key_bits=figures.secret_key_bits,
            pulses=figures.pulses,
            double_clicks=figures.double_clicks,
            clock_hz=self._registration.parameters[0].light.clock_hz,
            first_key_s=self._first_key_s,
            pad_sets=marks.pads,
            pool_bits=marks.pads * PAD_SET_BITS,
            bits_spent=totals.bits_spent,
            bits_refilled=totals.bits_refilled,
            eps_total=totals.eps_total,
            junk_frames=engine.junk_frames if engine else 0,
            refused_frames=engine.refused_frames if engine else 0,
            blocks_in_doubt=len(engine.session.doubtful_blocks()) if engine else 0,
        )

    async def close(self) -> None:
        """End the connection and what still computes."""
        if self._serving is not None:
            self._serving.cancel()
            await asyncio.gather(self._serving, return_exceptions=True)
        if self._engine is not None:
            await self._engine.close()
