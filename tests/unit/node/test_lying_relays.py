"""Several paths: a relay that is down, that lies, or that reads what it carries. Eve runs the relay's own software."""

import asyncio

import msgspec
import pytest
from dealt_network import dealt_network

from heliograph.errors import AuthenticationFailed, InsufficientKeys
from heliograph.lab.network_layout import NetworkPlan
from heliograph.network.letters import Hop, Receipt, Status

pytestmark = pytest.mark.slow  # real stores, sockets and TLS

LONE = NetworkPlan.around(1, threshold=1)
TRUSTED = NetworkPlan.around(1, threshold=1, proved=False)
TWO = NetworkPlan.around(2, threshold=2, proved=False)
TWO_PROVED = NetworkPlan.around(2, threshold=2)
THREE = NetworkPlan.around(3, threshold=2, proved=False)


def run(scenario):
    return asyncio.run(scenario)


def bend_shares(net, name, at=0):
    """Let a relay change one bit of every share that it hands on."""
    relay, honest = net.nodes[name].relay, net.nodes[name].relay.hand_on

    async def lie(letter, carry, share):
        return await honest(letter, carry, share[:at] + bytes([share[at] ^ 1]) + share[at + 1 :])

    relay.hand_on = lie


def path(relay):
    return f"node-a - {relay} - node-c"


async def same_keys(net, number):
    async with net.sae("node-a") as a, net.sae("node-c") as c:
        keys = await a.get_keys(number)
        assert await c.get_keys_with_ids([key.key_id for key in keys]) == keys


def test_two_relays_of_which_neither_knows_the_key(tmp_path):
    async def scenario():
        async with dealt_network(tmp_path, TWO) as net:
            seen = dict.fromkeys(("node-r1", "node-r2"), b"")
            for name in seen:
                relay = net.nodes[name].relay

                async def read(letter, carry, share, *, name=name, honest=relay.hand_on):
                    seen[name] += share
                    return await honest(letter, carry, share)

                relay.hand_on = read
            await net.transfer(3)
            async with net.sae("node-a") as a:
                keys = await a.get_keys(3)
            assert all(seen.values())
            assert not [key for key in keys for share in seen.values() if key.material in share]
            # Together they do: two of two is what the plan says.
            one, other = seen.values()
            joined = bytes(x ^ y for x, y in zip(one[: 32 + 96], other[: 32 + 96], strict=True))
            assert joined[32:] == b"".join(key.material for key in keys)
            (pair,) = (await net.nodes["node-a"].status()).pairs
            assert set(pair.cost_per_bit) == {f"node-{end} - node-r{n}" for end in "ac" for n in (1, 2)}

    run(scenario())


def test_two_of_three_paths_are_enough(tmp_path):
    async def scenario():
        async with dealt_network(tmp_path, THREE) as net:
            await net.stop("node-r2")
            await net.transfer(2)
            await same_keys(net, 2)
            assert (
                "failed 1 times"
                in net.nodes["node-a"].origin.books["sae-node-a", "sae-node-c"].report()[path("node-r2")]
            )

    run(scenario())


@pytest.mark.parametrize("liar", ["node-r1", "node-r2", "node-r3"])
def test_one_liar_of_three_changes_nothing(tmp_path, liar):
    async def scenario():
        async with dealt_network(tmp_path, THREE) as net:
            bend_shares(net, liar)
            await net.transfer(2)
            await same_keys(net, 2)
            # Where its share came before there were two others it is named, at both ends; nobody else ever is.
            for name in ("node-a", "node-c"):
                assert set((await net.nodes[name].status()).suspected) <= {path(liar)}

    run(scenario())


def test_of_two_paths_that_are_both_needed_one_lies_and_no_key_is_made(tmp_path):
    async def scenario():
        async with dealt_network(tmp_path, TWO) as net:
            bend_shares(net, "node-r1")
            with pytest.raises(AuthenticationFailed, match="one of these paths lies"):
                await net.transfer(2)
            assert await net.ready() == 0
            both = {path("node-r1"), path("node-r2")}
            assert set((await net.nodes["node-c"].status()).suspected) == both
            # Neither is used again at once.
            with pytest.raises(InsufficientKeys):
                await net.transfer(2)

    run(scenario())


@pytest.mark.parametrize("plan", [LONE, TWO_PROVED], ids=["one path", "two paths"])
def test_with_a_secret_between_the_ends_the_liar_is_named(tmp_path, plan):
    async def scenario():
        async with dealt_network(tmp_path, plan) as net:
            liar = next(name for name in plan.nodes if "-r" in name)
            bend_shares(net, liar, at=40)
            with pytest.raises(AuthenticationFailed, match="a relay on its path lies"):
                await net.transfer(2)
            assert await net.ready() == 0
            for name in ("node-a", "node-c"):
                assert set((await net.nodes[name].status()).suspected) == {path(liar)}

    run(scenario())


def test_an_acknowledgement_that_a_relay_made_up_releases_no_key(tmp_path):
    """The relay keeps the share and says that the target stored it."""

    async def scenario():
        async with dealt_network(tmp_path, TWO) as net:

            async def keep(_letter, _carry, share):
                return Receipt(Status.STORED, share[:16])

            net.nodes["node-r1"].relay.hand_on = keep
            with pytest.raises(AuthenticationFailed, match="the target did not make"):
                await net.transfer(2)
            assert await net.ready() == 0
            assert set((await net.nodes["node-a"].status()).suspected) == {path("node-r1")}

    run(scenario())


