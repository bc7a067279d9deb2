import io

import pytest
from rich.console import Console
from rich.pretty import Pretty

from heliograph.errors import ConfigurationError, InsufficientKeys, KeyNotFound, NotPermitted
from heliograph.kme.groups import SaeGroup
from heliograph.kme.supply import Limits, OwnerUnreachable, RequestRefused, SaePair, Supply
from heliograph.testing.clock import ManualClock
from heliograph.types import StoredKey

PAIRS = (SaePair("sae-a", "sae-b", "kme-b"), SaePair("sae-a", "sae-c", "kme-c"), SaePair("sae-2", "sae-b", "kme-b"))


class ListStore:
    """A key store in a list, which remembers what it was asked."""

    def __init__(self):
        self.keys = []
        self.asked = []

    def deliver_to_master(self, master, slave, number, now, *, keep=0, since=0.0, size_bytes=None, accept=list):  # noqa: ARG002
        self.asked.append(("master", master, slave, number, now))
        if number > len(self.keys):
            raise InsufficientKeys("too few")
        accept(self.keys[:number])
        taken, self.keys = self.keys[:number], self.keys[number:]
        return taken

    def deliver_to_slave(self, slave, master, key_ids, now, accept=list):  # noqa: ARG002
        self.asked.append(("slave", slave, master, tuple(key_ids), now))
        raise KeyNotFound("none here")

    def stored_key_count(self, master, slave, size_bytes=None):  # noqa: ARG002
        self.asked.append(("count", master, slave))
        return len(self.keys)

    def known(self, key_id):
        return key_id == "known"


@pytest.fixture
def store():
    return ListStore()


def supply(store, pairs=PAIRS, **more):
    return Supply(store, "kme-a", pairs, Limits(max_key_per_request=3), ManualClock(7.0), **more)


def test_the_caller_is_master_of_what_it_fetches_and_slave_of_what_it_was_named(store):
    key = StoredKey("1", "sae-a", "sae-b", b"k" * 32)
    store.keys = [key]
    assert supply(store).enc_keys("sae-a", "sae-b", 1) == [key]
    with pytest.raises(KeyNotFound):
        supply(store).dec_keys("sae-a", "sae-c", ["unknown"])
    assert store.asked == [("master", "sae-a", "sae-b", 1, 7.0), ("slave", "sae-a", "sae-c", ("unknown",), 7.0)]


def test_the_status_is_of_the_callers_own_pair(store):
    status = supply(store).status("sae-a", "sae-c")
    assert (status.source_kme, status.target_kme, status.caller_sae, status.peer_sae) == (
        "kme-a",
        "kme-c",
        "sae-a",
        "sae-c",
    )
    assert store.asked == [("count", "sae-a", "sae-c")]


@pytest.mark.parametrize(
    ("caller", "peer", "refusal"),
    [
        ("stranger", "sae-b", NotPermitted),
        ("stranger", "stranger", NotPermitted),
        ("", "sae-b", NotPermitted),
        ("sae-b", "sae-a", NotPermitted),  # an SAE of the other site has its own KME
        ("SAE-A", "sae-b", NotPermitted),
        ("sae-a", "sae-a", RequestRefused),
        ("sae-a", "", RequestRefused),
        ("sae-a", "  ", RequestRefused),
        ("sae-a", "sae-2", RequestRefused),
        ("sae-2", "sae-c", RequestRefused),
    ],
)
def test_who_is_no_registered_pair_never_reaches_the_store(store, caller, peer, refusal):
    for call in (
        lambda: supply(store).status(caller, peer),
        lambda: supply(store).enc_keys(caller, peer, 1),
        lambda: supply(store).dec_keys(caller, peer, ["known"]),
    ):
        with pytest.raises(refusal):
            call()
    assert store.asked == []


@pytest.mark.parametrize("number", [0, -1, 4])
def test_more_than_the_cap_is_refused_before_the_store(store, number):
    with pytest.raises(RequestRefused):
        supply(store).enc_keys("sae-a", "sae-b", number)
    with pytest.raises(RequestRefused):
        supply(store).dec_keys("sae-a", "sae-b", ["known"] * max(number, 0))
    assert store.asked == []


def test_an_unknown_key_is_final_only_when_its_owner_could_be_asked(store):
    away = supply(store, owner_reachable=lambda pair: pair.remote_sae != "sae-b")
    with pytest.raises(OwnerUnreachable):
        away.dec_keys("sae-a", "sae-b", ["known", "unknown"])
    with pytest.raises(KeyNotFound):
        away.dec_keys("sae-a", "sae-b", ["known"])
    with pytest.raises(KeyNotFound):
        away.dec_keys("sae-a", "sae-c", ["unknown"])


@pytest.mark.parametrize(
    "pairs",
    [
        [SaePair("sae-a", "sae-a", "kme-b")],
        [SaePair("", "sae-b", "kme-b")],
        [SaePair("sae-a", "sae-b", "kme-b"), SaePair("sae-a", "sae-b", "kme-c")],
        [SaePair("sae-a", "sae-b", "kme-b"), SaePair("sae-b", "sae-a", "kme-a")],
    ],
)
def test_contradictory_pairs_are_refused(store, pairs):
    with pytest.raises(ConfigurationError):
        supply(store, pairs)


def test_a_stored_key_shows_itself_without_its_key():
    key = StoredKey("1", "sae-a", "sae-b", b"k" * 32, 1.0, "{}", (1, 2))
    console = Console(file=io.StringIO(), width=400)
    console.print(Pretty(key), [key], key)
    for shown in (repr(key), str([key]), console.file.getvalue()):
        assert "sae-b" in shown
        assert "kkkk" not in shown
    assert key == StoredKey("1", "sae-a", "sae-b", b"k" * 32)
    assert key != StoredKey("1", "sae-a", "sae-b", b"l" * 32)
    with pytest.raises(AttributeError):
        key.material = b""


def test_two_saes_with_keys_of_two_stores_are_refused_also_where_one_way_is_a_group_over_other_key_managers(store):
    """A slave names its master and a key_ID: in one of the two stores nobody would look for it."""
    here = frozenset({"sae-a", "sae-2"})
    over_a_link = SaeGroup("sae-a", ("sae-2", "sae-c"), here, "a-c")
    over_key_managers = SaeGroup("sae-a", ("sae-2", "sae-x"), here)
    for groups in ([over_a_link], [over_key_managers]):
        supply(store, (), groups=groups)
    with pytest.raises(ConfigurationError, match="'sae-2' and 'sae-a' share keys over a further link and"):
        supply(store, (), groups=[over_a_link, over_key_managers])
