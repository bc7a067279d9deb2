"""ETSI GS QKD 004 V2.1.1, call by call and status by status, between two sites' real key managers."""

import asyncio
import ssl
import struct
import uuid
from contextlib import AsyncExitStack
from dataclasses import replace
from types import SimpleNamespace

import pytest
from two_stream_sites import POLICY, stock, two_sites

from heliograph.errors import AuthenticationFailed, KeyNotFound, RemoteProtocolError, TransportClosed
from heliograph.kme import stream_messages as m
from heliograph.kme.etsi004 import JSON, NULL_KSID, Qos, Status
from heliograph.kme.one_time import ATTEMPTS_MAX, read_request
from heliograph.kme.quotas import Quota, Quotas
from heliograph.site.streams import one_time_keys
from heliograph.storage.streams import StreamRecords
from heliograph.transport.etsi004_client import Etsi004Client
from heliograph.transport.tcp import dial

QOS = Qos(32, ttl_s=600, mimetype=JSON)
SOURCE, DESTINATION = "sae:sae-a", "sae:sae-b"


def run(act, directory, **more):
    async def main():
        async with two_sites(directory, **more) as (a, b, clock), AsyncExitStack() as stack:
            apps = [await stack.enter_async_context(site.app()) for site in (a, b)]
            await act(SimpleNamespace(a=a, b=b, clock=clock, one=apps[0], two=apps[1]))

    asyncio.run(main())


async def opened(one, two, qos=QOS):
    """Open a stream at both ends; return its KSID."""
    first = await one.open_connect(SOURCE, DESTINATION, qos)
    second = await two.open_connect(SOURCE, DESTINATION, qos, first.ksid)
    assert (first.status, second.status) == (Status.PEER_NOT_CONNECTED, Status.SUCCESSFUL)
    return first.ksid


def test_both_applications_get_the_same_chunk_for_the_same_index_each_once(tmp_path):
    async def act(w):
        ksid = await opened(w.one, w.two)
        for index in range(12):
            mine, theirs = await w.one.get_key(ksid, index), await w.two.get_key(ksid, index)
            assert (mine.status, theirs.status) == (Status.SUCCESSFUL, Status.SUCCESSFUL), index
            assert mine.key == theirs.key
            assert len(mine.key) == 32
        for app in (w.one, w.two):
            assert (await app.get_key(ksid, 3)).status is Status.INSUFFICIENT_KEY

    run(act, tmp_path)


@pytest.mark.parametrize("owner_first", [True, False])
def test_chunks_of_several_keys_agree_whoever_asks_first(tmp_path, owner_first):
    async def act(w):
        ksid = await opened(w.one, w.two, replace(QOS, key_chunk_size=96))
        first, second = (w.one, w.two) if owner_first else (w.two, w.one)
        keys = [((await first.get_key(ksid, i)).key, (await second.get_key(ksid, i)).key) for i in range(4)]
        assert all(x == y and len(x) == 96 for x, y in keys)
        assert len({x for x, _ in keys}) == 4

    run(act, tmp_path)


def test_a_stream_over_a_further_link_has_that_links_keys_and_asks_that_links_key_manager(tmp_path):
    """The first link of a has no store here and no way to a key manager: whatever went there would fail."""

    async def act(w):
        ksid = await opened(w.one, w.two)
        for index in range(3):
            mine, theirs = await w.one.get_key(ksid, index), await w.two.get_key(ksid, index)
            assert mine.status is Status.SUCCESSFUL
            assert mine.key == theirs.key
        w.a.service.connect({"": w.a.channel})
        assert (await w.one.open_connect(SOURCE, DESTINATION, QOS)).status is Status.NO_QKD_CONNECTION

    run(act, tmp_path, link="a-c")


def test_the_destinations_application_may_open_first(tmp_path):
    async def act(w):
        first = await w.two.open_connect(SOURCE, DESTINATION, QOS)
        second = await w.one.open_connect(SOURCE, DESTINATION, QOS, first.ksid)
        assert (first.status, second.status) == (Status.PEER_NOT_CONNECTED, Status.SUCCESSFUL)
        assert (await w.two.get_key(first.ksid, 0)).key == (await w.one.get_key(first.ksid, 0)).key != b""

    run(act, tmp_path)


