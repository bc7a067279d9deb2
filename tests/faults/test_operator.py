"""What an operator orders, and what only an operator may end: new epochs, old copies, clones."""

import asyncio
import shutil
import sqlite3

import pytest
from fault_rehearsal import SITES, Consumers, Store, check_stores, new_block, small_blocks, until
from typer.testing import CliRunner

from heliograph.authentication.anchors.psk import slot_range
from heliograph.cli.main import app
from heliograph.errors import ConfigurationError

pytestmark = pytest.mark.slow


def order(rehearsal, name):
    done = CliRunner().invoke(app, ["site", "rebootstrap", "--yes", "--approver", "Ann", str(rehearsal.sites[name])])
    assert done.exit_code == 0, done.output
    assert done.stderr == ""
    return done.stdout


def home(rehearsal, name):
    return rehearsal.sites[name].parent


def burnt(rehearsal, name):
    book = (home(rehearsal, name) / "psk.book").read_bytes()
    return [epoch for epoch in range(1, 17) if not any(book[slice(*slot_range(epoch - 1))])]


def sql(rehearsal, name, *statements):
    with sqlite3.connect(home(rehearsal, name) / "store" / "site.db") as store:
        rows = [store.execute(statement).fetchall() for statement in statements]
    store.close()
    return rows


async def state_says(rehearsal, name, words, seconds=60):
    async def said():
        return words in (await rehearsal.status(name)).link.state

    await until(said, seconds)


def play(scene):
    async def stage():
        rehearsal = small_blocks()
        consumers = Consumers(rehearsal)
        try:
            await rehearsal.start_all()
            await new_block(rehearsal)
            await scene(rehearsal, consumers)
            for name in SITES:
                log = (rehearsal.directory / f"{name}.log").read_text()
                assert "internal error" not in log
                assert "Traceback" not in log
        finally:
            await rehearsal.stop_all()
            rehearsal.remove()

    asyncio.run(stage())


async def stop_sites(rehearsal):
    await asyncio.gather(*(rehearsal.stop(name) for name in SITES if name in rehearsal.processes))


async def start_sites(rehearsal):
    await asyncio.gather(*(rehearsal.start(name) for name in SITES))


def test_an_order_on_both_sites_opens_the_next_epoch():
    async def scene(rehearsal, consumers):
        with pytest.raises(AssertionError, match="another process"):
            order(rehearsal, "site_a")  # a running site's store has one owner
        await stop_sites(rehearsal)
        for name in SITES:
            assert "opens epoch 2" in order(rehearsal, name)
        await start_sites(rehearsal)
        await new_block(rehearsal)
        for name in SITES:
            assert (await rehearsal.status(name)).link.epoch == 2
            assert burnt(rehearsal, name) == [1, 2]
        consumers.start()

        async def delivered():
            return len(consumers.deliveries.slaves) > 50  # the keys of both epochs

        await until(delivered)
        await consumers.stop()
        consumers.deliveries.check()
        assert consumers.deliveries.lost == 0
        await stop_sites(rehearsal)
        check_stores(*(Store.of(rehearsal, name) for name in SITES))

    play(scene)


@pytest.mark.parametrize("ordered", SITES)
def test_an_order_on_one_site_waits_for_the_other_and_spends_one_slot_at_most(ordered):
    async def scene(rehearsal, _):
        other = next(name for name in SITES if name != ordered)
        await stop_sites(rehearsal)
        order(rehearsal, ordered)
        await start_sites(rehearsal)
        await state_says(rehearsal, other, "rebootstrap")
        await state_says(rehearsal, ordered, "rebootstrap")
        made = [(await rehearsal.status(name)).link.blocks for name in SITES]
        await asyncio.sleep(2.0)
        assert [(await rehearsal.status(name)).link.blocks for name in SITES] == made
        assert burnt(rehearsal, ordered) in ([1], [1, 2])
        assert burnt(rehearsal, other) == [1]
        pads = (await rehearsal.status(ordered)).link.pad_sets
        assert pads in {0, 8}
        # The other operator follows, and that is all.
        await stop_sites(rehearsal)
        order(rehearsal, other)
        await start_sites(rehearsal)
        await new_block(rehearsal)
        assert [(await rehearsal.status(name)).link.epoch for name in SITES] == [2, 2]

    play(scene)


def test_the_last_two_slots_open_only_by_an_order():
    async def scene(rehearsal, _):
        await stop_sites(rehearsal)
        for name in SITES:  # as if fourteen attempts had failed before the first key
            sql(rehearsal, name, "UPDATE link_state SET epoch = 14, touched = 0, proved = 0, committed = 0",
                "DELETE FROM link_pads")  # fmt: skip
            (home(rehearsal, name) / "anchor").unlink()
        await start_sites(rehearsal)
        for name in SITES:
            await state_says(rehearsal, name, "last 2 slots")
        assert [burnt(rehearsal, name) for name in SITES] == [[1], [1]]
        await stop_sites(rehearsal)
        for name in SITES:
            order(rehearsal, name)
        await start_sites(rehearsal)
        await new_block(rehearsal)
        assert [(await rehearsal.status(name)).link.epoch for name in SITES] == [15, 15]

    play(scene)


