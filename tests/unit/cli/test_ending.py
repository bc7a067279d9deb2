"""SIGTERM ends a command in order where Ctrl-C is ignored too, whatever the event loop does at that moment."""

import signal
import subprocess
import sys

_BUSY = """
import asyncio, gc, signal
from heliograph.cli.ending import ends_in_order

signal.signal(signal.SIGINT, signal.SIG_IGN)

async def busy():
    try:
        if {within}:
            signal.raise_signal(signal.SIGTERM)  # it finds the task at work
        else:
            asyncio.get_running_loop().call_soon(signal.raise_signal, signal.SIGTERM)
        await asyncio.sleep(60)
    finally:
        print("taken back", flush=True)

try:
    with ends_in_order():
        asyncio.run(busy())
except SystemExit as end:
    code = end.code
gc.collect()  # a task whose exception nobody looked at says so now
raise SystemExit(code)
"""


def ended(program):
    return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)


def test_a_task_that_the_signal_hits_takes_back_what_it_began_without_a_traceback():
    for within in (True, False):
        done = ended(_BUSY.format(within=within))
        assert (done.returncode, done.stdout, done.stderr) == (128 + signal.SIGTERM, "taken back\n", "")


def test_without_an_event_loop_the_signal_ends_at_once():
    done = ended(
        "import signal, time\n"
        "from heliograph.cli.ending import ends_in_order\n"
        "signal.signal(signal.SIGINT, signal.SIG_IGN)\n"
        "with ends_in_order():\n    signal.raise_signal(signal.SIGTERM)\n    print('went on')\n"
    )
    assert (done.returncode, done.stdout, done.stderr) == (128 + signal.SIGTERM, "", "")