def test_uris_that_are_declared_name_their_applications(tmp_path):
    async def act(w):
        first = await w.one.open_connect("qkd://app@a", "qkd://app@b", QOS)
        second = await w.two.open_connect("qkd://app@a", "qkd://app@b", QOS, first.ksid)
        assert second.status is Status.SUCCESSFUL
        assert (await w.two.open_connect(SOURCE, DESTINATION, QOS, first.ksid)).status is Status.KSID_IN_USE

    run(act, tmp_path)


def test_an_application_that_is_not_declared_any_more_gets_no_key_of_its_open_stream(tmp_path):
    async def act(w):
        first = await w.one.open_connect("qkd://app@a", "qkd://app@b", QOS)
        await w.two.open_connect("qkd://app@a", "qkd://app@b", QOS, first.ksid)
        assert (await w.one.get_key(first.ksid, 0)).status is Status.SUCCESSFUL
        everybody = {"qkd://app@a": "sae-a", "qkd://app@b": "sae-b"}
        for now in ({}, {**everybody, "qkd://app@a": "sae-x", "qkd://app@b": "sae-x"}):
            for site, app in ((w.a, w.one), (w.b, w.two)):
                site.streams.declare(now, POLICY)
                reply = await app.get_key(first.ksid, 1)
                assert (reply.status, reply.key) == (Status.PEER_NOT_YET_CONNECTED, b"")
        stored = w.a.stored()
        assert w.a.streams.plan_reservation(first.ksid, 40) is None
        assert w.a.stored() == stored
        for site in (w.a, w.b):
            site.streams.declare(everybody, POLICY)
        assert (await w.one.get_key(first.ksid, 1)).key == (await w.two.get_key(first.ksid, 1)).key != b""

    run(act, tmp_path)


# -- OPEN_CONNECT -----------------------------------------------------------------------------------------------------


def test_a_null_ksid_gets_a_fresh_uuid4_and_does_not_wait(tmp_path):
    async def act(w):
        replies = [await w.one.open_connect(SOURCE, DESTINATION, replace(QOS, timeout_ms=2000)) for _ in range(2)]
        assert {reply.status for reply in replies} == {Status.PEER_NOT_CONNECTED}
        assert {uuid.UUID(bytes=reply.ksid).version for reply in replies} == {4}
        assert replies[0].ksid != replies[1].ksid

    run(act, tmp_path)


def test_a_ksid_agreed_beforehand_blocks_until_the_peer_connects(tmp_path):
    async def act(w):
        ksid, qos = uuid.uuid4().bytes, replace(QOS, timeout_ms=2000)
        waiting = asyncio.create_task(w.one.open_connect(SOURCE, DESTINATION, qos, ksid))
        while w.a.streams.find(ksid) is None:  # noqa: ASYNC110  - it waits inside the product, which has no event for a test
            await asyncio.sleep(0.005)
        second = await w.two.open_connect(SOURCE, DESTINATION, qos, ksid)
        assert (second.status, (await waiting).status) == (Status.SUCCESSFUL, Status.SUCCESSFUL)
        assert (await w.one.get_key(ksid, 0)).key == (await w.two.get_key(ksid, 0)).key != b""

    run(act, tmp_path)


def test_both_may_open_at_the_same_moment(tmp_path):
    async def act(w):
        ksid, qos = uuid.uuid4().bytes, replace(QOS, timeout_ms=2000)
        replies = await asyncio.gather(
            w.one.open_connect(SOURCE, DESTINATION, qos, ksid), w.two.open_connect(SOURCE, DESTINATION, qos, ksid)
        )
        assert {reply.status for reply in replies} == {Status.SUCCESSFUL}
        assert (await w.one.get_key(ksid, 0)).key == (await w.two.get_key(ksid, 0)).key != b""

    run(act, tmp_path)


