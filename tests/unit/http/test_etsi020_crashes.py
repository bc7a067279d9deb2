"""Hand-over between key managers when a store fails at any one transaction, at either end, before or after it."""

import asyncio
import contextlib
import string

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings
from two_key_managers import ACK, tls_of, two_key_managers

from heliograph.errors import InsufficientKeys, KeyNotFound, StoreUnavailable
from heliograph.testing.failing_store import FailingTransaction


async def scenario(one, two, clock, rounds):
    """Let both runners do what is due, for long enough; return what each SAE fetched."""
    mine, theirs = [], {}
    for _ in range(rounds):
        for manager in (one, two):
            with contextlib.suppress(StoreUnavailable):
                await manager.runner.tick()
        clock.advance(30)
        for _ in range(3):
            with contextlib.suppress(InsufficientKeys, StoreUnavailable):
                mine += one.supply.enc_keys("sae-1", "sae-2", 1)
    for key in mine:
        for _ in range(2):
            with contextlib.suppress(KeyNotFound, StoreUnavailable):
                (got,) = two.supply.dec_keys("sae-2", "sae-1", [key.key_id])
                theirs.setdefault(key.key_id, []).append(got.material)
    return mine, theirs


@pytest.mark.slow  # every transaction in turn
@pytest.mark.parametrize("durable", [False, True])
@pytest.mark.parametrize("where", ["one", "two"])
# The stock is filled, used up and filled again within three rounds; two more see what was left in doubt settled.
@pytest.mark.parametrize("rounds", [5, pytest.param(8, marks=pytest.mark.soak)])
def test_a_failure_at_any_transaction_releases_no_key_that_the_target_lacks(tmp_path, where, durable, rounds):
    async def act(number, directory):
        async with two_key_managers(directory, stock=2) as (one, two, clock):
            fault = FailingTransaction({"one": one, "two": two}[where].database, number, durable=durable)
            mine, theirs = await scenario(one, two, clock, rounds)
            return fault.reached, mine, theirs

    number, reached = 1, True
    while reached:
        directory = tmp_path / str(number)
        directory.mkdir()
        reached, mine, theirs = asyncio.run(act(number, directory))
        assert len({key.key_id for key in mine}) == len({key.material for key in mine}) == len(mine) >= 4
        lost = [key for key in mine if theirs.get(key.key_id) != [key.material]]
        # At most the one delivery during which the target's store failed after it had burnt the key.
        assert len(lost) <= (1 if reached and durable and where == "two" else 0)
        assert all(key.key_id not in theirs for key in lost)
        number += 1
    assert number > 15


def test_garbage_never_makes_an_unforeseen_error_and_never_takes_a_key(tmp_path, wire):
    words = st.sampled_from(
        [
            b'{"keys":[',
            b'{"key_id":"',
            b'"value":',
            b'"initiator_sae_id":"sae-1"',
            b'"target_sae_ids":["sae-2"]',
            b"]}",
            b",",
        ]
    )
    bodies = st.one_of(st.binary(max_size=80), st.lists(words, max_size=8).map(b"".join))
    names = st.text(string.ascii_letters, max_size=4)

    async def act():
        async with two_key_managers(tmp_path, synchronous=True) as (one, two, _):
            tls, loop = tls_of(one), asyncio.get_running_loop()

            async def send(path, body):
                head = f"POST {path} HTTP/1.1\r\nHost: kme\r\nContent-Length: {len(body)}\r\n\r\n".encode()
                status, _, _ = await wire.exchange(two.port, tls, head + body)
                assert status in {400, 404}, (path, body, status)

            @settings(max_examples=150, deadline=None)
            @given(
                path=st.sampled_from(["/kmapi/v1/ext_keys", ACK, "/kmapi/v1/ext_keys/void"]), name=names, body=bodies
            )
            def promise(path, name, body):
                asyncio.run_coroutine_threadsafe(send(path + (f"/{name}" if name else ""), body), loop).result()

            await asyncio.to_thread(promise)
            return two.states()

    assert asyncio.run(act()) == {}
