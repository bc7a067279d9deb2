"""``heliograph kme-chaos``: faults at every call of the key stores, or malformed requests at the door; what held."""

from __future__ import annotations

import asyncio
import dataclasses
import json
from pathlib import Path
from typing import Annotated

import msgspec
import typer

from heliograph.cli.refusals import refusals
from heliograph.errors import ConfigurationError
from heliograph.lab.chaos import ChaosReport, Plan, run_chaos
from heliograph.lab.front_end_kills import FrontEndReport, run_front_end_kills
from heliograph.lab.malformed_flood import MalformedReport, send_malformed
from heliograph.lab.malformed_over_tls import OverTlsReport, send_malformed_over_tls
from heliograph.lab.partitions import PartitionReport, Scene, run_partitions
from heliograph.lab.pg_faults import PgFaultReport, PgPlan, run_pg_faults

__all__ = ["kme_chaos"]


# What belongs to one kind of fault only, by parameter.
_BELONGS = {
    **dict.fromkeys(("rounds", "kill_points", "images", "error_points", "directory"), "the faults of disks"),
    "over_tls": "--malformed",
    "between": "--partitions",
}


def kme_chaos(
    context: typer.Context,
    rounds: Annotated[int, typer.Option(min=1, help="Blocks in one run.")] = 10,
    kill_points: Annotated[int, typer.Option(min=0, help="Calls to kill at; 0 for every one.")] = 0,
    images: Annotated[int, typer.Option(min=0, help="Disks after a power loss.")] = 10_000,
    error_points: Annotated[int, typer.Option(min=0, help="Calls to fail; 0 for every one.")] = 0,
    malformed: Annotated[
        int | None,
        typer.Option(min=1, max=100_000_000, help="Instead: send this many malformed ETSI GS QKD 014 requests."),
    ] = None,
    over_tls: Annotated[
        bool, typer.Option("--over-tls", help="With --malformed: broken HTTP and TLS too, over real connections.")
    ] = False,
    partitions: Annotated[
        int | None,
        typer.Option(min=1, max=100_000, help="Instead: cut parts from each other so often, pair after pair."),
    ] = None,
    between: Annotated[
        list[Scene] | None,
        typer.Option(help="With --partitions: of these parts only; may be given several times."),
    ] = None,
    front_end_kills: Annotated[
        int | None,
        typer.Option(min=1, max=10_000, help="Instead: kill front ends of a PostgreSQL server so often."),
    ] = None,
    postgresql: Annotated[
        int | None,
        typer.Option(min=1, max=1_000_000, help="Instead: break so many messages between two sites and PostgreSQL."),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Chooses what a disk has lost, which requests, which moments.")] = 1,
    directory: Annotated[Path | None, typer.Option(help="Where the stores are made; the system's choice.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document on standard output.")] = False,
) -> None:
    """Break two real stores at every call that changes a file: kill -9, power loss, I/O errors, a full disk.

    With --malformed: send requests to a key manager in this process, without HTTP and TLS; exit code 1 if one was
    answered with a 5xx or with 200, if a key's marker came out, or if a key was lost. With --over-tls: to a process of
    its own, over TLS, from four SAEs at once, with a valid request after every ten.

    With --partitions: relays between two sites, their SAEs and PostgreSQL, between key managers, agents and their key
    managers, and nodes of a network are cut and healed in turn while keys are fetched and a tunnel carries a payload.
    With --front-end-kills: three front ends are killed by kill -9 while keys are fetched. Exit code 1 if a key came
    twice or differed, one was lost, something was sent under a key that the other end had not or in clear, or a service
    did not come back.

    With --postgresql: two sites commit, reserve, deliver, burn and sweep over a PostgreSQL server that is cut off at a
    message, answers it with an error, has a full disk, or is killed; a front end is asked over TLS meanwhile. Exit code
    1 if anything did not hold.
    """
    with refusals(as_json=as_json):
        kinds = {"malformed": malformed, "partitions": partitions, "front-end-kills": front_end_kills}
        kinds["postgresql"] = postgresql
        _refuse_what_does_not_fit(context, [f"--{name}" for name, number in kinds.items() if number is not None])
        if malformed is not None:
            answered = _malformed(malformed, seed, over_tls=over_tls)
            if as_json:
                print(json.dumps({**dataclasses.asdict(answered), "sound": answered.sound}))
            else:
                _print_answers(answered)
            sound = answered.sound
        elif partitions is not None:
            cut = asyncio.run(run_partitions(partitions, seed, between or ()))
            print(json.dumps({**dataclasses.asdict(cut), "sound": cut.sound})) if as_json else _print_cuts(cut)
            sound = cut.sound
        elif front_end_kills is not None:
            killed = asyncio.run(run_front_end_kills(front_end_kills, seed))
            print(json.dumps({**dataclasses.asdict(killed), "sound": killed.sound})) if as_json else _print_kills(
                killed
            )
            sound = killed.sound
        elif postgresql is not None:
            broken = run_pg_faults(PgPlan.of(postgresql, seed))
            print(json.dumps({**dataclasses.asdict(broken), "sound": broken.sound})) if as_json else _print_broken(
                broken
            )
            sound = broken.sound
        else:
            report = run_chaos(Plan(rounds, kill_points, images, error_points, seed), directory)
            if as_json:
                print(msgspec.json.encode(report).decode())
            else:
                _print_faults(report)
            sound = report.verdict == "holds"
        if not sound:
            raise typer.Exit(1)


def _refuse_what_does_not_fit(context: typer.Context, chosen: list[str]) -> None:
    """Raise ConfigurationError for options that would be passed over."""
    if len(chosen) > 1:
        raise ConfigurationError("give only one of --malformed, --partitions, --front-end-kills and --postgresql")
    kind = chosen[0] if chosen else "the faults of disks"
    for name, owner in _BELONGS.items():
        source = context.get_parameter_source(name)
        if owner != kind and source is not None and source.name != "DEFAULT":
            option = f"--{name.replace('_', '-')}"
            remedy = "leave one of the two out" if chosen else f"give {owner} too"
            raise ConfigurationError(f"{option} belongs to {owner}, not to {kind}: {remedy}")


def _print_faults(report: ChaosReport) -> None:
    print(f"{report.calls} calls in {report.rounds} blocks, {report.elapsed_s} s: {report.verdict}")
    for name in ("kill", "torn_kill", "power_loss", "io_error", "disk_full"):
        tally = getattr(report, name)
        print(f"  {name.replace('_', ' ')}: {tally.points} points, {tally.violations} violations")
    for line in report.found:
        print(f"  {line}")


def _print_cuts(report: PartitionReport) -> None:
    cuts = sum(pair.cuts for pair in report.pairs.values())
    print(f"{cuts} cuts in {report.seconds} s; {report.fetched} keys fetched; {report.payloads} payloads crossed")
    for name, pair in report.pairs.items():
        times = pair.resume_s
        took = (
            f"back after {times[len(times) // 2]} s (median), {times[-1]} s (longest)"
            if times
            else "not back"
            if pair.cuts
            else "not cut"
        )
        how = f"{pair.hard} hard, {pair.one_way} one way, {pair.lost} that lost connections"
        print(f"  {name}: {pair.cuts} cuts, {how}; {took}; stuck: {pair.stuck}")
        print(f"    keys fetched while it was cut: {pair.served_during}; then until it was back: ", end="")
        print(pair.served_until_resumed)
    for name, why in report.not_cut.items():
        print(f"  {name}: not cut: {why}")
    print(f"keys twice: {report.duplicates}; disagreements: {report.disagreements}; burnt on the way: {report.burnt}")
    print(f"sent under a key that the other end had not: {report.under_unknown_key}; ", end="")
    print(f"under one that was too old: {report.under_old_key}; bytes in clear: {report.bytes_in_clear}")
    print(
        f"tunnel closed for want of a key: {report.closed} times; its responder stopped {report.outlived_s} s ", end=""
    )
    print(f"after its initiator at most; errors in logs: {report.log_errors}")


def _print_kills(report: FrontEndReport) -> None:
    print(f"{report.kills} front ends and {report.server_kills} servers killed in {report.seconds} s")
    print(f"keys: {report.keys}; delivered: {report.delivered}; twice: {report.duplicates}; other bytes: ", end="")
    print(
        f"{report.other_bytes}; left: {report.left}; burnt on the way: {report.burnt} (at most {report.burnt_at_most})"
    )
    times = report.back_s
    print(f"back after {times[len(times) // 2]} s (median), {times[-1]} s (longest); tracebacks: {report.tracebacks}")


def _print_broken(report: PgFaultReport) -> None:
    print(f"{report.messages} messages, {report.requests} requests in one round; {report.seconds} s: ", end="")
    print("holds" if report.sound else "fails")
    for name, tally in report.tallies.items():
        if not tally.points and not tally.violations:
            continue  # what was measured first, without a fault
        print(f"  {name}: {tally.points} points, {tally.violations} violations; a step was refused at {tally.refused}")
    for name, why in report.not_tried.items():
        print(f"  {name}: not tried: {why}")
    print(f"keys delivered: {report.delivered}; burnt on the way: {report.burnt}; lines of the server's log ", end="")
    print(f"with a key: {report.key_in_logs}, with a block's sealed key: {report.sealed_in_logs}")
    if (door := report.door) is not None:
        print(f"{door.faults} faults behind a front end: answers {door.statuses}; wrong: {door.wrong}; ", end="")
        print(
            f"keys: {door.keys}; twice: {door.duplicates}; other bytes: {door.other_bytes}; burnt: {door.burnt}; ",
            end="",
        )
        print(f"not back: {door.stuck}; internal errors in its log: {door.bugs_in_log}; ", end="")
        print(f"keys in logs: {door.key_in_logs + door.sealed_in_logs}")
    for line in report.found + (report.door.found if report.door else []):
        print(f"  {line}")


def _malformed(number: int, seed: int, *, over_tls: bool) -> MalformedReport | OverTlsReport:
    return send_malformed_over_tls(number, seed) if over_tls else asyncio.run(send_malformed(number, seed))


def _print_answers(report: MalformedReport | OverTlsReport) -> None:
    how = "in this process, without HTTP and TLS" if isinstance(report, MalformedReport) else "over TLS"
    print(f"{report.requests} malformed requests, {how}, in {report.seconds} s")
    for status, count in report.statuses.items():
        print(f"  {status}: {count}")
    print(f"server errors: {report.server_errors}; served: {report.served}; keys lost: {report.keys_lost}")
    print(f"markers of keys in answers: {report.canaries_in_answers}; in the log: {report.canaries_in_log}")
    if isinstance(report, MalformedReport):
        print(f"slowest answer: {report.slowest_s} s; memory grown by {report.grown_kib} KiB")
        return
    print(f"ended without an answer: {report.unanswered}; stalled: {report.stalled}; connections: {report.connections}")
    print(f"valid requests in between: {report.valid}; answered wrongly: {report.wrong}; keys of others: ", end="")
    print(f"{report.strange_keys}; keys twice: {report.duplicates}; tracebacks in the log: {report.tracebacks_in_log}")
    print(f"slowest: {report.slowest_s} s")
    print("memory of the key manager: requests sent, KiB resident, KiB given out by malloc, Python's allocations")
    for at in report.memory:
        print(f"  {at.requests:>9} {at.rss_kib:>8} {at.heap_kib:>8} {at.python_blocks:>8}")
    for line in report.found:
        print(f"  {line}")