def test_the_timeout_is_status_6_and_the_peer_is_told(tmp_path):
    async def act(w):
        ksid, qos = uuid.uuid4().bytes, replace(QOS, timeout_ms=50)
        assert (await w.one.open_connect(SOURCE, DESTINATION, qos, ksid)).status is Status.TIMEOUT
        late = await w.two.open_connect(SOURCE, DESTINATION, replace(qos, timeout_ms=0), ksid)
        assert late.status is Status.TIMEOUT
        assert (await w.two.get_key(ksid, 0)).status is Status.PEER_NOT_YET_CONNECTED

    run(act, tmp_path)


def test_a_registered_ksid_returns_the_registered_qos(tmp_path):
    async def act(w):
        first = await w.one.open_connect(SOURCE, DESTINATION, replace(QOS, key_chunk_size=64))
        second = await w.two.open_connect(SOURCE, DESTINATION, replace(QOS, key_chunk_size=32, priority=9), first.ksid)
        assert second.status is Status.SUCCESSFUL
        assert second.qos == first.qos == replace(QOS, key_chunk_size=64)
        assert len((await w.two.get_key(first.ksid, 0)).key) == 64

    run(act, tmp_path)


def test_a_ksid_of_another_application_is_status_5(tmp_path):
    async def act(w):
        first = await w.one.open_connect(SOURCE, DESTINATION, QOS)
        async with w.a.app("sae-a2") as other:
            stolen = await other.open_connect("sae:sae-a2", DESTINATION, QOS, first.ksid)
            assert stolen.status is Status.KSID_IN_USE
            assert (await other.get_key(first.ksid, 0)).status is Status.PEER_NOT_YET_CONNECTED
            assert (await other.close_stream(first.ksid)).status is Status.PEER_NOT_YET_CONNECTED
        assert (await w.one.open_connect(DESTINATION, SOURCE, QOS, first.ksid)).status is Status.KSID_IN_USE

    run(act, tmp_path)


PROPOSALS = {
    "chunk rounded up to whole keys": (replace(QOS, key_chunk_size=33), replace(QOS, key_chunk_size=64)),
    "chunk of nothing": (replace(QOS, key_chunk_size=0), replace(QOS, key_chunk_size=32)),
    "chunk too large": (replace(QOS, key_chunk_size=2**32 - 1), replace(QOS, key_chunk_size=128)),
    "more than is promised": (replace(QOS, min_bps=5000, max_bps=9000), replace(QOS, min_bps=1000, max_bps=9000)),
    "maximum below minimum": (replace(QOS, min_bps=500, max_bps=100), replace(QOS, min_bps=500, max_bps=500)),
    "waits too long": (replace(QOS, timeout_ms=10**6), replace(QOS, timeout_ms=2000)),
    "lives too long": (replace(QOS, ttl_s=10**6), replace(QOS, ttl_s=3600)),
    "lives no moment": (replace(QOS, ttl_s=0), replace(QOS, ttl_s=1)),
    "unsupported metadata": (replace(QOS, mimetype="text/xml"), QOS),
}


@pytest.mark.parametrize("case", PROPOSALS)
def test_qos_that_cannot_be_met_is_status_7_with_a_proposal_that_can(tmp_path, case):
    asked, proposed = PROPOSALS[case]

    async def act(w):
        refused = await w.one.open_connect(SOURCE, DESTINATION, asked)
        assert (refused.status, refused.qos, refused.ksid) == (Status.QOS_NOT_MET, proposed, NULL_KSID)
        assert (await w.one.open_connect(SOURCE, DESTINATION, refused.qos)).status is Status.PEER_NOT_CONNECTED

    run(act, tmp_path)


@pytest.mark.parametrize(
    ("source", "destination"),
    [("sae:sae-a", "sae:sae-x"), ("sae:sae-x", "sae:sae-a"), ("sae:sae-a", "qkd://nobody"), ("sae:sae-a", "sae:sae-a")],
)
def test_ends_that_share_no_key_are_status_4(tmp_path, source, destination):
    async def act(w):
        assert (await w.one.open_connect(source, destination, QOS)).status is Status.NO_QKD_CONNECTION

    run(act, tmp_path)