def test_a_relay_that_names_honest_paths_as_liars_is_not_believed_against_an_acknowledgement(tmp_path):
    async def scenario():
        async with dealt_network(tmp_path, THREE) as net:
            relay, honest = net.nodes["node-r1"].relay, net.nodes["node-r1"].relay.hand_on

            async def slander(letter, carry, share):
                return msgspec.structs.replace(await honest(letter, carry, share), suspects=(2,))

            relay.hand_on = slander
            await net.transfer(2)
            await same_keys(net, 2)
            assert path("node-r2") not in (await net.nodes["node-a"].status()).suspected

    run(scenario())


def test_a_relay_that_sends_a_share_again_stores_nothing_twice(tmp_path):
    """With fresh keys of its own link, as only a relay can."""

    async def scenario():
        async with dealt_network(tmp_path, TRUSTED) as net:
            relay, honest, kept = net.nodes["node-r"].relay, net.nodes["node-r"].relay.hand_on, []

            async def twice(letter, carry, share):
                kept.append((letter, carry, share))
                first = await honest(letter, carry, share)
                again = await honest(letter, carry, share)
                assert (again.status, again.ack) == (first.status, first.ack)
                return first

            relay.hand_on = twice
            made = await net.transfer(2)
            await same_keys(net, 2)
            # After a restart the target has forgotten the transfer, but not the names of its keys.
            await net.stop("node-c")
            await net.open("node-c")
            net.nodes["node-r"].parts.neighbours["node-c"].client._failures = 0
            receipt = await honest(*kept[0])
            assert receipt.status is Status.REFUSED
            assert "played again" in receipt.reason
            assert net.nodes["node-c"]._keys.counts("sae-node-a", "sae-node-c").held == 0
            assert len(made) == 2

    run(scenario())


def test_a_relay_sends_a_share_on_no_other_path_than_its_letter_says(tmp_path):
    async def scenario():
        async with dealt_network(tmp_path, TWO) as net:
            parts = net.nodes["node-r1"].parts
            wrong = []

            async def astray(letter, carry, share):
                # The other path's number: node-c must see that node-r1 is not on it.
                receipt = await parts.send(letter, carry.letter, 2, 2, share)
                wrong.append(receipt)
                return receipt

            net.nodes["node-r1"].relay.hand_on = astray
            with pytest.raises(AuthenticationFailed):
                await net.transfer(1)
            assert "another path than its letter says" in wrong[0].reason

    run(scenario())


@pytest.mark.parametrize("layer", ["ml-kem-768", "ml-kem-1024"])
def test_with_a_layer_the_relay_does_not_know_the_key(tmp_path, layer):
    plan = NetworkPlan.around(1, threshold=1, layer=layer)

    async def scenario():
        async with dealt_network(tmp_path, plan) as net:
            relay, seen = net.nodes["node-r"].relay, []
            honest = relay.hand_on

            async def read(letter, carry, share):
                seen.append(share)
                return await honest(letter, carry, share)

            relay.hand_on = read
            await net.transfer(2)
            (share,) = seen
            async with net.sae("node-a") as a, net.sae("node-c") as c:
                keys = await a.get_keys(2)
                assert await c.get_keys_with_ids([key.key_id for key in keys]) == keys
            relayed = {share[32:64], share[64:96]}
            assert not relayed & {key.material for key in keys}

    run(scenario())


def test_a_relay_that_swaps_the_offer_or_the_answer_gets_no_key_made(tmp_path):
    plan = NetworkPlan.around(1, threshold=1, layer="ml-kem-768")

    async def scenario():
        async with dealt_network(tmp_path, plan) as net:
            relay, honest = net.nodes["node-r"].relay, net.nodes["node-r"].relay.hand_on

            async def bend_answer(letter, carry, share):
                receipt = await honest(letter, carry, share)
                signed, tag = receipt.answer
                return msgspec.structs.replace(receipt, answer=(signed[:-1] + b"x", tag))

            relay.hand_on = bend_answer
            with pytest.raises(AuthenticationFailed):
                await net.transfer(1)
            assert await net.ready() == 0

    run(scenario())


def test_ends_that_do_not_have_the_same_policy_make_no_key(tmp_path):
    """The origin's file says two of two; the target's was lowered to one path: no letter decides."""

    async def scenario():
        async with dealt_network(tmp_path, TWO) as net:
            await net.stop("node-c")
            text = net.files["node-c"].read_text()
            net.files["node-c"].write_text(text.replace("shares = 2\nthreshold = 2", "shares = 1\nthreshold = 1"))
            await net.open("node-c")
            with pytest.raises(AuthenticationFailed, match="set the same at both"):
                await net.transfer(1)
            assert await net.ready() == 0

    run(scenario())


def test_what_a_relay_makes_up_about_costs_opens_no_account(tmp_path):
    async def scenario():
        async with dealt_network(tmp_path, LONE) as net:
            relay, honest = net.nodes["node-r"].relay, net.nodes["node-r"].relay.hand_on

            async def invent(letter, carry, share):
                receipt = await honest(letter, carry, share)
                more = tuple(Hop(f"invented {n}", 1, 1, "beyond doubt") for n in range(5))
                return msgspec.structs.replace(receipt, hops=(*receipt.hops, *more))

            relay.hand_on = invent
            await net.transfer(1)
            (pair,) = (await net.nodes["node-a"].status()).pairs
            assert set(pair.paid_bits) == {"node-a - node-r", "node-c - node-r"}

    run(scenario())
