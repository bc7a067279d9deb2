"""The line between two nodes: Eve reads, changes, repeats, drops and cuts; she has no key of the link."""

import asyncio
import contextlib

import pytest
from dealt_network import dealt_network

from heliograph.errors import AuthenticationFailed, HeliographError
from heliograph.kme.one_time import ATTEMPTS_MAX
from heliograph.lab.network_layout import NetworkPlan
from heliograph.network.stocks import PathBook
from heliograph.transport.tcp import dial, listen

pytestmark = pytest.mark.slow  # real stores, sockets and TLS

CHAIN = NetworkPlan.around(1, threshold=1)


class Line:
    """Between ``one`` and ``other``. ``there``: what becomes of a message, a list of frames; ``back``: of its reply."""

    def __init__(self, target):
        self.target, self.seen, self.replies = target, [], []
        self.there = lambda frame: [frame]
        self.back = lambda frame: frame

    async def accept(self, transport):
        with contextlib.suppress(HeliographError):
            frame = await transport.receive()
            self.seen.append(frame)
            for piece in self.there(frame):
                answer = await self.ask(piece)
                if answer is not None:
                    self.replies.append(answer)
                    back = self.back(answer)
                    if back is not None:
                        await transport.send(back)
        await transport.close()

    async def ask(self, frame):
        """Send one frame to the node; its reply, None for silence."""
        transport = await dial(*self.target)
        try:
            await transport.send(frame)
            return await transport.receive()
        except HeliographError:
            return None
        finally:
            transport.abort()


@contextlib.asynccontextmanager
async def tapped(net, one="node-a", other="node-r"):
    """Put Eve between two nodes."""
    text = net.files[one].read_text()
    dialled = net.nodes[one].parts.neighbours[other].client._where
    line = Line(dialled)
    server = await listen("127.0.0.1", 0, line.accept)
    port = server.sockets[0].getsockname()[1]
    await net.stop(one)
    net.files[one].write_text(text.replace(f'dial = "127.0.0.1:{dialled[1]}"', f'dial = "127.0.0.1:{port}"'))
    await net.open(one)
    try:
        yield line
    finally:
        server.close()


def run(scenario):
    return asyncio.run(scenario)


def test_nothing_of_a_key_is_on_the_line(tmp_path):
    async def scenario():
        async with dealt_network(tmp_path, CHAIN) as net, tapped(net) as line:
            await net.transfer(4)
            async with net.sae("node-a") as a:
                keys = await a.get_keys(4)
            assert line.seen
            assert not [k for k in keys for frame in line.seen + line.replies if k.material[:8] in frame]

    run(scenario())


def test_a_message_that_is_played_again_does_nothing(tmp_path):
    async def scenario():
        async with dealt_network(tmp_path, CHAIN) as net, tapped(net) as line:
            await net.transfer(2)
            before = net.stocks()
            for _ in range(3):
                assert await line.ask(line.seen[0]) is None
            assert net.stocks() == before
            assert net.nodes["node-r"].relay.carried == 1

    run(scenario())


@pytest.mark.parametrize("what", ["changed", "cut", "empty", "junk"])
def test_a_forged_message_costs_no_key_and_the_true_one_still_counts(tmp_path, what):
    def forged(frame):
        return {
            "changed": frame[:-1] + bytes([frame[-1] ^ 1]),
            "cut": frame[:-7],
            "empty": b"",
            "junk": b"\xa6\xa6" * 50,
        }[what]

    async def scenario():
        async with dealt_network(tmp_path, CHAIN) as net, tapped(net) as line:
            line.there = lambda frame: [forged(frame), frame]
            await net.transfer(2)
            assert await net.ready() == 2

    run(scenario())


def test_a_forged_copy_that_comes_at_the_same_moment_does_not_take_the_keys_away(tmp_path):
    async def scenario():
        async with dealt_network(tmp_path, CHAIN) as net, tapped(net) as line:
            forgeries = []

            def both(frame):
                forgeries.append(asyncio.create_task(line.ask(frame[:-1] + bytes([frame[-1] ^ 1]))))
                return [frame]

            line.there = both
            for number in (1, 2, 3):
                await net.transfer(1)
                assert await net.ready() == number
            assert await asyncio.gather(*forgeries) == [None] * 3

    run(scenario())


def test_attempts_on_one_key_are_bounded(tmp_path):
    async def scenario():
        async with dealt_network(tmp_path, CHAIN) as net, tapped(net) as line:
            line.there = lambda frame: (
                [frame[:-1] + bytes([frame[-1] ^ (n + 1)]) for n in range(ATTEMPTS_MAX)] + [frame]
            )
            with pytest.raises(AuthenticationFailed):
                await net.transfer(2)
            assert net.nodes["node-r"].relay.carried == 0

    run(scenario())


@pytest.mark.parametrize("ways", ["dropped", "changed", "another"])
def test_a_reply_that_does_not_come_as_it_was_leaves_the_key_undelivered(tmp_path, ways):
    """The target holds keys whose names nobody will ever say; the origin makes others."""

    async def scenario():
        async with dealt_network(tmp_path, CHAIN) as net, tapped(net) as line:
            if ways == "another":
                await net.transfer(2)
                async with net.sae("node-a") as a:
                    await a.get_keys(2)
            old = line.replies[0] if line.replies else b""
            line.back = {
                "dropped": lambda _: None,
                "changed": lambda frame: frame[:-1] + bytes([frame[-1] ^ 1]),
                "another": lambda _: old,
            }[ways]
            with pytest.raises(AuthenticationFailed):
                await net.transfer(2)
            assert await net.ready() == 0
            held = net.nodes["node-c"]._keys.counts("sae-node-a", "sae-node-c").held
            assert held == (4 if ways == "another" else 2)
            # The line is mended.
            line.back = lambda frame: frame
            node = net.nodes["node-a"]
            node.parts.neighbours["node-r"].client._failures = 0
            node.origin.books["sae-node-a", "sae-node-c"] = PathBook()
            await net.transfer(2)
            async with net.sae("node-a") as a, net.sae("node-c") as c:
                keys = await a.get_keys(2)
                assert await c.get_keys_with_ids([key.key_id for key in keys]) == keys

    run(scenario())


def test_whoever_cuts_the_line_does_not_drain_the_link(tmp_path):
    async def scenario():
        async with dealt_network(tmp_path, CHAIN) as net, tapped(net) as line:
            line.there = lambda _: []
            before = net.stocks()["node-a to node-r"]
            for _ in range(20):
                await net.nodes["node-a"].origin.tick()
            # One attempt, then the path is left alone: two keys for tags, and pads for eight keys and 80 bytes.
            assert before - net.stocks()["node-a to node-r"] == 13

    run(scenario())


def test_a_stranger_with_made_up_names_burns_nothing(tmp_path):
    async def scenario():
        async with dealt_network(tmp_path, CHAIN) as net, tapped(net) as line:
            await net.transfer(1)
            frame = line.seen[0]
            before = net.stocks()
            for at in range(0, 60, 3):
                await line.ask(frame[:at] + bytes([frame[at] ^ 0x55]) + frame[at + 1 :])
            assert net.stocks() == before

    run(scenario())
