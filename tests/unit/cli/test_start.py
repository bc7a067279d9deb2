"""A command starts with what it needs: loading the whole program takes a second or more, for every call of a script."""

import subprocess
import sys

import pytest
import typer
from typer.testing import CliRunner

from heliograph.cli.main import app

HEAVY = ("aiohttp", "structlog", "OpenSSL", "numpy")


def loaded(*statements):
    """Return which of the heavy modules a new process has after ``statements``."""
    report = f"import sys; print(*[name for name in {(*HEAVY, 'rich')!r} if sys.modules.get(name)])"
    program = "\n".join([*statements, report])
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    return set(done.stdout.split())


def test_the_program_itself_loads_none_of_its_commands():
    assert loaded("import heliograph.cli.main") & set(HEAVY) == set()


@pytest.mark.parametrize("module", ["site", "network", "store", "kme"])
def test_what_looks_at_a_site_loads_no_server(module):
    assert loaded(f"import heliograph.cli.{module}") & {"aiohttp", "structlog"} == set()


def test_logs_are_set_up_without_what_colours_tracebacks_and_it_can_be_imported_afterwards():
    statements = ("from heliograph.cli.logs import configure_logs", "configure_logs('info')", "import structlog")
    assert loaded(*statements) >= {"structlog"}
    assert "rich" not in loaded(*statements)
    assert "rich" in loaded(*statements, "import rich")


def test_help_names_every_command_and_each_can_be_asked_for():
    root = typer.main.get_command(app)
    names = root.list_commands(None)
    shown = CliRunner().invoke(app, ["--help"])
    assert shown.exit_code == 0
    for name in names:
        assert name in shown.output
        assert root.get_command(None, name).name == name


def test_a_command_that_is_none_is_refused_with_the_one_that_was_meant():
    done = CliRunner().invoke(app, ["netwrk", "paths"])
    assert done.exit_code == 2
    assert "netwrk" in done.output
    assert "network" in done.output
