"""Key streams of ETSI GS QKD 004 for a pair with keys of several sizes: whole keys of one pool, alike at both sites."""

from dataclasses import replace

import hypothesis.strategies as st
import pytest
from hypothesis import given
from test_etsi004_streams import DESTINATION, QOS, SOURCE, opened, run

from heliograph.kme import stream_messages as m
from heliograph.kme.etsi004 import Status
from heliograph.kme.stream_pools import Pool, nearest_chunk, pool_of

SIZES = (256, 128, 512)


@pytest.mark.parametrize(
    ("chunk", "pool"),
    [
        (16, Pool(16, 1, is_first=False)),
        (32, Pool(32, 1, is_first=True)),
        (48, Pool(16, 3, is_first=False)),
        (64, Pool(32, 2, is_first=True)),  # the first size comes first
        (80, Pool(16, 5, is_first=False)),
        (33, None),
        (8, None),
        (0, None),
    ],
)
def test_the_pool_is_the_first_size_that_fits_or_the_largest(chunk, pool):
    assert pool_of(chunk, (32, 16, 64)) == pool


def test_a_pool_whose_keys_are_longer_serves_what_the_first_does_not():
    assert pool_of(64, (48, 16, 64)) == Pool(64, 1, is_first=False)


@given(st.integers(0, 2**32 - 1), st.lists(st.sampled_from([8, 16, 24, 32, 48, 64, 512]), min_size=1, unique=True))
def test_every_proposal_can_be_met_and_what_can_be_met_is_its_own_proposal(chunk, sizes):
    proposed = nearest_chunk(chunk, 1024, sizes)
    assert pool_of(proposed, sizes) is not None
    assert proposed <= 1024
    assert nearest_chunk(proposed, 1024, sizes) == proposed
    if chunk <= 1024 and pool_of(chunk, sizes):
        assert proposed == chunk
    multiples = {size * n for size in sizes for n in range(1, 1 + 1024 // size)}
    assert proposed == min((each for each in multiples if each >= chunk), default=max(multiples))


@pytest.mark.parametrize("owner_first", [True, False])
@pytest.mark.parametrize(("chunk", "key_bytes"), [(16, 16), (48, 16), (32, 32), (64, 32), (128, 32)])
def test_chunks_of_every_size_agree_and_come_from_the_fitting_pool(tmp_path, chunk, key_bytes, owner_first):
    async def act(w):
        before = {size: w.a.stored(size) for size in (16, 32, 64)}
        ksid = await opened(w.one, w.two, replace(QOS, key_chunk_size=chunk))
        first, second = (w.one, w.two) if owner_first else (w.two, w.one)
        chunks = []
        for index in range(4):
            mine, theirs = await first.get_key(ksid, index), await second.get_key(ksid, index)
            assert mine.key == theirs.key
            assert len(mine.key) == chunk
            chunks.append(mine.key)
        assert len({part[at : at + key_bytes] for part in chunks for at in range(0, chunk, key_bytes)}) == (
            4 * chunk // key_bytes
        )
        for size in {16, 64} - {key_bytes}:
            assert w.a.stored(size) == before[size]
        assert before[key_bytes] - w.a.stored(key_bytes) >= 4 * chunk // key_bytes

    run(act, tmp_path, sizes=SIZES)


def test_streams_of_several_sizes_and_the_messages_between_them_share_no_key(tmp_path):
    async def act(w):
        ksids = [await opened(w.one, w.two, replace(QOS, key_chunk_size=size)) for size in (16, 32, 48)]
        got = []
        for index in range(3):
            for ksid in ksids:
                mine, theirs = await w.one.get_key(ksid, index), await w.two.get_key(ksid, index)
                assert mine.key == theirs.key != b""
                got.append(mine.key)
        parts = [key[at : at + 16] for key in got for at in range(0, len(key), 16)]
        assert len(set(parts)) == len(parts)

    run(act, tmp_path, sizes=SIZES)


def test_a_size_that_no_pool_has_gets_the_nearest_that_one_has(tmp_path):
    async def act(w):
        for asked, proposed in ((17, 32), (40, 48), (100, 112), (8, 16), (129, 128)):
            reply = await w.one.open_connect(SOURCE, DESTINATION, replace(QOS, key_chunk_size=asked))
            assert (reply.status, reply.qos.key_chunk_size) == (Status.QOS_NOT_MET, proposed)

    run(act, tmp_path, sizes=SIZES)


def test_a_pool_that_is_empty_is_status_2_whatever_the_others_hold(tmp_path):
    async def act(w):
        w.a.supply.enc_keys("sae-a", "sae-b", 5, size_bits=128)
        ksid = await opened(w.one, w.two, replace(QOS, key_chunk_size=48))
        assert (await w.one.get_key(ksid, 0)).status is Status.INSUFFICIENT_KEY
        assert w.a.stored(16) == 0 or w.a.stored(16) == 1

    run(act, tmp_path, keys=6, sizes=(256, 128))


def test_keys_of_another_size_than_the_streams_make_no_chunk_and_stay(tmp_path):
    """The other key manager is believed about names of keys, not about what they add up to."""

    async def act(w):
        ksid = await opened(w.one, w.two, replace(QOS, key_chunk_size=16))
        assert (await w.one.get_key(ksid, 0)).status is Status.SUCCESSFUL
        (long,) = w.a.supply.enc_keys("sae-a", "sae-b", 1)
        end = w.b.streams.find(ksid).next_index
        reserve = m.Reserve(ksid, ((end, (long.key_id,)),))
        assert w.b.streams.handle("sae-a", "sae-b", reserve) == m.Done(ok=True)
        reply = await w.two.get_key(ksid, end)
        assert (reply.status, reply.key) == (Status.INSUFFICIENT_KEY, b"")
        assert w.b.supply.dec_keys("sae-b", "sae-a", [long.key_id])[0].material == long.material

    run(act, tmp_path, sizes=SIZES)


def test_a_stream_whose_pool_is_gone_gives_nothing_more(tmp_path):
    async def act(w):
        ksid = await opened(w.one, w.two, replace(QOS, key_chunk_size=48))
        assert (await w.one.get_key(ksid, 0)).status is Status.SUCCESSFUL
        for site in (w.a, w.b):  # registered anew, without keys of 128 bits
            fresh = type(site.supply)
            site.supply.follow(
                fresh(
                    site.keys, f"kme-{site.name}", site.supply._pairs[site.local].values(), site.supply.limits, w.clock
                )
            )
        stored = w.a.stored(16)
        assert w.a.streams.plan_reservation(ksid, 40) is None or w.a.stored(16) == stored
        assert w.b.streams.handle("sae-a", "sae-b", m.Reserve(ksid, ((99, ("x",)),))) == m.Done(ok=False)

    run(act, tmp_path, sizes=SIZES)
