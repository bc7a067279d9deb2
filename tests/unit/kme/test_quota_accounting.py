"""A quota counts what was handed out: what could not be made durable is given back, what can never be is refused."""

import pytest

from heliograph.errors import StoreUnavailable
from heliograph.kme.etsi014 import error_answer
from heliograph.kme.quotas import Quota, Quotas, TooManyRequests
from heliograph.kme.supply import Limits, RequestRefused, SaePair, Supply
from heliograph.testing.clock import ManualClock
from heliograph.types import StoredKey


class Keys:
    """Has every key that is asked for; its disk may be full after the keys were looked at."""

    full = False

    def deliver_to_master(self, master, slave, number, now, *, keep=0, since=0.0, size_bytes=None, accept=list):
        del now, keep, since, size_bytes
        keys = [StoredKey(f"key {n}", master, slave, bytes(32)) for n in range(number)]
        accept(keys)
        if self.full:
            raise StoreUnavailable("the disk is full")
        return keys


@pytest.fixture
def keys():
    return Keys()


@pytest.fixture
def supply(keys):
    clock = ManualClock(0.0)
    quotas = Quotas(clock, keys={("sae-a", "sae-b"): Quota(4, 0.001)})
    return Supply(keys, "kme-a", [SaePair("sae-a", "sae-b", "kme-b")], Limits(), clock, quotas=quotas)


def test_keys_that_could_not_be_made_durable_do_not_count(supply, keys):
    keys.full = True
    for _ in range(3):
        with pytest.raises(StoreUnavailable):
            supply.enc_keys("sae-a", "sae-b", 4)
    keys.full = False
    assert len(supply.enc_keys("sae-a", "sae-b", 4)) == 4
    with pytest.raises(TooManyRequests):
        supply.enc_keys("sae-a", "sae-b", 1)


def test_what_a_group_lost_is_given_back_and_never_more_than_the_burst(supply):
    supply.enc_keys("sae-a", "sae-b", 3)
    supply.give_back("sae-a", "sae-b", 3)
    assert len(supply.enc_keys("sae-a", "sae-b", 4)) == 4
    for _ in range(5):
        supply.give_back("sae-a", "sae-b", 4)
    assert len(supply.enc_keys("sae-a", "sae-b", 4)) == 4
    with pytest.raises(TooManyRequests):
        supply.enc_keys("sae-a", "sae-b", 1)


def test_a_refused_request_gives_nothing_back(supply):
    supply.enc_keys("sae-a", "sae-b", 3)
    for _ in range(3):
        with pytest.raises(TooManyRequests):
            supply.enc_keys("sae-a", "sae-b", 2)
    with pytest.raises(TooManyRequests):
        supply.enc_keys("sae-a", "sae-b", 2)


def test_a_number_that_no_waiting_could_serve_is_a_400_and_takes_nothing(supply):
    with pytest.raises(RequestRefused, match="exceeds the quota of this pair of SAEs, 4 keys at once") as refusal:
        supply.enc_keys("sae-a", "sae-b", 5)
    assert error_answer(refusal.value)[0] == 400
    assert len(supply.enc_keys("sae-a", "sae-b", 4)) == 4