def test_nobody_opens_a_stream_in_anothers_name(tmp_path):
    async def act(w):
        async with w.a.app("sae-a2") as other:
            assert (await other.open_connect(SOURCE, DESTINATION, QOS)).status is Status.NO_QKD_CONNECTION

    run(act, tmp_path)


def test_without_the_other_key_manager_it_is_status_4_and_no_key_is_spent(tmp_path):
    async def act(w):
        await w.b.peer.close()
        before = w.a.stored()
        for _ in range(3):
            assert (await w.one.open_connect(SOURCE, DESTINATION, QOS)).status is Status.NO_QKD_CONNECTION
        assert w.a.stored() == before

    run(act, tmp_path)


def test_an_application_that_opens_without_end_takes_no_place_from_another(tmp_path, monkeypatch):
    monkeypatch.setattr("two_stream_sites.POLICY", replace(POLICY, streams_max=2))

    async def act(w):
        statuses = [(await w.one.open_connect(SOURCE, DESTINATION, QOS)).status for _ in range(3)]
        assert statuses == [Status.PEER_NOT_CONNECTED] * 2 + [Status.NO_QKD_CONNECTION]
        assert len(w.a.streams._store.all()) == len(w.b.streams._store.all()) == 2
        # At the other site neither, where the streams came from this one.
        opening = m.Opening(uuid.uuid4().bytes, SOURCE, "sae:sae-b2", QOS, connected=True)
        assert w.b.streams.handle("sae-a", "sae-b2", opening).status is Status.SUCCESSFUL
        full = m.Opening(uuid.uuid4().bytes, SOURCE, DESTINATION, QOS, connected=True)
        assert w.b.streams.handle("sae-a", "sae-b", full).status is Status.KSID_IN_USE

    run(act, tmp_path)


# -- GET_KEY ----------------------------------------------------------------------------------------------------------


def test_get_key_before_the_peer_is_there_is_status_3(tmp_path):
    async def act(w):
        first = await w.one.open_connect(SOURCE, DESTINATION, QOS)
        assert (await w.one.get_key(first.ksid, 0)).status is Status.PEER_NOT_YET_CONNECTED
        assert (await w.two.get_key(first.ksid, 0)).status is Status.PEER_NOT_YET_CONNECTED  # not opened here
        assert (await w.one.get_key(uuid.uuid4().bytes, 0)).status is Status.PEER_NOT_YET_CONNECTED

    run(act, tmp_path)


def test_metadata_that_does_not_fit_is_status_8_and_consumes_nothing(tmp_path):
    async def act(w):
        ksid = await opened(w.one, w.two)
        for app in (w.one, w.two):
            refused = await app.get_key(ksid, 0, metadata_size=3)
            assert (refused.status, refused.key) == (Status.METADATA_SIZE, b"")
            w.clock.advance(3)
            given = await app.get_key(ksid, 0, metadata_size=refused.metadata_size)
            assert (given.status, len(given.metadata)) == (Status.SUCCESSFUL, refused.metadata_size)

    run(act, tmp_path)


def test_without_a_mimetype_there_is_no_metadata_and_no_need_for_room(tmp_path):
    async def act(w):
        ksid = await opened(w.one, w.two, replace(QOS, mimetype=""))
        given = await w.one.get_key(ksid, 0, metadata_size=0)
        assert (given.status, given.metadata) == (Status.SUCCESSFUL, b"")

    run(act, tmp_path)


def test_an_exhausted_supply_is_status_2_and_more_key_mends_it(tmp_path):
    async def act(w):
        ksid = await opened(w.one, w.two)
        index = 0
        while (reply := await w.one.get_key(ksid, index)).status is Status.SUCCESSFUL:
            assert (await w.two.get_key(ksid, index)).key == reply.key
            index += 1
        assert reply.status is Status.INSUFFICIENT_KEY
        assert index >= 10
        stock(w.a, w.b, 30)
        mine, theirs = await w.one.get_key(ksid, index), await w.two.get_key(ksid, index)
        assert mine.key == theirs.key != b""

    run(act, tmp_path, keys=24)


