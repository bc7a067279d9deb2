"""Rounds of two sites over a PostgreSQL server, each with one fault; after each, everything that must hold is asked."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

from heliograph.lab.key_marks import KeyMarks
from heliograph.lab.pg_proxy import Fault, FaultyProxy
from heliograph.lab.pg_sites import LOCAL, MASTER, NOBODY, NOW, SLAVE, PgSite, Round, burning, steps_of
from heliograph.lab.postgres import LabPostgres
from heliograph.storage.key_rows import RELEASED

__all__ = ["Rounds", "Seen"]

_OWNER, _HOLDER = "owner", "holder"
_TRIES: Final = 20  # each after the server has answered a session; a killed one still ends the first few of them


@dataclass(frozen=True, slots=True)
class Seen:
    """One round: whether its fault came, whether a step was refused, what was wrong.

    ``burnt``: keys that left and reached nobody; ``delivered``: keys given to masters.
    """

    fired: bool
    refused: bool
    wrong: list[str]
    burnt: int
    delivered: int


class Rounds:
    """Two sites in two databases of ``server``, which runs; they reach it by a proxy in ``directory``."""

    databases: Final = (_OWNER, _HOLDER)

    def __init__(self, directory: Path, server: LabPostgres, seed: int = 1) -> None:
        self.server, self.marks = server, KeyMarks()
        self._number = 0
        self.messages = self.requests = 0  # of the last round, until its end or its fault
        way = directory / "way"
        way.mkdir()
        self.proxy = FaultyProxy(way, server.directory, seed)
        self._sites: list[PgSite] = []
        for name, fronts in ((_OWNER, ("fe-1", "fe-2")), (_HOLDER, ("fe-1",))):
            with server.session() as session:
                session.execute(f"DROP DATABASE IF EXISTS {name}")
                session.execute(f"CREATE DATABASE {name}")
            self._sites.append(PgSite(directory / name, server.conninfo(database=name, by=way), fronts))

    def close(self) -> None:
        """End both sites and the proxy, and leave the server without their databases."""
        for site in self._sites:
            site.close()
        self.proxy.close()
        with suppress(Exception), self.server.session() as session:
            for name in (_OWNER, _HOLDER):
                session.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")

    def run(self, fault: Fault, metadata: str = "{}", mend: Callable[[], None] | None = None) -> Seen:
        """Play one round under ``fault``, bring the server back, and look. ``mend``: what lets it come back.

        Raises ConfigurationError if it stays away.
        """
        owner, holder = self._sites
        play = Round.of(self._number)
        self._number += 1
        self.proxy.drop()  # so that the sessions' beginnings are among what is counted
        self.proxy.arm(fault)
        done = [play.attempt(*step) for step in steps_of(owner, holder, play, metadata)]
        fired = self.proxy.disarm()
        self.messages, self.requests = self.proxy.messages, self.proxy.requests
        if mend is not None:
            mend()
        self.server.come_back()
        self._heal(play)
        self._drain(play)
        wrong = [*play.wrong, *self._wrong(play)]
        burnt = len(self._unseen(play, *self._rows(_OWNER, play)))
        for site in self._sites:  # what reached nobody goes, so that every round finds the same
            play.attempt("clear", partial(site.server.keys.discard, 1, play.blocks[0].number, NOW))
        for key in play.keys.values():
            self.marks.add_key(key)
        for sealed in play.sealed:
            self.marks.add_sealed(sealed)
        delivered = sum(sae == MASTER for sae, _ in play.given)
        return Seen(fired, not all(done), wrong, burnt, delivered)

    # -- after the fault -----------------------------------------------------------------------------------------

    def _heal(self, play: Round) -> None:
        """Do what a site does now and then anyway; nothing is opened anew."""
        owner, holder = self._sites
        numbers = [block.number for block in play.blocks]
        steps = [
            ("hand over at the holder", holder.server.hand_over),
            ("hand over at the owner", owner.server.hand_over),
            ("acknowledge", lambda: owner.acknowledge(numbers)),
        ]
        fronts = [(f"tidy {number}", front.tidy) for number, front in enumerate((*owner.fronts, *holder.fronts))]
        for name, step in (
            *steps,
            *fronts,
            *burning(owner, holder, play),
            ("sweep", owner.sweep),
            ("sweep", holder.sweep),
        ):
            if name.startswith("ask"):
                continue
            for _ in range(_TRIES):
                if play.attempt(name, step):
                    break
                self.server.come_back()
                for _, attend in fronts:  # in a new run of the server each has to be there once
                    play.attempt("tidy", attend)
            else:
                play.wrong.append(f"not back after {_TRIES} tries: {name}")

    def _drain(self, play: Round) -> None:
        """Let every key go the rest of its way, by both front ends, as the next callers would ask."""
        owner, holder = self._sites
        first, second = owner.fronts
        for _ in range(len(play.keys)):
            asked = [play.attempt("drain", partial(play.deliver, front, SLAVE)) for front in (second, first)]
            if not any(asked):
                break
        group = next(slave for slave in play.slaves.values() if slave not in {SLAVE, NOBODY})
        play.attempt("drain", partial(play.deliver, second, group))
        for name, step in burning(owner, holder, play):
            play.attempt(name, step)
        play.attempt("drain", lambda: play.fetch(first, LOCAL, play.of_master(group)))
        (there,) = holder.fronts
        play.attempt("drain", lambda: play.fetch(there, SLAVE, play.of_master(SLAVE) + play.of_master(group)))

    # -- what must hold ------------------------------------------------------------------------------------------

    def _wrong(self, play: Round) -> Iterator[str]:
        slaves = play.slaves
        here, gone = self._rows(_OWNER, play)
        there, fetched = self._rows(_HOLDER, play)
        unseen = self._unseen(play, here, gone)
        for key_id in slaves:
            for where, alive, buried in ((_OWNER, here, gone), (_HOLDER, there, fetched)):
                if (key_id in alive) == (key_id in buried):
                    yield f"{'alive and buried' if key_id in alive else 'lost'} at the {where}: {key_id}"
        for key_id in here.keys() - unseen:
            yield f"stays at the owner: {key_id}, state {here[key_id]}"
        if len(unseen) > play.asked:
            yield f"{len(unseen)} keys left the owner and reached nobody; {play.asked} were asked for in vain"
        # What the owner handed out the holder handed out, and no more: both agree on every count.
        for key_id in (key_id for sae, key_id in play.given if sae == MASTER and slaves[key_id] != NOBODY):
            for sae in (SLAVE,) if slaves[key_id] == SLAVE else (SLAVE, LOCAL):
                if not play.given[sae, key_id] and (sae, key_id) not in play.tried:
                    yield f"the master has it, and {sae} cannot get it: {key_id}"
        if there.keys() != {key_id for key_id in unseen if slaves[key_id] != NOBODY}:
            yield f"counts differ: {len(there)} wait at the holder, {len(unseen)} left the owner unseen"

    @staticmethod
    def _unseen(play: Round, here: dict[str, int], gone: dict[str, str]) -> set[str]:
        """Return the key_IDs that left for a master who was not given them: their answers were lost."""
        left = {key_id for key_id, fate in gone.items() if fate == "delivered"}
        left |= {key_id for key_id, state in here.items() if state == RELEASED}
        return {key_id for key_id in left if not play.given[MASTER, key_id]}

    def _rows(self, database: str, play: Round) -> tuple[dict[str, int], dict[str, str]]:
        ids = list(play.keys)
        with self.server.session(database) as session:
            alive = session.execute("SELECT key_id, state FROM heliograph.key_records WHERE key_id = ANY(%s)", (ids,))
            buried = session.execute(
                "SELECT key_id, fate FROM heliograph.key_tombstones WHERE key_id = ANY(%s)", (ids,)
            )
            return dict(alive.fetchall()), dict(buried.fetchall())
