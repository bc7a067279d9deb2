"""A port that was given to one rehearsal is given to no other, in this process or in another, before it is used."""

import subprocess
import sys

from heliograph.lab.ports import free_ports

_ASK = "from heliograph.lab.ports import free_ports; print(*free_ports(20), flush=True); input()"
_ASK_OFTEN = "from heliograph.lab.ports import free_ports; print(*[p for _ in range(30) for p in free_ports(7)])"


def test_no_port_is_given_twice_before_all_were_given():
    # A process of its own: this one may have given most of its ports to other tests.
    given = subprocess.run(
        [sys.executable, "-c", _ASK_OFTEN], capture_output=True, text=True, check=True
    ).stdout.split()
    assert len(set(given)) == len(given) == 210


def test_a_process_that_has_given_all_its_ports_gives_them_again():
    given = [port for _ in range(80) for port in free_ports(10)]
    assert len(set(given)) < len(given)
    assert all(len(set(given[at : at + 10])) == 10 for at in range(0, len(given), 10))


def test_processes_that_run_at_the_same_time_are_given_different_ports():
    children = [
        subprocess.Popen([sys.executable, "-c", _ASK], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for _ in range(4)
    ]
    try:
        given = [int(word) for child in children for word in child.stdout.readline().split()]
    finally:
        for child in children:
            child.communicate("\n", timeout=20)
    own = set(free_ports(20))
    assert len(set(given)) == len(given) == 80
    assert not own & set(given)