def test_an_index_far_ahead_is_status_2_and_takes_no_key(tmp_path):
    async def act(w):
        ksid = await opened(w.one, w.two)
        assert (await w.one.get_key(ksid, 0)).status is Status.SUCCESSFUL
        chunks = len(w.a.streams._store.chunks(ksid))
        assert (await w.one.get_key(ksid, 2**32 - 1)).status is Status.INSUFFICIENT_KEY
        assert len(w.a.streams._store.chunks(ksid)) <= chunks + 32

    run(act, tmp_path)


def test_a_stream_ends_at_the_last_index_and_none_comes_again(tmp_path):
    async def act(w):
        ksid = await opened(w.one, w.two)
        for site in (w.a, w.b):
            records = StreamRecords(site.database)
            records.drop(ksid)
            records.save(replace(records.find(ksid), next_index=2**32 - 2))
        got = [await app.get_key(ksid, index) for index in (2**32 - 2, 2**32 - 1) for app in (w.one, w.two)]
        assert [reply.index for reply in got] == [2**32 - 2] * 2 + [2**32 - 1] * 2
        assert got[0].key == got[1].key != got[2].key == got[3].key != b""
        stored = w.a.stored()
        for index in (2**32 - 1, 0, 7):
            assert (await w.one.get_key(ksid, index)).status is Status.INSUFFICIENT_KEY
        assert w.a.stored() == stored

    run(act, tmp_path)


def test_a_partition_serves_what_was_agreed_and_only_that(tmp_path):
    async def act(w):
        ksid = await opened(w.one, w.two)
        assert (await w.one.get_key(ksid, 0)).key == (await w.two.get_key(ksid, 0)).key
        await w.a.peer.close()
        await w.b.peer.close()
        keys = {}
        for name, app in (("one", w.one), ("two", w.two)):
            index = 1
            while (reply := await app.get_key(ksid, index)).status is Status.SUCCESSFUL:
                keys[name, index] = reply.key
                index += 1
            assert reply.status is Status.NO_QKD_CONNECTION
        assert len(keys) >= 20
        for (name, index), key in keys.items():
            if name == "one":
                assert keys.get(("two", index), key) == key

    run(act, tmp_path)


# -- CLOSE and TTL ----------------------------------------------------------------------------------------------------


def test_after_close_unused_key_is_kept_for_the_peer_until_its_own_close(tmp_path):
    async def act(w):
        ksid = await opened(w.one, w.two)
        assert (await w.one.get_key(ksid, 0)).key == (await w.two.get_key(ksid, 0)).key
        assert (await w.one.close_stream(ksid)).status is Status.SUCCESSFUL
        assert (await w.one.get_key(ksid, 1)).status is Status.PEER_NOT_YET_CONNECTED
        assert (await w.one.close_stream(ksid)).status is Status.PEER_NOT_YET_CONNECTED
        assert w.a.streams._store.chunks(ksid) == []
        assert (await w.two.get_key(ksid, 1)).status is Status.SUCCESSFUL
        held = w.b.keys.counts("sae-a", "sae-b").held
        assert (await w.two.close_stream(ksid)).status is Status.SUCCESSFUL
        assert w.b.streams.find(ksid) is None
        assert w.b.keys.counts("sae-a", "sae-b").held < held  # the stream's unused keys are erased there too

    run(act, tmp_path)


def test_the_ttl_erases_a_streams_keys_at_both_sites(tmp_path):
    async def act(w):
        ksid = await opened(w.one, w.two)
        assert (await w.one.get_key(ksid, 0)).status is Status.SUCCESSFUL
        w.clock.advance(600)
        for app in (w.one, w.two):
            assert (await app.get_key(ksid, 1)).status is Status.INSUFFICIENT_KEY
        chunks = w.b.streams._store.chunks(ksid)
        assert chunks
        for site in (w.a, w.b):
            assert await site.service._in_store(site.streams.expire) == 1
            assert site.streams.find(ksid) is None
        with pytest.raises(KeyNotFound):
            w.b.supply.dec_keys("sae-b", "sae-a", chunks[-1].key_ids)

    run(act, tmp_path)


