"""Requests between the key managers of two sites: one connection, one request, one reply (``kme.one_time``).

The connection itself is not trusted. Keys are taken only when somebody answers at the other end, and after a failure
the next attempt waits, longer each time: whoever cuts the line does not drain the pool.

Whoever has not proved itself by a tag holds one of a few places, for a short time, and makes way for the next one
(``transport.strangers``). Addresses from which somebody did prove itself have such places of their own, so strangers
elsewhere push none of them out, however many they are; who has proved itself has a place that no stranger gets.
"""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import Awaitable, Callable, Iterable

from heliograph.errors import AuthenticationFailed, HeliographError, RemoteProtocolError, TransportClosed
from heliograph.kme.one_time import MESSAGE_BYTES_MAX, OneTimeKeys
from heliograph.ports import Clock
from heliograph.transport.strangers import Strangers
from heliograph.transport.tcp import TcpTransport, dial, listen

__all__ = ["OneTimeClient", "OneTimeServer"]

# Our choices.
ANSWER_S = 10.0
BACKOFF_S, BACKOFF_MAX_S = 1.0, 60.0
# Our choices, of the server. Who dials takes its keys after that, from a key manager that may be slow.
STRANGERS_MAX = 16
SILENT_S = 5.0
KNOWN_MAX = 64  # addresses
PROVED_MAX = 64


class OneTimeClient:
    """Asks the key manager at ``host:port``. ``keys``: takes the two keys of one exchange for (local, remote) SAEs."""

    def __init__(self, host: str, port: int, keys: Callable[[str, str], Awaitable[OneTimeKeys]], clock: Clock) -> None:
        self._where = host, port
        self._keys = keys
        self._clock = clock
        self._turn = asyncio.Lock()
        self._failures = 0
        self._not_before = 0.0

    def move(self, host: str, port: int) -> None:
        """Ask there from now on; what is under way ends where it began."""
        if self._where != (host, port):
            self._where, self._failures = (host, port), 0

    async def request(self, local: str, remote: str, body: bytes) -> bytes:
        """Return the reply's body. Raises TransportClosed, also while attempts are put off, or KeySupplyError."""
        async with self._turn:
            if self._failures and self._clock.now() < self._not_before:
                raise TransportClosed("the other key manager did not answer lately; the next attempt is put off")
            try:
                answer = await self._exchange(local, remote, body)
            except (TransportClosed, RemoteProtocolError, AuthenticationFailed) as why:
                self._not_before = self._clock.now() + min(BACKOFF_MAX_S, BACKOFF_S * 2**self._failures)
                self._failures = min(self._failures + 1, 16)
                raise TransportClosed(f"the other key manager did not answer: {why}") from None
            self._failures = 0
            return answer

    async def _exchange(self, local: str, remote: str, body: bytes) -> bytes:
        transport = await dial(*self._where)
        try:
            keys = await self._keys(local, remote)
            await transport.send(keys.seal(body))
            async with asyncio.timeout(ANSWER_S):
                return keys.open_reply(await transport.receive(MESSAGE_BYTES_MAX))
        except TimeoutError:
            raise TransportClosed("no answer in time") from None
        finally:
            transport.abort()


class OneTimeServer:
    """Listens for the other key manager. ``answer``: the reply to a request; raises HeliographError for none.

    It calls its second argument once the request's tag was right, before anything that takes long.
    ``known``: addresses at which peers are expected, in any spelling. The name of a host matches no address: a peer
    that is declared by one is a stranger until it has proved itself.
    """

    def __init__(
        self, answer: Callable[[bytes, Callable[[], None]], Awaitable[bytes]], known: Iterable[str] = ()
    ) -> None:
        self._answer = answer
        self._server: asyncio.Server | None = None
        self._known = dict.fromkeys(map(_plain, known))
        self._strangers, self._expected = Strangers(STRANGERS_MAX), Strangers(STRANGERS_MAX)
        self._proved = 0
        self._serving: set[asyncio.Task[None]] = set()
        self.refused = 0

    async def start(self, host: str, port: int) -> None:
        """Listen. Raises ConfigurationError."""
        self._server = await listen(host, port, self._accept)

    async def close(self) -> None:
        """Stop listening, and end what is under way: nobody is answered from what closes after this."""
        if self._server is not None:
            self._server.close()
            self._server = None
        for task in self._serving:
            task.cancel()
        await asyncio.gather(*self._serving, return_exceptions=True)

    def expect(self, hosts: Iterable[str]) -> None:
        """Keep room for peers that were moved to ``hosts``, as for those that it was made with."""
        for host in hosts:
            self._learn(_plain(host))

    async def _accept(self, transport: TcpTransport) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._serving.add(task)
        try:
            await self._serve(transport)
        except asyncio.CancelledError:
            if self._server is not None:  # else by ``close``, and whoever accepted the connection has nothing to tell
                raise
        finally:
            self._serving.discard(task)

    async def _serve(self, transport: TcpTransport) -> None:
        host, has_proved = _plain(transport.peer_host), False
        waiting = self._expected if host in self._known else self._strangers

        def proved() -> None:
            nonlocal has_proved
            if has_proved:
                return
            waiting.remove(transport)
            if self._proved >= PROVED_MAX:
                raise RemoteProtocolError("too many requests of key managers are under way")
            has_proved = True
            self._proved += 1
            self._learn(host)

        waiting.add(transport)
        try:
            async with asyncio.timeout(SILENT_S):
                request = await transport.receive(MESSAGE_BYTES_MAX)
            waiting.heard(transport)
            async with asyncio.timeout(ANSWER_S):
                await transport.send(await self._answer(request, proved))
        except (HeliographError, TimeoutError):
            self.refused += 1  # silence: a stranger learns nothing
        finally:
            self._proved -= has_proved
            waiting.remove(transport)
            await transport.close()

    def _learn(self, host: str) -> None:
        self._known.pop(host, None)
        self._known[host] = None  # behind the others: the one that was quiet longest is forgotten first
        if len(self._known) > KNOWN_MAX:
            del self._known[next(iter(self._known))]


def _plain(host: str) -> str:
    """Return an address as one text, whatever its spelling, an IPv4 address that IPv6 maps as IPv4; a name as it is."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return str(mapped or address)
