"""Logs follow whatever was set up last, also for loggers that have spoken before."""

import subprocess
import sys

_TWICE = """
import structlog
from heliograph.cli.logs import configure_logs

log = structlog.get_logger("heliograph.site")
configure_logs("info")
log.info("first")
configure_logs("error")
log.info("not to be seen")
with structlog.testing.capture_logs() as lines:
    log.error("captured")
log.error("last")
assert [line["event"] for line in lines] == ["captured"]
"""


def test_a_logger_that_has_spoken_follows_what_is_set_up_later():
    done = subprocess.run([sys.executable, "-c", _TWICE], capture_output=True, text=True, timeout=60, check=True)
    assert "first" in done.stderr
    assert "last" in done.stderr
    assert "not to be seen" not in done.stderr
