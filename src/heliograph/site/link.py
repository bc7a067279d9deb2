"""A site's end of one link: connects, proves itself, resynchronises, and keeps the session running."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

from heliograph.authentication.anchors.psk import EpochSecrets, SlotUsed
from heliograph.authentication.assurance import assurance
from heliograph.authentication.bootstrap import BOOTSTRAP_BLOCKS, is_bootstrap_block
from heliograph.authentication.pads import PAD_SET_BITS
from heliograph.authentication.prefilter import FrameFilter
from heliograph.errors import (
    ConfigurationError,
    PadsExhausted,
    RemoteProtocolError,
    RollbackDetected,
    StoreUnavailable,
    TransportClosed,
)
from heliograph.protocol.actions import Discard, Finish
from heliograph.protocol.cutting import link_keys_bits
from heliograph.protocol.handshake import Established
from heliograph.protocol.records import Marks
from heliograph.protocol.registration import LinkRegistration
from heliograph.protocol.resynchronisation import Resumption, resynchronise
from heliograph.protocol.session import BlockAction, Session, SessionStep
from heliograph.site.budget_watch import BudgetWatch
from heliograph.site.bugs import place
from heliograph.site.doors import LinkDoors
from heliograph.site.engine import Connection, Engine, EngineParts
from heliograph.site.greeting import greet, welcome
from heliograph.site.ledger import LinkLedger
from heliograph.site.link_plan import LinkPlan, SupplyHooks
from heliograph.site.pacing import Pace
from heliograph.site.store_proof import StoreProof
from heliograph.status import LinkStatus
from heliograph.storage.link_door import Bootstrap
from heliograph.transport.strangers import Strangers
from heliograph.transport.tcp import TcpTransport, dial, listen
from heliograph.types import BlockId

__all__ = ["LinkRunner"]

# Our choices.
_END_S = 1.0  # what an ending site gives its connections to discard their blocks in order
_REFUSAL_LINE_S = 1.0
_SETTLED_S = 1.0  # a connection that ends sooner, however politely, is dialled again with growing pauses
_BACKOFF_S = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0)


class LinkRunner:
    """Runs until cancelled. Nothing that the peer or anyone else sends ends it."""

    def __init__(
        self, plan: LinkPlan, registration: LinkRegistration, doors: LinkDoors, parts: EngineParts, hooks: SupplyHooks
    ) -> None:
        self._plan = plan
        self._registration = registration
        self._doors = doors
        # Certificates are checked one after another: who sends many occupies one thread, not the link.
        self._anchor = ThreadPoolExecutor(1, "anchor")
        self._parts = parts
        self._hooks = hooks
        self._ledger = LinkLedger()
        for _, _, report in parts.commits.committed_blocks():
            self._ledger.recall(report)
        self._pace = Pace(parts.clock)
        self._budget = BudgetWatch(parts.records, parts.clock, parts.log)
        self._engine: Engine | None = None
        self._state = "starting"
        self._running = False
        self._proof = StoreProof(parts.clock, parts.store, hooks.probe)
        self._began = parts.clock.now()
        self._first_key_s: float | None = None
        self._promised = 0
        self._server: asyncio.Server | None = None
        self._unproven = Strangers()
        self._current: TcpTransport | None = None
        self._turn = asyncio.Lock()
        self._accepted: set[asyncio.Task[None]] = set()
        self._refusals = 0
        self._refusal_logged = -_REFUSAL_LINE_S

    @property
    def connected(self) -> bool:
        """Whether the peer is there now."""
        return self._running

    def follow(self, dial: tuple[str, int] | None, in_flight: int, keys_max: int) -> None:
        """Start the next block by these limits, and make the next connection to this address (``LinkPlan``)."""
        self._plan = replace(self._plan, dial=dial, in_flight=in_flight, keys_max=keys_max)

    # Connecting.
    async def listen(self) -> None:
        """Open the port, if this site listens. Raises ConfigurationError if the address cannot be used."""
        if self._plan.listen is not None:
            self._server = await listen(*self._plan.listen, self._accept)
            self._state = "waiting for the peer"

    async def run(self) -> None:
        """Keep the link up, after ``listen``."""
        if self._plan.dial is None:
            await asyncio.get_running_loop().create_future()  # the server's own tasks do the work
            return
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
        began = self._parts.clock.now()
        try:
            await work
        except (RollbackDetected, PadsExhausted, ConfigurationError) as why:
            self._state = f"stopped: {why}"
            if isinstance(why, RollbackDetected):
                self._hooks.destroy_all()
            self._parts.log.error("link needs an operator", reason=str(why))  # noqa: TRY400  - one line, no traceback
            return len(_BACKOFF_S)
        except StoreUnavailable as why:
            self._proof.failed(why)
            self._state = f"store unavailable: {why}"
            self._parts.log.error("store unavailable", reason=str(why))  # noqa: TRY400
            return attempt + 1
        except (RemoteProtocolError, TimeoutError, TransportClosed) as why:
            self._refused(str(why) or "the peer was silent")
            return attempt + 1
        except Exception as why:  # noqa: BLE001  - a bug costs its connection; its text might quote key material
            self._state = f"not connected: internal error ({type(why).__name__})"
            self._parts.log.error("internal error", kind=type(why).__name__, at=place(why))  # noqa: TRY400
            return attempt + 1
        self._state = "not connected"
        return 0 if self._parts.clock.now() - began >= _SETTLED_S else attempt + 1

    def _refused(self, why: str) -> None:
        """Note a connection that came to nothing: anyone may cause one, so it changes no state of a running link."""
        if not self._running:
            self._state = f"not connected: {why}"
        self._refusals += 1
        now = self._parts.clock.now()
        if now - self._refusal_logged >= _REFUSAL_LINE_S:  # a flood of junk must not become a flood of lines
            self._parts.log.warning("connection refused", reason=why, refused=self._refusals)
            self._refusals, self._refusal_logged = 0, now

    async def _initiate(self, transport: TcpTransport) -> None:
        try:
            await self._proof.require()
            _, established = await greet(transport, self._doors, self._parts.store, self._anchor)
            await self._serve(transport, established)
        finally:
            await transport.close()

    async def _accept(self, transport: TcpTransport) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._accepted.add(task)
        try:
            await self._admit(transport)
        except asyncio.CancelledError:
            return  # the site ends; asyncio's server would report a cancelled connection as an error
        finally:
            self._accepted.discard(task)

    async def _admit(self, transport: TcpTransport) -> None:
        await self._guarded(self._respond(transport), 0)

    async def _respond(self, transport: TcpTransport) -> None:
        try:
            self._unproven.add(transport)
            try:
                await self._proof.require()
                presence, established = await welcome(
                    transport, self._doors, self._parts.store, self._anchor, lambda: self._unproven.heard(transport)
                )
            finally:
                self._unproven.remove(transport)
            await self._take_over(transport, established, presence.marks)
        finally:
            await transport.close()

    async def _take_over(self, transport: TcpTransport, established: Established, marks: Marks) -> None:
        """Let the newest authenticated connection take the place of an older one."""
        older, self._current = self._current, transport
        if older is not None:
            older.abort()  # its run ends as if the peer had left: what it began is finished or discarded in order
        async with self._turn:
            if self._current is not transport:
                raise TransportClosed("a newer connection took the place of this one")
            if marks != self._parts.records.marks():
                raise TransportClosed("the marks moved while the peer connected")
            await self._serve(transport, established)

    # Serving.
    async def _serve(self, transport: TcpTransport, established: Established) -> None:
        records = self._parts.records
        plan = self._resumption(established)
        if plan.opens or plan.rebinds:
            # Both open it, then both come back and show that they have: no pad of the new epoch is spent before.
            await self._forget_engine()
            bootstrap = self._doors.bootstrap_of(established)
            if plan.rebinds:
                records.door.rebind(bootstrap)
            else:
                self._open_epoch(plan.epoch, bootstrap)
            return
        if established.peer.epoch != plan.epoch:
            raise TransportClosed(
                f"the peer is in epoch {established.peer.epoch}, this site in {plan.epoch}: if that lasts, its "
                "operator has to run `heliograph site rebootstrap` too"
            )
        engine = self._engine_for(plan.epoch, plan.floor)
        self._parts.authenticator.sign_for(self._doors.signed_epoch())
        outgoing, incoming = self._doors.filters(established)
        if not self._plan.is_transmitter:
            outgoing, incoming = incoming, outgoing
        connection = Connection(transport, FrameFilter(outgoing), FrameFilter(incoming))
        self._state, self._running = "running", True
        self._parts.log.info("link running", epoch=plan.epoch, floor=plan.floor)
        try:
            await engine.run(connection, self._next_block)
        except BaseException:
            # What the machines hold may be ahead of the disk: forget it, the store is the truth.
            await self._forget_engine()
            raise
        finally:
            self._running = False

    def _resumption(self, established: Established) -> Resumption:
        """Return how the link goes on after this handshake."""
        records = self._parts.records
        doubtful = self._engine is not None and bool(self._engine.session.doubtful_blocks())
        try:
            return resynchronise(
                records.marks(),
                established.peer,
                records.operator_epoch(),
                has_book=self._doors.anchors.book is not None,
                contexts_differ=established.context != records.door.bootstrap().context,
                in_doubt=doubtful or self._parts.commits.doubtful(),
            )
        except RollbackDetected as why:
            if self._doors.believes(established):
                raise
            raise RemoteProtocolError(str(why)) from None

    def _open_epoch(self, epoch: int, bootstrap: Bootstrap) -> None:
        """Open an epoch, with its slot if there is a book, which is erased from it before its first byte is used."""
        records, method, book = self._parts.records, self._doors.method, self._doors.anchors.book
        try:
            secrets = None if book is None else book.burn_slot(epoch)
        except SlotUsed:
            # A crash between burning the slot and opening the epoch: the attempt is over, the next slot's turn comes
            # with the next connection (security.md 7). No pad, and filter keys that nobody has.
            nobody = self._parts.randomness.draw(64)
            records.open_epoch(epoch, EpochSecrets(nobody[:32], nobody[32:], ()), method, bootstrap)
            raise TransportClosed(f"the slot of epoch {epoch} was burnt in an attempt that did not end") from None
        records.open_epoch(epoch, secrets, method, bootstrap)
        self._parts.log.info("epoch opened", epoch=epoch, bootstrap=method, algorithms=bootstrap.algorithms)

    async def _forget_engine(self) -> None:
        engine, self._engine = self._engine, None
        if engine is not None:
            await engine.close()
            # What it had begun in the store's thread ends before anyone reads the store for a new session.
            await asyncio.get_running_loop().run_in_executor(self._parts.store, _nothing)

    def _engine_for(self, epoch: int, floor: int) -> Engine:
        if self._engine is not None and self._engine.session.epoch == epoch:
            self._engine.session = self._engine.session.raised(floor)
            return self._engine
        stored = self._parts.commits.in_doubt()
        session = Session.resumed(
            self._registration, is_transmitter=self._plan.is_transmitter, epoch=epoch, floor=floor, stored=stored
        )
        # Only with a new session: a block that outlived its connection still holds what it was promised.
        self._promised = self._parts.commits.assigned()
        self._engine = Engine(session, self._parts, self._observe)
        return self._engine

    def _observe(self, item: BlockAction) -> None:
        self._ledger.observe(item)
        if isinstance(item.action, Discard):
            self._pace.failed()
        elif isinstance(item.action, Finish):
            self._pace.succeeded()

    def _next_block(self, session: Session) -> SessionStep | None:
        """Decide whether a block starts now. Runs in the store's thread, since it reads the pool."""
        plan, records = self._plan, self._parts.records
        self._note_first_key()
        self._budget.look()
        # A block whose fate hangs on the peer's word keeps no other from starting; doubtful_max bounds those.
        doubtful = set(session.doubtful_blocks())
        busy = len(set(session.open_blocks()) - doubtful)
        if not plan.is_transmitter or busy >= plan.in_flight:
            return None
        if len(doubtful) >= plan.doubtful_max or self._hooks.deliverable_keys() >= plan.keys_max:
            return None
        if records.totals().eps_total >= self._registration.eps_total_max:
            self._state = "stopped: the link's epsilon ledger is spent; plan a new link"
            return None
        if not records.marks().committed and (busy or doubtful):
            return None  # at most one block rests on the bootstrap
        free = records.available(session.floor)
        if not free:
            if not busy and not doubtful:
                raise PadsExhausted("no authentication pad is left: run `heliograph site rebootstrap` on both sites")
            return None
        if not self._pace.may_begin(len(free), busy, plan.in_flight):
            return None
        registration = self._registration
        length = registration.for_block(free[0]).secret_key_length - link_keys_bits(free[0])
        # What the bootstrap left is gone when this block has made a key: its refill is all there will be.
        left = 0 if is_bootstrap_block(free[0]) else len(free)
        refills = self._pace.refills(left, length, registration.key_for_each_site_bits)
        promised = max(self._promised, free[-1], BOOTSTRAP_BLOCKS)
        refill_for = tuple(range(promised + 1, promised + 1 + refills))
        self._promised = refill_for[-1]
        return session.begin(BlockId(free[0]), refill_for)

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
            budget=self._budget.status(),
            eps_total=totals.eps_total,
            junk_frames=engine.junk_frames if engine else 0,
            refused_frames=engine.refused_frames if engine else 0,
            blocks_in_doubt=len(engine.session.doubtful_blocks()) if engine else 0,
            opened_at=totals.opened_at or 0.0,
            algorithms=self._doors.algorithms(totals.bootstrap),
            epoch_blocks=marks.committed,
            mac=self._registration.mac,
            assurance=assurance(totals.bootstrap, self._registration.mac) if totals.bootstrap else "",
        )

    async def close(self) -> None:
        """Stop listening, end the connections and what still computes."""
        if self._server is not None:
            self._server.close()
        for transport in (*self._unproven, self._current):
            if transport is not None:
                transport.abort()
        accepted = tuple(self._accepted)
        if accepted:
            await asyncio.wait(accepted, timeout=_END_S)
        for task in accepted:
            task.cancel()
        await asyncio.gather(*accepted, return_exceptions=True)
        await self._forget_engine()
        self._anchor.shutdown(wait=False, cancel_futures=True)


def _nothing() -> None:
    """Take the store's turn."""
