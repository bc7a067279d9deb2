"""``python -m heliograph.lab.distill_side``: one side of a distillation, as a process of its own.

It reads its own recorded key, talks to the other side over TCP, and to whoever started it by lines of JSON on standard
input and output. Orders: ``begin``, ``connect``, ``write``, ``keep``. Answers: ``ready``, ``done``, ``written`` or
``error``. When the input ends before ``keep``, the process ends and takes back what it wrote, so that a run that
failed, or whose starter was killed, leaves no key file.

Key bits never leave the process except into the file that was asked for. For the comparison of the two keys the answer
``done`` holds a hash of the key under a fresh secret that came with ``begin``; it goes to the starter only and never
over the channel.
"""

from __future__ import annotations

import asyncio
import dataclasses
import hashlib
import hmac
import json
import os
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from heliograph.bits import BitString
from heliograph.errors import HeliographError, TransportClosed
from heliograph.lab.recordings import read_recording, write_key
from heliograph.postprocessing.secrecy.recorded import PhaseSample, Requirements
from heliograph.protocol import distillation as d
from heliograph.protocol import distillation_correction, distillation_one_way, distillation_reference
from heliograph.protocol.actions import Continue, Drawn, Received, Send, Start
from heliograph.protocol.frames import parse_frame
from heliograph.site.bugs import place
from heliograph.transport.tcp import TcpTransport, dial, listen
from heliograph.vault.randomness import SystemRandomness

__all__ = ["Driven", "drive", "key_check", "main"]

_HOST = "127.0.0.1"
_ACCEPT_S = 30.0  # our choice: the other side is told to connect at the same moment
_IN_ROUNDS = (
    distillation_reference.Answering,
    distillation_one_way.AwaitingRequest,
    distillation_one_way.Sending,
    distillation_correction.AwaitingParities,
    distillation_one_way.AwaitingSyndrome,
)
_MACHINES = {"reference": distillation_reference, "correction": distillation_correction}


@dataclass(frozen=True, slots=True)
class Driven:
    """What came of a run, its rounds of parities or of syndromes, and what reconciliation took.

    Wall time from the passes' seed to the last correction; the correcting side measures, the other reports 0 s.
    """

    outcome: d.Outcome
    rounds: int
    reconciliation_s: float


def key_check(key: BitString, secret: bytes) -> str:
    """Return what the two sides' keys are compared by: HMAC-SHA-256 of length and bits under a fresh secret."""
    return hmac.new(secret, len(key).to_bytes(8, "big") + key.to_bytes(), hashlib.sha256).hexdigest()


async def drive(side: str, run: d.Run, transport: TcpTransport) -> Driven:
    """Run one machine to its end over ``transport``. Raises HeliographError, after telling the peer why."""
    machine, randomness = _MACHINES[side], SystemRandomness()
    state = machine.begin(run)
    events: list[d.Event] = [Start()]
    rounds, began, ended = 0, 0.0, 0.0
    try:
        while True:
            event = events.pop() if events else Received(parse_frame(await transport.receive()))
            rounds += isinstance(event, Received) and isinstance(state, _IN_ROUNDS)
            state, actions = machine.step(state, event)
            for action in actions:
                if isinstance(action, Send):
                    await transport.send(action.frame.wire())
                elif isinstance(action, Continue):
                    events.append(action)
                else:
                    events.append(Drawn(randomness.draw(action.size)))
            if isinstance(state, distillation_correction.AwaitingSample):
                began = time.monotonic()
            elif isinstance(state, distillation_correction.AwaitingChallenge):
                ended = time.monotonic()
            elif isinstance(state, d.Finished):
                # The reference side gets one message more in that state: the end of the rounds.
                return Driven(state.outcome, rounds - (side == "reference"), ended - began)
    except (TransportClosed, d.PeerGaveUp):
        raise
    except HeliographError as why:
        with suppress(TransportClosed):
            await transport.send(d.abandonment(state, str(why)).wire())
        raise


