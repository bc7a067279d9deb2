"""Ctrl-C in a terminal reaches a group of processes: only the command may hear it, which then ends its children."""

import ast
from pathlib import Path

import heliograph.lab

BEGIN = {"Popen", "create_subprocess_exec"}


def test_no_child_of_a_rehearsal_hears_ctrl_c_and_shows_a_traceback():
    bare = []
    for path in sorted(Path(heliograph.lab.__file__).parent.glob("*.py")):
        for call in ast.walk(ast.parse(path.read_text())):
            begins = isinstance(call, ast.Call) and getattr(call.func, "attr", "") in BEGIN
            if begins and "start_new_session" not in {word.arg for word in call.keywords}:
                bare.append(f"{path.name}:{call.lineno}")
    assert not bare
