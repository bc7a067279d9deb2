"""The house rules that a machine can keep."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
SOURCES = sorted((ROOT / "src" / "heliograph").rglob("*.py"))
LINES_MAX = 400


def _name(path):
    return str(path.relative_to(ROOT / "src"))


@pytest.mark.parametrize("path", SOURCES, ids=_name)
def test_a_module_can_be_held_in_the_head(path):
    assert len(path.read_text().splitlines()) <= LINES_MAX


def test_the_median_module_is_near_150_lines():
    lengths = sorted(len(path.read_text().splitlines()) for path in SOURCES if path.name != "__init__.py")
    assert lengths[len(lengths) // 2] <= 200


@pytest.mark.parametrize("path", [p for p in SOURCES if p.name == "__init__.py"], ids=_name)
def test_packages_hold_no_logic(path):
    tree = ast.parse(path.read_text())
    assert all(isinstance(node, (ast.Expr, ast.Assign)) for node in tree.body)


@pytest.mark.parametrize("path", [p for p in SOURCES if p.name not in {"__init__.py", "__main__.py"}], ids=_name)
def test_modules_say_what_they_offer(path):
    tree = ast.parse(path.read_text())
    assert ast.get_docstring(tree), "a module opens with a sentence"
    names = [t.id for n in tree.body if isinstance(n, ast.Assign) for t in n.targets if isinstance(t, ast.Name)]
    assert "__all__" in names


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