# -- crashes, and whoever stands in the way ---------------------------------------------------------------------------


def test_streams_survive_a_restart_of_either_key_manager(tmp_path):
    async def act(w):
        ksid = await opened(w.one, w.two)
        assert (await w.one.get_key(ksid, 0)).key == (await w.two.get_key(ksid, 0)).key
        for site in (w.a, w.b):
            await site.stop()
            site.database.close()
            site.open_store()
            await site.start()
        async with w.a.app() as mine, w.b.app() as theirs:
            assert (await mine.get_key(ksid, 0)).status is Status.INSUFFICIENT_KEY
            for index in (1, 2):
                assert (await mine.get_key(ksid, index)).key == (await theirs.get_key(ksid, index)).key != b""

    run(act, tmp_path)


def test_a_reservation_whose_answer_was_lost_is_repeated_not_replaced(tmp_path):
    async def act(w):
        ksid = await opened(w.one, w.two)
        await w.a.service._reserve(ksid, 0)
        with w.a.database.transaction() as cursor:  # as if b's answer had never come
            cursor.execute("UPDATE stream_chunks SET agreed = 0")
        before = w.a.streams._store.chunks(ksid)
        reserved = [chunk.key_ids for chunk in before]
        assert (await w.one.get_key(ksid, 0)).key == (await w.two.get_key(ksid, 0)).key != b""
        assert [chunk.key_ids for chunk in w.a.streams._store.chunks(ksid)][: len(before) - 1] == reserved[1:]

    run(act, tmp_path)


def test_an_index_never_means_two_keys(tmp_path):
    async def act(w):
        ksid = await opened(w.one, w.two)
        await w.a.service._reserve(ksid, 0)
        chunks = w.b.streams._store.chunks(ksid)
        other = m.Reserve(ksid, ((chunks[1].index, (str(uuid.uuid4()),)),))
        assert w.b.streams.handle("sae-a", "sae-b", other) == m.Done(ok=False)
        gap = m.Reserve(ksid, ((chunks[-1].index + 2, (str(uuid.uuid4()),)),))
        assert w.b.streams.handle("sae-a", "sae-b", gap) == m.Done(ok=False)
        # Nor does the site that does not own the stream reserve.
        assert w.a.streams.handle("sae-b", "sae-a", other) == m.Done(ok=False)
        assert w.b.streams._store.chunks(ksid) == chunks

    run(act, tmp_path)


def test_junk_between_the_key_managers_costs_no_key_and_gets_no_answer(tmp_path):
    async def act(w):
        before = [site.keys.counts(*pair) for site in (w.a, w.b) for pair in (("sae-a", "sae-b"), ("sae-b", "sae-a"))]
        made_up = (await _sealed(w.a, m.Closing(uuid.uuid4().bytes)))[1]
        unknown = made_up.replace(uuid.UUID(read_request(made_up).key_ids[0]).bytes, uuid.uuid4().bytes)
        for junk in (b"", b"\x00" * 40, made_up[:-1], unknown):
            transport = await dial("127.0.0.1", w.b.port)
            await transport.send(junk)
            with pytest.raises(TransportClosed):
                await transport.receive()
            await transport.close()
        after = [site.keys.counts(*pair) for site in (w.a, w.b) for pair in (("sae-a", "sae-b"), ("sae-b", "sae-a"))]
        # Two keys went for the message that was sealed here to make the junk from; nothing went at w.b.
        assert after[0].deliverable == before[0].deliverable - 2
        assert after[1:] == before[1:]

    run(act, tmp_path)


async def _sealed(site, message):
    keys = await site.service._in_store(lambda: one_time_keys(site.supply, site.local, site.remote))
    return keys, keys.seal(m.encode(message))