def test_a_restored_store_is_noticed_and_delivers_nothing_again():
    async def scene(rehearsal, consumers):
        await rehearsal.stop("site_a")
        shutil.copytree(home(rehearsal, "site_a") / "store", rehearsal.directory / "backup")
        await rehearsal.start("site_a")
        consumers.start()
        await new_block(rehearsal)
        await new_block(rehearsal)
        await consumers.stop()
        await stop_sites(rehearsal)
        shutil.rmtree(home(rehearsal, "site_a") / "store")
        (rehearsal.directory / "backup").rename(home(rehearsal, "site_a") / "store")
        await refused_as_old_copy(rehearsal)
        for name in SITES:
            order(rehearsal, name)
        await start_sites(rehearsal)
        consumers.start()
        await new_block(rehearsal)
        await new_block(rehearsal)
        await consumers.stop()
        consumers.deliveries.check()
        assert [(await rehearsal.status(name)).link.epoch for name in SITES] == [2, 2]

    play(scene)


async def refused_as_old_copy(rehearsal):
    for _ in range(2):
        with pytest.raises(ConfigurationError, match=r"did not start: heliograph: .*old copy.*rebootstrap"):
            await rehearsal.start("site_a")
        await rehearsal.stop("site_a")
    pads, keys = sql(rehearsal, "site_a", "SELECT count(*) FROM link_pads", "SELECT count(*) FROM key_records")
    assert pads == keys == [(0,)]


def test_a_restored_store_is_noticed_even_if_no_block_was_made_since():
    """Keys left meanwhile: the marks of the link alone would not show it."""

    async def scene(rehearsal, consumers):
        await rehearsal.stop("site_b")  # from here on no block is made
        await rehearsal.stop("site_a")
        shutil.copytree(home(rehearsal, "site_a") / "store", rehearsal.directory / "backup")
        await rehearsal.start("site_a")
        async with consumers.client("site_a") as client:
            first = [await client.get_key() for _ in range(3)]
        await rehearsal.stop("site_a")
        assert len({key.key_id for key in first}) == 3
        shutil.rmtree(home(rehearsal, "site_a") / "store")
        (rehearsal.directory / "backup").rename(home(rehearsal, "site_a") / "store")
        await refused_as_old_copy(rehearsal)

    play(scene)


def test_a_store_and_its_anchors_restored_together_are_noticed_by_the_peer():
    async def scene(rehearsal, _):
        await rehearsal.stop("site_a")
        shutil.copytree(home(rehearsal, "site_a"), rehearsal.directory / "backup")
        await rehearsal.start("site_a")
        await new_block(rehearsal)
        await new_block(rehearsal)
        await rehearsal.stop("site_a")
        shutil.rmtree(home(rehearsal, "site_a"))
        (rehearsal.directory / "backup").rename(home(rehearsal, "site_a"))
        await rehearsal.start("site_a")
        await state_says(rehearsal, "site_a", "the peer proves block")
        status = await rehearsal.status("site_a")
        assert status.link.pad_sets == 0
        assert status.kme.deliverable_keys == 0
        await rehearsal.stop("site_a")

    play(scene)


def test_a_clone_on_another_machine_is_refused_until_an_operator_adopts_it():
    async def scene(rehearsal, _):
        await stop_sites(rehearsal)
        anchor = home(rehearsal, "site_a") / "anchor"
        words = anchor.read_text().split()
        anchor.write_text(f"{words[0]} {words[1]} {'0' * 16}\n")
        with pytest.raises(ConfigurationError, match="another machine"):
            await rehearsal.start("site_a")
        await rehearsal.stop("site_a")
        pads, keys = sql(rehearsal, "site_a", "SELECT count(*) FROM link_pads", "SELECT count(*) FROM key_records")
        assert pads == keys == [(0,)]
        for name in SITES:
            order(rehearsal, name)
        await start_sites(rehearsal)
        await new_block(rehearsal)

    play(scene)


def test_a_crash_between_burning_a_slot_and_opening_its_epoch_costs_that_slot_only():
    async def stage():
        rehearsal = small_blocks()
        try:
            book = home(rehearsal, "site_a") / "psk.book"
            content = bytearray(book.read_bytes())
            start, stop = slot_range(0)
            content[start:stop] = bytes(stop - start)
            book.write_bytes(content)
            await rehearsal.start_all()
            await new_block(rehearsal)
            assert [(await rehearsal.status(name)).link.epoch for name in SITES] == [2, 2]
        finally:
            await rehearsal.stop_all()
            rehearsal.remove()

    asyncio.run(stage())
