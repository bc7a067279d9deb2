"""The agent: feeds events to the rotation machine and carries out its actions with a key source and an encryptor."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import logging
from collections import deque
from collections.abc import Coroutine
from typing import Any, Final

from heliograph.agent.chosen import open_encryptor
from heliograph.agent.config import AgentConfig
from heliograph.agent.control import ControlDialer, ControlLink, ControlListener
from heliograph.agent.identity import PeerIdentity, open_establishment
from heliograph.agent.patience import PatientKeySource
from heliograph.agent.status import AgentStatus, Mode
from heliograph.consumer import initiator, responder
from heliograph.consumer.encryptor import Encryptor
from heliograph.consumer.keys import Role, derive, key_id_text
from heliograph.consumer.messages import Commit, Confirm, Message, Ready, Refusal
from heliograph.consumer.rotation import (
    Action,
    Activate,
    ControlDown,
    ControlUp,
    Drain,
    Drained,
    Event,
    FetchKey,
    FetchKeyWithId,
    Install,
    KeyFetched,
    KeyRefused,
    LimitReached,
    NotTaken,
    Received,
    Reconnect,
    Retire,
    Send,
    Tick,
)
from heliograph.encryptors.addresses import Address
from heliograph.encryptors.port_forwarder import PortForwarder
from heliograph.errors import (
    EncryptorUnavailable,
    KeyNotFound,
    KeySupplyError,
    NotPermitted,
    RemoteProtocolError,
    TransportClosed,
)
from heliograph.establishment.messages import Tagged
from heliograph.establishment.policy import QKD
from heliograph.ports import Clock, KeySource
from heliograph.types import DeliveredKey

__all__ = ["Agent"]

_MAX_REFUSALS: Final = 8

_log = logging.getLogger("heliograph.agent")


class Agent:
    """One site's agent for one tunnel. ``key_source``: this site's own key manager; ``clock``: seconds.

    ``identity``: needed by every policy but qkd-only. Keys live in this process only: after a restart the agent has
    none and a fresh one is agreed. Raises ConfigurationError.
    """

    def __init__(
        self, config: AgentConfig, key_source: KeySource, clock: Clock, identity: PeerIdentity | None = None
    ) -> None:
        self._config = config
        self._established = open_establishment(config, key_source, identity, self._send_tagged)
        self._keys: KeySource = PatientKeySource(self._established or key_source, config.rotation.fetch_seconds)
        self._clock = clock
        self._state: initiator.State | responder.State
        if config.role is Role.INITIATOR:
            self._state = initiator.begin(config.rotation, clock.now())
        else:
            self._state = responder.begin(config.rotation, clock.now())
        self._encryptor: Encryptor = open_encryptor(
            config,
            clock,
            on_nearly_used=lambda key_id: self._feed(LimitReached(key_id)),
            on_drained=lambda key_id: self._feed(Drained(key_id)),
            on_in_place=self._say_withheld,
            on_not_taken=self._give_up,
        )
        self._events: deque[tuple[Event, ControlLink | None]] = deque()
        self._feeding = False
        self._links: list[ControlLink] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._listener: ControlListener | None = None
        self._dialer: ControlDialer | None = None
        self._refused_messages = 0
        self._last_refusal: str | None = None
        self._alarm: str | None = None
        self._not_in_place: set[bytes] = set()  # keys that the encryptor did not take
        self._withheld: tuple[Ready | Commit | Confirm, ControlLink | None] | None = None
        self._committed: bytes | None = None  # what this side has told its peer to change to
        self.control_address: Address | None = None

    @property
    def forwarder(self) -> PortForwarder[Any]:
        """The encryptor, where it forwards ports: its addresses and counts."""
        assert isinstance(self._encryptor, PortForwarder), "this tunnel does not forward ports"
        return self._encryptor

    async def start(self) -> None:
        """Listen, dial and begin. Raises ConfigurationError if an address cannot be used."""
        await self._encryptor.start()
        if self._config.role is Role.RESPONDER:
            self._listener = ControlListener(self._config.control, self._serve_link)
            try:
                self.control_address = await self._listener.start()
            except BaseException:
                await self._encryptor.close()
                raise
        else:
            self._dialer = ControlDialer(self._config.control, self._serve_link)
            self._dialer.start()
        self._spawn(self._keep_ticking())

    async def close(self) -> None:
        """End every connection and forget every key."""
        if self._dialer is not None:
            await self._dialer.close()
        if self._listener is not None:
            await self._listener.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._encryptor.close()

    def follow(self, config: AgentConfig) -> None:
        """Take over how often keys change, and how long the old one overlaps; nothing else of ``config``."""
        limits = dataclasses.replace(
            self._config.rotation,
            rekey_seconds=config.rotation.rekey_seconds,
            overlap_seconds=config.rotation.overlap_seconds,
        )
        self._config = dataclasses.replace(self._config, rotation=limits)
        self._state = dataclasses.replace(self._state, held=dataclasses.replace(self._state.held, limits=limits))

    def tick(self) -> None:
        """Look at the clock now; also done every ``tick_seconds``."""
        self._feed(Tick(self._clock.now()))
        self._encryptor.check()

    def status(self) -> AgentStatus:
        """Return a snapshot."""
        held, report = self._state.held, self._encryptor.report()
        components: tuple[str, ...] = ()
        if report.key_id is not None:
            components = self._established.components(report.key_id) if self._established else (QKD,)
        encrypting: Mode = "encrypting" if QKD in components else "without-qkd"
        return AgentStatus(
            role=self._config.role.name.lower(),
            mode=encrypting if report.sending else "fail-closed",
            state=type(self._state).__name__,
            control_connected=bool(self._links),
            key_id=key_id_text(report.key_id) if report.key_id else None,
            key_age_s=self._clock.now() - report.since if report.key_id else None,
            rekeys=held.rekeys,
            live_connections=report.live_connections,
            completed_connections=report.completed_connections,
            sent_records=report.sent_records,
            sent_bytes=report.sent_bytes,
            received_records=report.received_records,
            received_bytes=report.received_bytes,
            refused_records=report.refused_records,
            refused_messages=self._refused_messages,
            cut_connections=report.cut_connections,
            turned_away=report.turned_away,
            last_refusal=self._last_refusal,
            policy=self._config.requirement.policy,
            components=components,
            cipher=self._config.rotation.cipher,
            alarm=report.alarm or (None if report.sending else self._alarm),
            pad_bytes_left=report.pad_bytes_left,
        )

    # Events in, actions out. ``origin`` is the link an answer goes to; None means the peer we know.

    def _feed(self, event: Event, origin: ControlLink | None = None) -> None:
        self._events.append((event, origin))
        if self._feeding:
            return  # an action's own event: taken after the actions before it
        self._feeding = True
        try:
            while self._events:
                self._advance(*self._events.popleft())
        finally:
            self._feeding = False

    def _advance(self, event: Event, origin: ControlLink | None) -> None:
        for each in (Tick(self._clock.now()), event):
            try:
                actions = self._step(each)
            except RemoteProtocolError as why:
                self._refused_messages += 1
                self._last_refusal = str(why)
                return
            failed = False
            for action in actions:
                if failed and not isinstance(action, Retire):
                    continue  # what would have followed, such as "ready", is not said; what must end, ends
                try:
                    self._perform(action, origin)
                except EncryptorUnavailable as why:
                    self._alarm, failed = str(why), True
                    if isinstance(action, Install):
                        self._not_in_place.add(action.keys.key_id)
                    elif isinstance(action, Activate):
                        self._not_in_place.add(action.key_id)
            if failed:
                return

    def _step(self, event: Event) -> list[Action]:
        if isinstance(
            self._state,
            initiator.Idle
            | initiator.Fetching
            | initiator.AwaitingReady
            | initiator.AwaitingConfirm
            | initiator.Active,
        ):
            self._state, actions = initiator.step(self._state, event)
        else:
            self._state, actions = responder.step(self._state, event)
        return actions

    def _perform(self, action: Action, origin: ControlLink | None) -> None:
        match action:
            case FetchKey(attempt):
                self._spawn(self._fetch(attempt, None, origin))
            case FetchKeyWithId(attempt, key_id):
                self._spawn(self._fetch(attempt, key_id, origin))
            case Send(Ready() | Commit() | Confirm() as message) if message.key_id in self._not_in_place:
                pass  # said again and again by the machine, which does not know: not of a key that is not in place
            case Send(Ready() | Commit() | Confirm() as message) if not self._encryptor.holds(message.key_id):
                self._withheld = message, origin  # the encryptor is on its way
            case Send(message):
                self._send(message, origin)
            case Install(keys, since):
                self._encryptor.install(keys, since)
            case Activate(key_id):
                self._encryptor.activate(key_id)
                if self._listener is not None and origin is not None:
                    self._listener.proven = origin
            case Drain(key_id):
                self._encryptor.drain(key_id)
            case Retire(key_id):
                self._not_in_place.discard(key_id)
                if self._withheld is not None and self._withheld[0].key_id == key_id:
                    self._withheld = None
                self._encryptor.retire(key_id)
            case Reconnect():
                for link in self._links:
                    link.drop()

    def _say_withheld(self, key_id: bytes) -> None:
        if self._withheld is not None and self._withheld[0].key_id == key_id:
            (message, origin), self._withheld = self._withheld, None
            self._send(message, origin)

    def _give_up(self, key_id: bytes) -> None:
        if key_id != self._committed:  # else the peer may send under it: there is no way back
            self._feed(NotTaken(key_id))

    def _send(self, message: Message, origin: ControlLink | None) -> None:
        if isinstance(message, Commit):
            self._committed = message.key_id
        link = origin if origin is not None and origin.is_open else self._peer()
        if link is None:
            return  # the machine sends it again
        link.send(message)
        if isinstance(message, Refusal):
            self._count_refusal(link)

    def _count_refusal(self, link: ControlLink) -> None:
        # Each named key costs our key manager a look-up: who names many that do not exist has to dial again.
        link.refusals += 1
        if link.refusals >= _MAX_REFUSALS:
            link.drop()

    def _send_tagged(self, message: Tagged) -> None:
        link = self._peer()
        if link is not None:
            link.send(message)

    async def _establish(self, message: Tagged, link: ControlLink) -> None:
        """Take an offer or an answer of the key establishment; a refused one changes nothing."""
        try:
            source = self._established
            if source is None:
                self._refuse_offer(link, "the peer offers keys of another policy; here it is qkd-only: set the same")
            elif self._config.role is Role.INITIATOR:
                source.answered(message)
            else:
                link.send(await source.answer(message))
        except (RemoteProtocolError, KeySupplyError) as why:
            self._refuse_offer(link, str(why))

    def _refuse_offer(self, link: ControlLink, why: str) -> None:
        self._refused_messages += 1
        self._last_refusal = why
        self._count_refusal(link)

    def _peer(self) -> ControlLink | None:
        if self._listener is not None and self._listener.proven is not None:
            return self._listener.proven
        return self._links[-1] if self._links else None

    # The rim: key source, control channel, time.

    async def _fetch(self, attempt: int, key_id: bytes | None, origin: ControlLink | None) -> None:
        try:
            if key_id is None:
                key = await self._keys.get_key()
            else:
                key = await self._keys.get_key_with_id(key_id_text(key_id))
            self._refuse_second_use(key)
        except (KeyNotFound, NotPermitted) as why:
            self._last_refusal = str(why)
            self._feed(KeyRefused(attempt, final=True), origin)
        except Exception as why:  # noqa: BLE001  - a broken key source costs this fetch, never the agent
            self._last_refusal = f"{type(why).__name__}: {why}"
            self._feed(KeyRefused(attempt, final=False), origin)
        else:
            self._feed(KeyFetched(attempt, key), origin)

    def _refuse_second_use(self, key: DeliveredKey) -> None:
        with contextlib.suppress(KeySupplyError):  # a key that cannot be used at all: the machine refuses it
            key_id = derive(key, self._config.rotation.cipher).key_id
            if self._encryptor.seen(key_id):
                raise RemoteProtocolError(f"the key manager gave key {key.key_id} a second time; its nonces are used")

    def _serve_link(self, link: ControlLink) -> asyncio.Future[None]:
        return self._spawn(self._read_link(link))

    async def _read_link(self, link: ControlLink) -> None:
        self._links.append(link)
        try:
            self._feed(ControlUp(), link)
            while True:
                message = await link.receive()
                if isinstance(message, Tagged):
                    await self._establish(message, link)
                else:
                    self._feed(Received(message), link)
        except TransportClosed:
            pass
        except RemoteProtocolError as why:
            self._refused_messages += 1
            self._last_refusal = str(why)
        finally:
            self._links.remove(link)
            link.drop()
            if not self._links:
                self._feed(ControlDown())

    async def _keep_ticking(self) -> None:
        while True:
            await asyncio.sleep(self._config.tick_seconds)
            try:
                self.tick()
            except Exception as why:  # noqa: BLE001  - ages are checked here: whatever happens, the next tick comes
                self._alarm = f"internal error ({type(why).__name__}): please report it"
                _log.error("a tick of the agent failed: %s", type(why).__name__)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task
