"""The house rules that a machine can keep."""

import ast
from pathlib import Path

ROOT = Path(__file__).parents[3]
SOURCES = sorted((ROOT / "src" / "heliograph").rglob("*.py"))
LINES_MAX = 400


def _name(path):
    return str(path.relative_to(ROOT / "src"))


def test_a_module_can_be_held_in_the_head():
    assert len(SOURCES) > 400
    assert [_name(path) for path in SOURCES if len(path.read_text().splitlines()) > LINES_MAX] == []


def test_the_median_module_is_near_150_lines():
    lengths = sorted(len(path.read_text().splitlines()) for path in SOURCES if path.name != "__init__.py")
    assert lengths[len(lengths) // 2] <= 200


def test_packages_hold_no_logic():
    trees = {_name(path): ast.parse(path.read_text()) for path in SOURCES if path.name == "__init__.py"}
    wordy = [name for name, tree in trees.items() if not all(isinstance(n, (ast.Expr, ast.Assign)) for n in tree.body)]
    assert wordy == []


def test_modules_say_what_they_offer():
    """By a sentence that opens them, and ``__all__``."""
    modules = [path for path in SOURCES if path.name not in {"__init__.py", "__main__.py"}]
    trees = {_name(path): ast.parse(path.read_text()) for path in modules}
    assert [name for name, tree in trees.items() if not ast.get_docstring(tree)] == []

    def named(tree):
        assigned = [node.targets for node in tree.body if isinstance(node, ast.Assign)]
        return {target.id for targets in assigned for target in targets if isinstance(target, ast.Name)}

    assert [name for name, tree in trees.items() if "__all__" not in named(tree)] == []


def test_there_is_no_room_called_utils():
    assert not [p for p in SOURCES if p.stem in {"utils", "util", "helpers", "common", "misc"}]


def test_nothing_waits_by_sleeping():
    found = [
        p for p in sorted((ROOT / "tests").rglob("*.py")) if "time.sleep(" in p.read_text() and p != Path(__file__)
    ]
    assert found == []


def test_no_environment_variable_changes_what_a_site_does():
    readers = [_name(p) for p in SOURCES if "os.environ" in p.read_text() or "getenv" in p.read_text()]
    assert readers == []
