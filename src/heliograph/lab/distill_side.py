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
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from heliograph.bits import BitString
from heliograph.errors import HeliographError, TransportClosed
from heliograph.lab.block_runs import BlockRuns, Driven
from heliograph.lab.recordings import Recording, write_key
from heliograph.postprocessing.recorded import joined, parts
from heliograph.postprocessing.secrecy.recorded import PhaseSample, Requirements
from heliograph.protocol import distillation as d
from heliograph.site.bugs import place
from heliograph.site.workers import Workers
from heliograph.transport.tcp import TcpTransport, dial, listen
from heliograph.types import BlockId
from heliograph.vault.randomness import SystemRandomness

__all__ = ["key_check", "main"]

_HOST = "127.0.0.1"
_ACCEPT_S = 30.0  # our choice: the other side is told to connect at the same moment


def key_check(keys: Sequence[BitString], secret: bytes) -> str:
    """Return what the two sides' keys are compared by: HMAC-SHA-256 of lengths and bits under a fresh secret."""
    check = hmac.new(secret, digestmod=hashlib.sha256)
    for key in keys:
        check.update(len(key).to_bytes(8, "big") + key.to_bytes())
    return check.hexdigest()


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
        recording = Recording(Path(begin["path"]), in_parts=begin["block_bits"] is not None)
        cut = parts(recording.bits, begin["block_bits"])
        facts = {"bits": recording.bits, "ones": recording.ones()}

        def told(connect: dict[str, Any]) -> Callable[[int], d.Run]:
            each = requirements.of_each(len(cut), biased=connect["biased"])

            def run(block: int) -> d.Run:
                bits = recording.part(*cut[block])
                return d.Run(bits, each, begin["reconciliation"], begin["family"], BlockId(block))

            return run

        began, driven = await self._exchange(begin, facts, len(cut), told)
        exchange_s = time.monotonic() - began
        keys = [one.outcome.key.bits for one in driven if one.outcome]
        check = key_check(keys, bytes.fromhex(begin["secret"]))
        reconciled = [one for one in driven if one.ended]
        seconds = max((one.ended for one in reconciled), default=0.0) - min((o.began for o in reconciled), default=0.0)
        times = {"exchange_s": exchange_s, "reconciliation_s": seconds}
        _answer("done", check=check, blocks=[_figures(one) for one in driven], **times)
        path = Path((await self._next("write"))["path"])
        write_key(path, joined(keys))
        self._written = path
        _answer("written")
        await self._next("keep")
        self._written = None

    async def _exchange(
        self,
        begin: dict[str, Any],
        facts: dict[str, int],
        blocks: int,
        told: Callable[[dict[str, Any]], Callable[[int], d.Run]],
    ) -> tuple[float, list[Driven]]:
        """Connect and run; return when it began, start-up excluded, and what came of each block.

        ``facts``: about the recording; ``told``: makes of the order to connect what begins a block.
        """
        accepted: asyncio.Future[TcpTransport] = asyncio.get_running_loop().create_future()

        async def accept(transport: TcpTransport) -> None:
            if accepted.done():
                transport.abort()  # one peer only
            else:
                accepted.set_result(transport)

        if begin["side"] == "reference":
            server = await listen(_HOST, 0, accept)
            _answer("ready", **facts, port=server.sockets[0].getsockname()[1])
            connect = await self._next("connect")
            try:
                async with asyncio.timeout(_ACCEPT_S):
                    transport = await accepted
            except TimeoutError:
                raise TransportClosed("the other side did not connect") from None
            finally:
                server.close()
        else:
            _answer("ready", **facts, port=None)
            connect = await self._next("connect")
            transport = await dial(_HOST, connect["port"])
        workers = Workers()
        began = time.monotonic()
        try:
            runs = BlockRuns(begin["side"], transport, workers, SystemRandomness(), told(connect))
            return began, await runs.run(blocks, begin["in_flight"])
        finally:
            workers.close()
            await transport.close()


def _figures(one: Driven) -> dict[str, Any]:
    """Return what is told about a block: its figures, or why it gave no key."""
    if one.outcome is None:
        return {"discarded": True, "code": type(one.discarded).__name__, "message": str(one.discarded)}
    figures = {name: dataclasses.asdict(getattr(one.outcome, name)) for name in ("counts", "disclosed", "terms")}
    return {"discarded": False, "rounds": one.rounds, **figures}


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
