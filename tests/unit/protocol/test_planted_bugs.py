"""Bugs planted on purpose: each must be caught by a check that the real code passes (security.md 11)."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from commit_store import STORED_ROLES
from planted_bugs import (
    DeliversAtDecision,
    DeliversUnsettled,
    DestroysTheDecisionPad,
    ErasedBeforeStored,
    ErasedWhenAccepted,
    plant_abandonment_after_commit,
    plant_abort_without_answer,
    plant_acknowledged_anew,
    plant_attempts_after_the_comparison,
    plant_attempts_in_memory,
    plant_believed_marks,
    plant_bodies_only_covered,
    plant_changed_mind,
    plant_deferred_closure_check,
    plant_forgetful_restart,
    plant_impatient_participant,
    plant_nameless_tags,
    plant_no_prefilter,
    plant_no_resumption,
    plant_one_direction_covered,
    plant_pads_not_burnt,
    plant_parities_b_forgotten,
    plant_retry_after_a_failed_tag,
    plant_unchecked_acknowledgement,
    plant_unchecked_decision,
    sends_first,
)
from planted_checks import (
    check_a_failed_tag_destroys_the_block,
    check_a_forged_mark_changes_nothing,
    check_a_tag_is_bound_to_its_link,
    check_attempts_come_before_the_comparison,
    check_attempts_survive_a_restart,
    check_both_directions_are_charged,
    check_burnt_pads_stay_burnt,
    check_every_frame_is_covered,
    check_junk_costs_nothing,
    check_last_seen_is_covered,
    check_model,
    check_no_reveal_after_an_altered_closure,
)

from heliograph.protocol import commitment, receiver, transmitter
from heliograph.protocol import records as r
from heliograph.storage import link_records

BEFORE_STORED = "sent before it was stored"
ONE_SIDED = "deliverable on one side only"
IN_DOUBT = "in doubt for ever"
DISAGREED = "the sides never agree"


@dataclass(frozen=True)
class Bug:
    plant: object
    check: object
    machine: object = None
    store: type | None = None
    shows: str = ""


def nothing(*_):
    """Plant nothing: the fake store carries the bug."""


BUGS = {
    "decision sent before it is stored": Bug(
        sends_first(r.DecidedCommit), check_model, transmitter, shows=BEFORE_STORED
    ),
    "acceptance sent before COMMITTED_LOCAL is stored": Bug(
        sends_first(r.CommittedLocal), check_model, receiver, shows=BEFORE_STORED
    ),
    "acknowledgement sent before it is stored": Bug(
        sends_first(r.ObeyedCommit), check_model, commitment, shows=BEFORE_STORED
    ),
    "settlement sent before it is stored": Bug(
        sends_first(r.PeerAcknowledged), check_model, commitment, shows=BEFORE_STORED
    ),
    "commit pads erased before their message is stored": Bug(
        nothing, check_model, store=ErasedBeforeStored, shows=IN_DOUBT
    ),
    "accepted commit pads erased before the record": Bug(
        nothing, check_model, store=ErasedWhenAccepted, shows=IN_DOUBT
    ),
    "decision pad destroyed with the block": Bug(nothing, check_model, store=DestroysTheDecisionPad, shows=IN_DOUBT),
    "keys delivered at the decision": Bug(nothing, check_model, store=DeliversAtDecision, shows=ONE_SIDED),
    "keys delivered before the settlement": Bug(nothing, check_model, store=DeliversUnsettled, shows=ONE_SIDED),
    "abort told once only": Bug(plant_abort_without_answer, check_model, shows=IN_DOUBT),
    "unauthenticated abort honoured after COMMITTED_LOCAL": Bug(
        plant_abandonment_after_commit, check_model, shows=DISAGREED
    ),
    "participant gives up by itself": Bug(plant_impatient_participant, check_model, shows=DISAGREED),
    "decider changes its mind": Bug(plant_changed_mind, check_model, shows="a committed block was discarded"),
    "decision obeyed without its tag": Bug(
        plant_unchecked_decision, check_model, shows="the participant committed without the decider"
    ),
    "acknowledgement believed without its tag": Bug(plant_unchecked_acknowledgement, check_model, shows=ONE_SIDED),
    "decision acknowledged anew": Bug(plant_acknowledged_anew, check_model, shows="two byte strings under one pad"),
    "restart forgets COMMITTED_LOCAL": Bug(plant_forgetful_restart, check_model, shows=DISAGREED),
    "nothing is repeated on a new connection": Bug(plant_no_resumption, check_model, shows=IN_DOUBT),
    "closure checked at the end only": Bug(plant_deferred_closure_check, check_no_reveal_after_an_altered_closure),
    "retry after a failed tag": Bug(plant_retry_after_a_failed_tag, check_a_failed_tag_destroys_the_block),
    "transcript tag over one direction": Bug(plant_one_direction_covered, check_every_frame_is_covered),
    "interleaving not covered": Bug(plant_bodies_only_covered, check_last_seen_is_covered),
    "tag not bound to the link": Bug(plant_nameless_tags, check_a_tag_is_bound_to_its_link),
    "pads not burnt": Bug(plant_pads_not_burnt, check_burnt_pads_stay_burnt),
    "attempt count lost at restart": Bug(plant_attempts_in_memory, check_attempts_survive_a_restart),
    "attempt not counted": Bug(plant_attempts_after_the_comparison, check_attempts_come_before_the_comparison),
    "forged mark wipes the pool": Bug(plant_believed_marks, check_a_forged_mark_changes_nothing),
    "parities_b forgotten": Bug(plant_parities_b_forgotten, check_both_directions_are_charged),
    "junk is looked at": Bug(plant_no_prefilter, check_junk_costs_nothing),
}


def run_check(bug, tmp_path):
    if bug.check is check_model:
        check_model(tmp_path, bug.store() if bug.store else None)
    else:
        bug.check(tmp_path)


@pytest.mark.parametrize("name", BUGS)
def test_planted_bug_is_caught(name, monkeypatch, tmp_path):
    bug = BUGS[name]
    bug.plant(monkeypatch, bug.machine)
    with pytest.raises((AssertionError, pytest.fail.Exception)) as caught:
        run_check(bug, tmp_path)
    assert bug.shows in str(caught.value)  # caught for what it is


@pytest.mark.parametrize("check", sorted({b.check for b in BUGS.values()}, key=lambda c: c.__name__))
def test_the_real_code_passes(check, tmp_path):
    check(tmp_path)


def test_the_stored_roles_of_model_and_store_are_the_same():
    assert STORED_ROLES == link_records._STORED_ROLES
