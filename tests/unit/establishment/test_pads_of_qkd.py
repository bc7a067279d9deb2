"""Pads made of the link's keys: a key that a key manager gives twice is in no second pad."""

from __future__ import annotations

import asyncio

import pytest

from heliograph.agent.pads import PadKeys
from heliograph.errors import KeySupplyError, RemoteProtocolError
from heliograph.establishment.qkd import QkdPad
from heliograph.types import DeliveredKey

NUMBER = 4


def name(number: int) -> str:
    return f"00000000-0000-4000-8000-{number:012x}"


class Manager:
    """A key manager that delivers these keys by number, in this order; a faulty one repeats itself."""

    def __init__(self, *numbers: int) -> None:
        self.numbers = list(numbers)

    async def get_key(self) -> DeliveredKey:
        number = self.numbers.pop(0)
        return DeliveredKey(name(number), bytes([number]) * 32)

    async def get_key_with_id(self, key_id: str) -> DeliveredKey:
        return DeliveredKey(key_id, bytes([int(key_id[-12:], 16)]) * 32)


def test_pads_refuse_a_key_repeated_within_one():
    pad = QkdPad(PadKeys(Manager(1, 2, 2, 3), 5.0), NUMBER)
    with pytest.raises(KeySupplyError, match="a second time"):
        asyncio.run(pad.offer())


def test_pads_refuse_a_key_that_was_in_an_earlier_one():
    async def scenario():
        pad = QkdPad(PadKeys(Manager(1, 2, 3, 4, 5, 6, 1, 7, 8, 9, 10, 11), 5.0), NUMBER)
        await pad.offer()
        with pytest.raises(KeySupplyError, match="a second time"):
            await pad.offer()
        await pad.offer()  # fresh keys make a pad again

    asyncio.run(scenario())


def test_pads_refuse_a_key_that_the_peer_names_again():
    async def scenario():
        theirs, ours = (QkdPad(PadKeys(one, 5.0), NUMBER) for one in (Manager(*range(1, 9)), Manager()))
        first, second = await theirs.offer(), await theirs.offer()
        material, _ = await ours.answer(first.share)
        assert material == first.material
        mixed = second.share[:48] + first.share[:16]
        with pytest.raises(KeySupplyError, match="a second time"):
            await ours.answer(mixed)
        with pytest.raises(RemoteProtocolError):
            await ours.answer(first.share[:16] * NUMBER)

    asyncio.run(scenario())
