"""Both rotation machines with a control channel and key managers in memory, and made-up answers of a peer."""

from __future__ import annotations

import uuid

from heliograph.consumer import initiator, responder
from heliograph.consumer.keys import Proven, derive, proof
from heliograph.consumer.messages import Prepare, Ready, Standing
from heliograph.consumer.rotation import (
    ControlUp,
    Drain,
    Drained,
    FetchKey,
    FetchKeyWithId,
    KeyFetched,
    Received,
    RotationLimits,
    Send,
    Tick,
)
from heliograph.types import DeliveredKey

LIMITS = RotationLimits()


def key(number: int) -> DeliveredKey:
    return DeliveredKey(str(uuid.UUID(int=number)), bytes([number]) * 32)


def key_id(number: int) -> bytes:
    return uuid.UUID(int=number).bytes


class Machine:
    """One side; keeps what it was told to do."""

    def __init__(self, module):
        self.module = module
        self.state = module.begin(LIMITS, 0.0)
        self.actions = []

    def feed(self, event):
        self.state, actions = self.module.step(self.state, event)
        self.actions += actions
        return actions

    def sent(self, kind):
        return [a.message for a in self.actions if isinstance(a, Send) and isinstance(a.message, kind)][-1]


class RotationPair:
    """Both sides, a control channel without loss, and key managers that give key 1, 2, 3 ..."""

    def __init__(self):
        self.a, self.b = Machine(initiator), Machine(responder)
        self.given = 0

    def run(self, side, event):
        """Feed an event and carry everything out until both sides are quiet."""
        work = [(side, event)]
        while work:
            at, each = work.pop(0)
            other = self.b if at is self.a else self.a
            for action in at.feed(each):
                match action:
                    case Send(message):
                        work.append((other, Received(message)))
                    case FetchKey(attempt):
                        self.given += 1
                        work.append((at, KeyFetched(attempt, key(self.given))))
                    case FetchKeyWithId(attempt, named):
                        work.append((at, KeyFetched(attempt, key(uuid.UUID(bytes=named).int))))
                    case Drain(old):
                        work.append((at, Drained(old)))

    def tick(self, now):
        self.run(self.a, Tick(now))
        self.run(self.b, Tick(now))


def answer(kind, proven, number, previous, *, forged=False):
    offered = proof(derive(key(number)), proven, key_id(previous) if previous else None, number)
    offered = bytes(32) if forged else offered
    if kind is Prepare:
        return Prepare(key_id(number), key_id(previous) if previous else None, number, offered)
    return kind(key_id(number), number, offered)


def standing(number):
    return Standing(key_id(number), number, proof(derive(key(number)), Proven.STANDING, None, number))


def initiator_states():
    """One instance of each state, in a second rotation where there is one: key 1 in use, key 2 on its way."""
    pair = RotationPair()
    idle = pair.a.state
    pair.run(pair.a, ControlUp())
    active = pair.a.state
    fetching, _ = initiator.step(active, Tick(60))
    ready, _ = initiator.step(fetching, KeyFetched(2, key(2)))
    confirm, _ = initiator.step(ready, Received(answer(Ready, Proven.READY, 2, 1)))
    return {"Idle": idle, "Fetching": fetching, "AwaitingReady": ready, "AwaitingConfirm": confirm, "Active": active}
