"""Two agents of one tunnel whose clock the test moves."""

import asyncio
import time
from collections.abc import Callable

from heliograph.testing.keysource import MemoryKeyManagers

# A host behind an encryptor, as a program: its address is its argument.
ECHO = """
import socket, sys
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.bind((sys.argv[1], 7007))
print("ready", flush=True)
while True:
    data, sender = s.recvfrom(2048)
    s.sendto(data, sender)
"""


class JumpingClock:
    def __init__(self) -> None:
        self.ahead = 0.0

    def now(self) -> float:
        return time.monotonic() + self.ahead


class AgentPair:
    """``agent``: makes side 0, the initiator, or side 1, given its role, its control address and its key source."""

    def __init__(self) -> None:
        self.clock = JumpingClock()
        self.keys = MemoryKeyManagers()

    def agent(self, side, role, control, source):
        raise NotImplementedError

    async def __aenter__(self):
        self.b = self.agent(1, "responder", "127.0.0.1:0", self.keys.slave)
        await self.b.start()
        self.a = self.agent(0, "initiator", str(self.b.control_address), self.keys.master)
        await self.a.start()
        return self

    async def __aexit__(self, *_):
        await self.a.close()
        await self.b.close()

    async def until(self, condition: Callable[[], bool], seconds: float = 30.0) -> None:
        async with asyncio.timeout(seconds):
            while not condition():
                self.clock.ahead += 0.05
                self.a.tick()
                self.b.tick()
                await asyncio.sleep(0.01)
