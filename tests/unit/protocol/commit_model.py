"""The commit protocol as a graph: real sessions and machines, a wire that belongs to Eve, stores that lose nothing.

A global state is (transmitter's site, receiver's site, every frame ever sent). Eve delivers any of those frames at any
time, again and again, in any order, or never, and adds forgeries without a good tag. Either site may crash between any
two actions and starts again from what ``Persist`` made durable. The MAC is a fake that accepts exactly the bytes that
were tagged; the store is a fake with the rules of ``storage.link_records`` and ``storage.commit_records``.

What one site does with one input depends on that site alone, so it is worked out once and kept.
"""

from __future__ import annotations

import hashlib
from collections import deque
from dataclasses import dataclass, field, replace
from functools import lru_cache

import numpy as np
from commit_store import Durable, FakeStore, Site, signature

from heliograph.authentication.pads import PadRole
from heliograph.bits import BitString
from heliograph.errors import RemoteProtocolError
from heliograph.postprocessing.amplification import amplify, seed_size_bytes
from heliograph.protocol import actions as a
from heliograph.protocol import commitment, receiver, transmitter_states
from heliograph.protocol import messages as m
from heliograph.protocol import records as r
from heliograph.protocol.codec import decode
from heliograph.protocol.conversation import Conversation
from heliograph.protocol.cutting import key_counts
from heliograph.protocol.frames import Direction, parse_frame
from heliograph.protocol.identifiers import key_id_bytes, new_key_ids
from heliograph.protocol.session import Session
from heliograph.testing.links import quick_registration
from heliograph.types import BlockId, Disclosed, IntensityCounts, VerifiedBlock

REGISTRATION = quick_registration()
LENGTH = REGISTRATION.parameters[0].secret_key_length
BITS = BitString.from_array(np.random.default_rng(1).integers(0, 2, LENGTH + 200, np.uint8))
SEED = hashlib.shake_256(b"amplification").digest(seed_size_bytes(len(BITS)))
SECRET = amplify(VerifiedBlock(BITS, IntensityCounts((), ()), IntensityCounts((), ()), Disclosed()), SEED, LENGTH)
ONE = IntensityCounts((1,), (0,))
REPORT = r.BlockReport("test", 1, len(BITS), ONE, ONE, Disclosed(), "", None, 0.0, LENGTH, 0, 0, 0)


@dataclass
class Counted:
    """What a search found."""

    states: int = 0
    transitions: int = 0
    locals_tx: int = 0
    locals_rx: int = 0
    violations: list[str] = field(default_factory=list)