def test_a_changed_message_is_refused_and_costs_nothing_until_it_was_tried_too_often(tmp_path):
    async def act(w):
        ksid = await opened(w.one, w.two)
        for tries in (ATTEMPTS_MAX - 1, ATTEMPTS_MAX):
            _, sealed = await _sealed(w.a, m.Want(ksid, 0))
            forged = sealed.replace(ksid, uuid.uuid4().bytes)
            for _ in range(tries):
                with pytest.raises(AuthenticationFailed):
                    await w.b.service.answer(forged)
            w.b.keys.check_held("sae-b", "sae-a", read_request(sealed).key_ids)
            if tries < ATTEMPTS_MAX:
                await w.b.service.answer(sealed)  # the honest one is not kept out by what others try
            else:
                w.b.streams._store = StreamRecords(w.b.database)  # counts are durable
                with pytest.raises(AuthenticationFailed, match="too many"):
                    await w.b.service.answer(sealed)

    run(act, tmp_path)


def test_who_reads_the_names_of_keys_on_the_line_cannot_destroy_them(tmp_path):
    """A reservation names the keys of chunks in clear: a message that names them again must not take them."""

    async def act(w):
        ksid = await opened(w.one, w.two)
        first = await w.one.get_key(ksid, 0)
        _, sealed = await _sealed(w.a, m.Closing(ksid))
        names = [key_id for chunk in w.b.streams._store.chunks(ksid) for key_id in chunk.key_ids]
        used = read_request(sealed).key_ids
        for pair in zip(names[::2], names[1::2], strict=False):
            forged = sealed
            for old, new in zip(used, pair, strict=True):
                forged = forged.replace(uuid.UUID(old).bytes, uuid.UUID(new).bytes)
            for _ in range(ATTEMPTS_MAX + 2):
                with pytest.raises(AuthenticationFailed):
                    await w.b.service.answer(forged)
        assert (await w.two.get_key(ksid, 0)).key == first.key
        assert (await w.one.get_key(ksid, 1)).key == (await w.two.get_key(ksid, 1)).key

    run(act, tmp_path)


def test_a_replayed_message_is_refused(tmp_path):
    async def act(w):
        ksid = await opened(w.one, w.two)
        keys, sealed = await _sealed(w.a, m.Want(ksid, 0))
        keys.open_reply(await w.b.service.answer(sealed))
        with pytest.raises(KeyNotFound):
            await w.b.service.answer(sealed)

    run(act, tmp_path)


def test_a_forged_reply_is_refused_and_the_call_fails_closed(tmp_path):
    async def act(w):
        keys, sealed = await _sealed(w.a, m.Closing(uuid.uuid4().bytes))
        reply = await w.b.service.answer(sealed)
        for position in range(len(reply)):
            forged = bytearray(reply)
            forged[position] ^= 1
            with pytest.raises((AuthenticationFailed, RemoteProtocolError)):
                keys.open_reply(bytes(forged))
        assert m.read_stream_reply(keys.open_reply(reply)) == m.Done(ok=False)

    run(act, tmp_path)


def test_a_line_that_is_cut_does_not_drain_the_pool(tmp_path):
    async def act(w):
        await w.b.peer.close()
        reached = 0

        async def swallow(_, writer):
            nonlocal reached
            reached += 1
            writer.close()

        false_peer = await asyncio.start_server(swallow, "127.0.0.1", w.b.port)
        before = w.a.stored()
        for _ in range(50):
            assert (await w.one.open_connect(SOURCE, DESTINATION, QOS)).status is Status.NO_QKD_CONNECTION
        false_peer.close()
        assert reached == 1
        assert w.a.stored() == before - 2

    run(act, tmp_path)


# -- who may connect --------------------------------------------------------------------------------------------------


def test_without_a_certificate_there_is_no_connection(tmp_path):
    async def act(w):
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        tls.load_verify_locations(w.a.kme_files[2])
        async with Etsi004Client("127.0.0.1", w.a.server.port, tls) as nobody:
            with pytest.raises(TransportClosed):
                await nobody.open_connect(SOURCE, DESTINATION, QOS)

    run(act, tmp_path)


