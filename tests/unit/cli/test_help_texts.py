"""What ``--help`` shows of every command: rich takes [words] in brackets for its own and leaves them out."""

import re

import pytest
from typer.main import get_command

from heliograph.cli.main import app

TAKEN = re.compile(r"(?<!\\)\[[a-z]")


def commands(found, name="heliograph"):
    yield name, found
    if hasattr(found, "list_commands"):
        for each in found.list_commands(None):
            yield from commands(found.get_command(None, each), f"{name} {each}")


ALL = dict(commands(get_command(app)))


@pytest.mark.parametrize("name", ALL)
def test_no_word_of_a_help_text_is_lost(name):
    texts = [ALL[name].help or "", *(getattr(one, "help", None) or "" for one in ALL[name].params)]
    assert not [text for text in texts if TAKEN.search(text)]