class CommitModel:
    """Breadth-first search over everything that can happen from the decider's transcript tag on."""

    def __init__(self, *, blocks=1, crashes=1, forgeries=True, store=None, stop_at_first=True):
        self.blocks = tuple(range(1, blocks + 1))
        self._crashes = crashes
        self._forgeries = forgeries
        self._store = store or FakeStore()
        self._stop = stop_at_first
        self._sites, self._ids = [], {}
        self._frames, self._frame_ids = [], {}
        self._outcomes, self._quiet = {}, {}
        self._tagged = {}

    # Interning.
    def _site_id(self, site):
        key = signature(site)
        if key not in self._ids:
            self._ids[key] = len(self._sites)
            self._sites.append(site)
        return self._ids[key]

    def _frame_id(self, wire):
        if wire not in self._frame_ids:
            self._frame_ids[wire] = len(self._frames)
            self._frames.append(wire)
        return self._frame_ids[wire]

    # The first state: the decider's transcript tag is due, the participant waits for it.
    def _start(self):
        sides = []
        for is_transmitter in (True, False):
            own = Direction.TO_RECEIVER if is_transmitter else Direction.TO_TRANSMITTER
            states, pending = [], []
            for block in self.blocks:
                talk = Conversation(REGISTRATION.identity(), 1, BlockId(block), own)
                parameters = REGISTRATION.parameters[0]
                if is_transmitter:
                    context = transmitter_states.Context(REGISTRATION, parameters, (block + 20,))
                    states.append((block, transmitter_states.Amplifying(context, talk, REPORT, SEED)))
                    pending.append((block, a.Computed("amplify", SECRET)))
                else:
                    verified = VerifiedBlock(BITS, REPORT.test, REPORT.key, Disclosed())
                    states.append((block, receiver.AwaitingSeed(REGISTRATION, talk, parameters, verified, REPORT)))
            stores = tuple((block, Durable()) for block in self.blocks)
            sides.append(Site(is_transmitter, tuple(states), stores, pending=tuple(pending)))
        return sides

    def _session(self, site):
        return Session(REGISTRATION, site.is_transmitter, 1, len(self.blocks), dict(site.blocks))

    # What one site does with one input.
    def outcomes(self, site_id, step_input):
        """Return [(site after, frames sent)]: run through, and cut off by a crash after each action."""
        key = (site_id, step_input)
        if key not in self._outcomes:
            site = self._sites[site_id]
            found = []
            whole = self._run(site, step_input, None)
            if whole is not None:
                found.append(whole[:2])
                if site.crashes < self._crashes and step_input[0] != "crash":
                    found += [self._run(site, step_input, cut)[:2] for cut in range(1, whole[2])]
            self._outcomes[key] = [(self._site_id(s), tuple(map(self._frame_id, sent))) for s, sent in found]
        return self._outcomes[key]

    def _run(self, site, step_input, cut):
        session = self._session(site)
        kind, *rest = step_input
        try:
            match kind:
                case "deliver":
                    session, todo = session.receive(self._frames[rest[0]])
                case "feed":
                    block, event = site.pending[rest[0]]
                    site = replace(site, pending=site.pending[: rest[0]] + site.pending[rest[0] + 1 :])
                    session, todo = session.feed(block, event)
                case "time out":
                    # More impatient than any shell: blocks in doubt are given up too, as far as they let themselves.
                    session, todo = session.give_up(tuple(session.blocks), a.Failed("TimedOut", "patience"))
                case "disconnect":
                    session, todo = session.disconnected()
                case "resume":
                    todo = session.resumptions()
                case "crash":
                    return (*self._crashed(site), 0)
        except RemoteProtocolError:
            return None
        site = self._with_session(site, session)
        return self._carry_out(site, deque(todo), cut)

    def _with_session(self, site, session):
        return replace(site, blocks=tuple(sorted(session.blocks.items())))

    def _carry_out(self, site, todo, cut):
        sent, done = [], 0
        while todo:
            item = todo.popleft()
            if done == cut:
                after, more = self._crashed(site)
                return after, sent + more, done
            done += 1
            site, event = self._do(site, int(item.block), item.action, sent)
            if event is None:
                continue
            if isinstance(event, a.Computed):
                site = replace(site, pending=(*site.pending, (int(item.block), event)))
                continue
            session, more = self._session(site).feed(item.block, event)
            site = self._with_session(site, session)
            todo.extendleft(reversed(more))
        return site, sent, done

    def _crashed(self, site):
        """Forget everything volatile; the next connection repeats what the store says."""
        stored = [r.StoredCommitment(BlockId(b), d.stage, d.refills, LENGTH, d.wire) for b, d in site.stores if d.wire]
        session = Session.resumed(
            REGISTRATION, is_transmitter=site.is_transmitter, epoch=1, floor=len(self.blocks), stored=stored
        )
        after = replace(site, in_use=frozenset(), pending=(), crashes=site.crashes + 1)
        after = self._with_session(after, session)
        return after, [x.action.frame.wire() for x in session.resumptions()]

    def _do(self, site, block, action, sent):
        match action:
            case a.Send(frame):
                sent.append(frame.wire())
                return self._watch_send(site, block, frame), None
            case a.Tag(role, covered):
                after = self._store.burn(site, block, role)
                if after is None:
                    return site, a.Failed("PadsExhausted", "no pad")
                return after, a.Tagged(role, fake_tag(role, covered))
            case a.CheckTag(role, covered, tag):
                if not self._store.attempt(site, block, role) or tag != fake_tag(role, covered):
                    return site, a.TagRefused(role)
                digest = hashlib.sha256(b"".join(covered)).digest()
                site = replace(site, accepted=site.accepted | {(block, role, digest)})
                return self._store.accepted(site, block, role), a.TagAccepted(role)
            case a.Draw(size):
                # Fresh after each crash: what was drawn and not stored is gone.
                label = f"{site.is_transmitter} {block} {site.crashes}".encode()
                return site, a.Drawn(hashlib.shake_256(label).digest(size))
            case a.Compute(job, _, _):
                assert job == "amplify"
                return site, a.Computed(job, SECRET)
            case a.Persist(record):
                return self._store.persist(site, record), None
            case a.Discard():
                return self._store.discard(site, block), None
            case _:
                return site, None

    def _watch_send(self, site, block, frame):
        """Security.md 3: every message is stored before it is sent."""
        message, durable = decode(frame.body), site.store(block)
        stored = {m.ParticipantAccept: "local", m.Acknowledgement: "obeyed"}
        if isinstance(message, m.Decision | m.Settlement | m.Acknowledgement | m.ParticipantAccept):
            ok = durable.wire == frame.wire() or (type(message) in stored and durable.stage == "ended")
            if not ok:
                return replace(site, broken=(*site.broken, f"{type(message).__name__} was sent before it was stored"))
        return site

    # The whole.
    def _inputs(self, site, network):
        """Every input this site may get now."""
        own = Direction.TO_RECEIVER if site.is_transmitter else Direction.TO_TRANSMITTER
        yield from (("deliver", f) for f in network if parse_frame_cached(self._frames[f]).direction != own)
        yield from (("feed", i) for i in range(len(site.pending)))
        yield from (("time out",), ("disconnect",), ("resume",))
        if site.crashes < self._crashes:
            yield ("crash",)

    def search(self, states_max=2_000_000):
        """Visit every reachable state; return the counts and what was found wrong."""
        counted = Counted()
        network = frozenset(self._frame_id(w) for w in (forged_frames(self.blocks) if self._forgeries else ()))
        start = (*(self._site_id(s) for s in self._start()), network)
        seen, todo = {start}, deque([start])
        while todo:
            state = todo.popleft()
            counted.violations += self._violations(state)
            if counted.violations and self._stop:
                break
            for which in (0, 1):
                for step_input in self._inputs(self._sites[state[which]], state[2]):
                    for after, sent in self.outcomes(state[which], step_input):
                        counted.transitions += 1
                        pair = (after, state[1]) if which == 0 else (state[0], after)
                        following = (*pair, state[2] | frozenset(sent) if sent else state[2])
                        if following not in seen:
                            seen.add(following)
                            todo.append(following)
            assert len(seen) <= states_max, "the model grew beyond its bound"
        counted.states = len(seen)
        counted.locals_tx = len({s[0] for s in seen})
        counted.locals_rx = len({s[1] for s in seen})
        return counted

    def _violations(self, state):
        tx, rx = self._sites[state[0]], self._sites[state[1]]
        found = [*tx.broken, *rx.broken]
        for block in self.blocks:
            ours, theirs = tx.store(block), rx.store(block)
            if not set(ours.deliverable) <= set(theirs.held) or not set(theirs.deliverable) <= set(ours.held):
                found.append("a key is deliverable on one side only")
            if {ours.fate, theirs.fate} == {"commit", "abort"}:
                found.append("one side committed what the other aborted")
            if (ours.discarded and ours.fate == "commit") or (theirs.discarded and theirs.fate == "commit"):
                found.append("a committed block was discarded")
            if theirs.fate == "commit" and ours.fate != "commit":
                found.append("the participant committed without the decider")
        if any(len({(b, role) for b, role, _ in s.accepted}) != len(s.accepted) for s in (tx, rx)):
            found.append("two byte strings were accepted under one pad")
        words = {}
        for wire in (self._frames[f] for f in state[2]):
            frame = parse_frame_cached(wire)
            if frame.tagged and frame.tag != FORGED:
                words.setdefault((frame.direction, frame.block, type(decode(frame.body))), set()).add(wire)
        if any(len(strings) > 1 for strings in words.values()):
            found.append("two byte strings under one pad")
        if (state[0], state[1]) not in self._quiet:
            self._quiet[state[:2]] = self._ends_well(state[0], state[1])
        return found + self._quiet[state[:2]]

    def _ends_well(self, tx, rx):
        """From here, honest connections and patience bring both sides to the same end."""
        sides = [tx, rx]
        for _ in range(2):
            self._honest_connection(sides)
        left = []
        for side in sides:
            session = self._session(self._sites[side])
            if session.open_blocks() or session.doubtful_blocks():
                left.append("a block stays in doubt for ever")
        for block in self.blocks:
            ours, theirs = (self._sites[s].store(block) for s in sides)
            if (ours.fate == "commit") != (theirs.fate == "commit"):
                left.append("the sides never agree")
            if ours.fate == "commit" and not (ours.deliverable and theirs.deliverable):
                left.append("a committed key never becomes deliverable")
        return left

    def _honest_connection(self, sides):
        queue = deque()
        for which in (0, 1):
            for step_input in (("disconnect",), ("resume",)):
                self._honest(sides, which, step_input, queue, connected=step_input != ("disconnect",))
        for _ in range(2):
            while queue or any(self._sites[s].pending for s in sides):
                if queue:
                    self._honest(sides, *queue.popleft(), queue, connected=True)
                else:
                    which = 0 if self._sites[sides[0]].pending else 1
                    self._honest(sides, which, ("feed", 0), queue, connected=True)
            for which in (0, 1):
                self._honest(sides, which, ("time out",), queue, connected=True)
        assert not queue

    def _honest(self, sides, which, step_input, queue, *, connected):
        done = self.outcomes(sides[which], step_input)
        if not done:
            return
        sides[which], sent = done[0]
        if connected:
            queue.extend((1 - which, ("deliver", f)) for f in sent)