class _Side:
    """What the process does with its orders."""

    def __init__(self, orders: asyncio.StreamReader) -> None:
        self._orders = orders
        self._written: Path | None = None

    async def _next(self, name: str) -> dict[str, Any]:
        """Return the next order. Raises EOFError when the starter is gone or wants no more."""
        line = await self._orders.readline()
        if not line.endswith(b"\n"):
            raise EOFError
        order: dict[str, Any] = json.loads(line)
        if order["order"] != name:
            raise HeliographError(f"the order {order['order']} came where {name} was due")
        return order

    async def serve(self) -> None:
        """Follow the orders; whatever goes wrong is said in one line."""
        try:
            await self._serve()
        except EOFError:
            pass
        except HeliographError as why:
            own = not isinstance(why, (TransportClosed, d.PeerGaveUp))
            _answer("error", code=type(why).__name__, message=str(why), own=own)
        except Exception as why:  # noqa: BLE001  - its text might quote key material: kind and place are enough
            text = f"internal error ({type(why).__name__} at {place(why)}): please report it"
            _answer("error", code="HeliographError", message=text, own=True)
        finally:
            if self._written is not None:
                with suppress(OSError):
                    self._written.unlink()

    async def _serve(self) -> None:
        begin = await self._next("begin")
        sample = PhaseSample(*begin["sample"]) if begin["sample"] else None
        requirements = Requirements(begin["eps_sec"], begin["eps_cor"], begin["strict"], sample)
        run = d.Run(read_recording(Path(begin["path"])), requirements, begin["reconciliation"], begin["family"])
        began, driven = await self._exchange(begin["side"], run)
        outcome = driven.outcome
        check = key_check(outcome.key.bits, bytes.fromhex(begin["secret"]))
        figures = {name: dataclasses.asdict(getattr(outcome, name)) for name in ("counts", "disclosed", "terms")}
        times = {"exchange_s": time.monotonic() - began, "reconciliation_s": driven.reconciliation_s}
        _answer("done", check=check, rounds=driven.rounds, **times, **figures)
        path = Path((await self._next("write"))["path"])
        write_key(path, outcome.key.bits)
        self._written = path
        _answer("written")
        await self._next("keep")
        self._written = None

    async def _exchange(self, side: str, run: d.Run) -> tuple[float, Driven]:
        """Connect and run; return when it began, start-up excluded, and what came of it."""
        accepted: asyncio.Future[TcpTransport] = asyncio.get_running_loop().create_future()

        async def accept(transport: TcpTransport) -> None:
            if accepted.done():
                transport.abort()  # one peer only
            else:
                accepted.set_result(transport)

        if side == "reference":
            server = await listen(_HOST, 0, accept)
            _answer("ready", bits=len(run.bits), port=server.sockets[0].getsockname()[1])
            await self._next("connect")
            try:
                async with asyncio.timeout(_ACCEPT_S):
                    transport = await accepted
            except TimeoutError:
                raise TransportClosed("the other side did not connect") from None
            finally:
                server.close()
        else:
            _answer("ready", bits=len(run.bits), port=None)
            transport = await dial(_HOST, (await self._next("connect"))["port"])
        began = time.monotonic()
        try:
            return began, await drive(side, run, transport)
        finally:
            await transport.close()


def _answer(name: str, **fields: object) -> None:
    print(json.dumps({"answer": name, "pid": os.getpid(), **fields}), flush=True)  # noqa: T201  - it is the protocol


async def _main() -> None:
    orders = asyncio.StreamReader()
    protocol = asyncio.StreamReaderProtocol(orders)
    await asyncio.get_running_loop().connect_read_pipe(lambda: protocol, sys.stdin)
    await _Side(orders).serve()


def main() -> None:
    """Run the process."""
    with suppress(BrokenPipeError):
        asyncio.run(_main())


if __name__ == "__main__":
    main()
