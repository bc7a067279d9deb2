"""Asks the neighbour's node: one connection, one message, one reply (``network.hop``); nobody trusts the connection.

Keys of the link are taken only when somebody answers at the other end, and after a failure the next attempt waits,
longer each time. Unlike ``OneTimeClient`` it sends several messages at once: a relay that waits for its own neighbour
must not hold up another path.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from heliograph.errors import AuthenticationFailed, RemoteProtocolError, TransportClosed
from heliograph.kme.one_time import MESSAGE_BYTES_MAX
from heliograph.network.hop import SealedHop
from heliograph.ports import Clock
from heliograph.transport.tcp import dial

__all__ = ["HopClient"]

# Our choices.
ANSWER_S = 10.0  # for the whole rest of the path
BACKOFF_S, BACKOFF_MAX_S = 1.0, 60.0


class HopClient:
    """The node at ``host:port``."""

    def __init__(self, host: str, port: int, clock: Clock) -> None:
        self._where = host, port
        self._clock = clock
        self._failures = 0
        self._not_before = 0.0

    def move(self, host: str, port: int) -> None:
        """Ask there from now on; what is under way ends where it began."""
        if self._where != (host, port):
            self._where, self._failures = (host, port), 0

    async def request(self, seal: Callable[[], Awaitable[SealedHop]]) -> bytes:
        """Return the reply's body. ``seal`` takes keys and returns the message; what it raises goes through.

        Raises TransportClosed, also while attempts are put off; the message's keys are gone then.
        """
        if self._failures and self._clock.now() < self._not_before:
            raise TransportClosed("the node did not answer lately; the next attempt is put off")
        try:
            transport = await dial(*self._where)
            try:
                hop = await seal()
                await transport.send(hop.wire)
                async with asyncio.timeout(ANSWER_S):
                    answer = hop.keys.open_reply(await transport.receive(MESSAGE_BYTES_MAX))
            except TimeoutError:
                raise TransportClosed("no answer in time") from None
            finally:
                transport.abort()
        except (TransportClosed, RemoteProtocolError, AuthenticationFailed) as why:
            self._not_before = self._clock.now() + min(BACKOFF_MAX_S, BACKOFF_S * 2**self._failures)
            self._failures = min(self._failures + 1, 16)
            raise TransportClosed(f"the node did not answer: {why}") from None
        self._failures = 0
        return answer