FORGED = b"forged tag 16 by"


def forged_frames(blocks):
    """Return what Eve can say without a pad: every commit message, good in form, and giving up."""
    made = []
    for block in blocks:
        context = commitment.CommitContext(REGISTRATION, REGISTRATION.identity(), 1, BlockId(block), LENGTH)
        ids = [hashlib.shake_256(b"eve %d %d" % (block, i)).digest(16) for i in range(200)]
        own, peer = key_counts(block, LENGTH, 1, REGISTRATION)

        def names(number, ids=tuple(ids)):
            return key_id_bytes(new_key_ids(b"".join(ids[:number])))

        down, up = Direction.TO_RECEIVER, Direction.TO_TRANSMITTER
        for direction, role, message in (
            (down, PadRole.DECISION, m.Decision(commit=False, refill_for=(), key_ids=b"")),
            (down, PadRole.DECISION, m.Decision(commit=True, refill_for=(block + 9,), key_ids=names(own))),
            (up, PadRole.ACKNOWLEDGEMENT, m.Acknowledgement(commit=True, key_ids=names(peer))),
            (up, PadRole.ACKNOWLEDGEMENT, m.Acknowledgement(commit=False, key_ids=b"")),
            (down, PadRole.SETTLEMENT, m.Settlement()),
        ):
            made.append(replace(commitment.commit_frame(context, direction, role, message), tag=FORGED).wire())
        for own_direction, sequence, seen in ((down, 0, 0), (up, 0, 0), (up, 0, 1), (down, 1, 0)):
            talk = Conversation(REGISTRATION.identity(), 1, BlockId(block), own_direction)
            frame = talk.draft(m.BlockAbandoned("Eve"))
            made.append(replace(frame, sequence=sequence, last_seen=seen).wire())
        accept = Conversation(REGISTRATION.identity(), 1, BlockId(block), up).draft(m.ParticipantAccept(), tagged=True)
        made += [replace(accept, last_seen=seen, tag=FORGED).wire() for seen in (0, 1)]
        seed = Conversation(REGISTRATION.identity(), 1, BlockId(block), down).draft(
            m.AmplificationSeed(LENGTH, SEED), tagged=True
        )
        made.append(replace(seed, tag=FORGED).wire())
    return made


@lru_cache(maxsize=100_000)
def parse_frame_cached(wire):
    return parse_frame(wire)


def fake_tag(role, covered):
    """Return what only the owner of the pad can make, as far as this model's Eve is concerned."""
    return hashlib.sha256(bytes([role]) + b"".join(covered)).digest()[:16]