def test_an_sae_that_is_not_registered_is_cut_off(tmp_path):
    async def act(w):
        before = w.a.stored()
        async with w.a.app("stranger") as stranger:
            with pytest.raises(TransportClosed):
                await stranger.open_connect("sae:stranger", DESTINATION, QOS)
        assert w.a.stored() == before

    run(act, tmp_path)


@pytest.mark.parametrize(
    "junk", [b"GET / HTTP/1.1\r\n\r\n", bytes([2, 0, 0, 4]) + bytes(4), bytes([1, 0, 1, 4]) + struct.pack(">I", 2**31)]
)
def test_a_malformed_request_ends_the_connection_and_nothing_else(tmp_path, junk):
    async def act(w):
        ksid = await opened(w.one, w.two)
        tls = w.a.app()._tls
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", w.a.server.port, ssl=tls, server_hostname="127.0.0.1"
        )
        writer.write(junk)
        assert await reader.read() == b""
        writer.close()
        assert (await w.one.get_key(ksid, 0)).status is Status.SUCCESSFUL

    run(act, tmp_path)


def test_no_chunk_lies_in_the_clear(tmp_path):
    async def act(w):
        ksid = await opened(w.one, w.two)
        keys = [(await w.one.get_key(ksid, 0)).key]
        with w.a.database.reading() as cursor:
            sealed = cursor.execute("SELECT position, sealed FROM stream_chunks").fetchall()
        assert sealed
        keys += [(await w.one.get_key(ksid, position)).key for position, _ in sealed[:4]]
        for path in tmp_path.rglob("site.db*"):
            assert not any(key in path.read_bytes() for key in keys), path

    run(act, tmp_path)


def test_the_rate_of_requests_counts_calls_of_streams_too(tmp_path):
    async def act(w):
        ksid = await opened(w.one, w.two)
        w.a.supply._quotas = Quotas(w.clock, requests=Quota(2, 0.5))
        stored = w.a.stored()
        assert [(await w.one.get_key(ksid, 0)).status for _ in range(3)] == [
            Status.SUCCESSFUL,
            Status.INSUFFICIENT_KEY,  # handed out already
            Status.INSUFFICIENT_KEY,  # beyond the rate
        ]
        assert (await w.one.open_connect(SOURCE, DESTINATION, QOS)).status is Status.INSUFFICIENT_KEY
        assert (await w.two.get_key(ksid, 0)).status is Status.SUCCESSFUL  # an SAE of the other site has its own rate
        w.clock.advance(4.0)
        assert (await w.one.get_key(ksid, 1)).status is Status.SUCCESSFUL
        assert w.a.stored() <= stored

    run(act, tmp_path)


@pytest.mark.parametrize("burst", [1, 4, 17])
def test_a_quota_smaller_than_the_window_lets_a_stream_have_what_it_allows(tmp_path, burst):
    async def act(w):
        w.a.supply._quotas = Quotas(w.clock, keys={("sae-a", "sae-b"): Quota(burst, 1.0)})
        ksid = await opened(w.one, w.two)
        for index in range(6):
            w.clock.advance(20.0)
            assert (await w.one.get_key(ksid, index)).key == (await w.two.get_key(ksid, index)).key != b""

    run(act, tmp_path)


def test_a_chunk_that_was_put_by_is_given_although_the_quota_allows_no_further_one(tmp_path):
    async def act(w):
        w.a.supply._quotas = Quotas(w.clock, keys={("sae-a", "sae-b"): Quota(2, 0.001)})
        ksid = await opened(w.one, w.two)
        for index in (0, 1):
            assert (await w.one.get_key(ksid, index)).key == (await w.two.get_key(ksid, index)).key != b""

    run(act, tmp_path)


def test_idle_strangers_at_the_door_between_key_managers_hold_no_stream_up(tmp_path):
    async def act(w):
        idle = [await dial("127.0.0.1", port) for _ in range(24) for port in (w.a.port, w.b.port)]
        ksid = await opened(w.one, w.two)
        assert (await w.one.get_key(ksid, 0)).key == (await w.two.get_key(ksid, 0)).key
        for transport in idle:
            transport.abort()

    run(act, tmp_path)
