"""The documentation says what the software does: its commands exist, its links resolve, its citations have a target."""

import ast
import importlib
import re
from pathlib import Path

import pytest
import typer
from markdown_pages import PAGES, ROOT, blocks, headings, inline_codes, prose, table_rows

from heliograph.cli.main import app

SOURCES = sorted((ROOT / "src").rglob("*.py"))
TESTS = sorted((ROOT / "tests").rglob("*.py"))
CATALOGUE = 27
FORBIDDEN = ("uncondi" + "tional", "unhack" + "able", "military" + "-grade")


def _name(path):
    return str(path.relative_to(ROOT))


def _leaves(command, path=("heliograph",)):
    if not hasattr(command, "list_commands"):
        return {" ".join(path): command}
    children = {name: command.get_command(None, name) for name in command.list_commands(None)}
    return {name: leaf for child in children for name, leaf in _leaves(children[child], (*path, child)).items()}


ROOT_COMMAND = typer.main.get_command(app)
LEAVES = _leaves(ROOT_COMMAND)


def _resolve(words):
    """Return the command that ``words`` (after the program's name) begin with, and the words left."""
    command, rest = ROOT_COMMAND, list(words)
    while rest and hasattr(command, "list_commands") and rest[0] in command.list_commands(None):
        command = command.get_command(None, rest.pop(0))
    return command, rest


def _options(command):
    return {option for parameter in command.params for option in parameter.opts} | {"--help", "--version"}


@pytest.mark.parametrize("page", PAGES, ids=_name)
def test_every_command_line_in_a_block_parses(page):
    for block in blocks(page):
        if block.language != "sh":
            continue
        for words in block.commands():
            if words[0].endswith("heliograph"):
                command, rest = _resolve(words[1:])
                assert not hasattr(command, "list_commands"), f"{words}: not a whole command"
                command.make_context(words[0], rest)  # raises for an unknown option, a missing or a wrong value


@pytest.mark.parametrize("page", PAGES, ids=_name)
def test_every_command_named_in_the_text_exists(page):
    for code in inline_codes(page):
        words = code.split()
        if words[0].removeprefix(".venv/bin/") != "heliograph" or len(words) == 1:
            continue
        command, rest = _resolve(words[1:])
        assert command is not ROOT_COMMAND or words[1].startswith("--"), code
        assert {word for word in rest if word.startswith("--")} <= _options(command), code


@pytest.mark.parametrize("name", sorted(LEAVES))
def test_every_command_appears_in_the_documentation(name):
    assert any(name in page.read_text() for page in PAGES)


@pytest.mark.parametrize("page", PAGES, ids=_name)
def test_every_relative_link_resolves(page):
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(page)):
        if not target.startswith(("https://", "http://")):
            assert (page.parent / target.partition("#")[0]).exists(), target


@pytest.mark.parametrize("page", PAGES, ids=_name)
def test_every_file_named_in_the_text_exists(page):
    for code in inline_codes(page):
        if re.fullmatch(r"[\w/]+/[\w/]*\w\.(py|toml|md)", code):
            places = [ROOT, ROOT / "src/heliograph", ROOT / "src/heliograph/postprocessing", ROOT / "tests"]
            made_by_a_site = code.startswith(("site-a/", "site-b/"))
            assert made_by_a_site or any((place / code).exists() for place in places), code


@pytest.mark.parametrize("page", PAGES, ids=_name)
def test_every_test_and_make_target_named_exists(page):
    text = page.read_text()
    for path in re.findall(r"(?<![\w/])tests/[\w/]+(?:\.py)?", text):
        assert path == "tests/FILE" or (ROOT / path).exists(), path
    for paths, word in re.findall(r"pytest ((?:tests/\S+ ?)+)-k (\w+)", text):
        names = re.findall(r"def (test_\w+)", "".join((ROOT / path).read_text() for path in paths.split()))
        assert any(word in name for name in names), word
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = set(re.findall(r"(?:^|`)make ([a-z]+)", text, re.MULTILINE))
    assert named <= targets


# Of the tests over all files each tells every place that is wrong: a test for each file would be two thousand.


def test_nothing_claims_too_much():
    texts = {path: path.read_text().lower() for path in (*PAGES, *SOURCES)}
    assert [(_name(path), word) for path, text in texts.items() for word in FORBIDDEN if word in text] == []


def test_every_cited_section_exists():
    numbers = {page.name: headings(page) for page in sorted((ROOT / "docs").glob("*.md"))}
    cited = [
        (_name(path), page, number)
        for path in (*SOURCES, *TESTS, *PAGES)
        for page, number in re.findall(r"\b([a-z]+\.md)\)? (\d+(?:\.\d+)?[a-z]?)\b", path.read_text())
    ]
    assert len(cited) > 100
    assert [one for one in cited if one[2] not in numbers.get(one[1], ())] == []


def test_every_page_named_in_the_sources_exists():
    named = [(_name(path), page) for path in SOURCES for page in re.findall(r"[\w/-]+\.md\b", path.read_text())]
    assert len(named) > 100
    assert [one for one in named if not ((ROOT / one[1]).exists() or (ROOT / "docs" / one[1]).exists())] == []


THREATS = table_rows(ROOT / "docs/threat-model.md")


@pytest.mark.parametrize("row", [r for r in THREATS if len(r) == 4], ids=lambda r: f"{r[0]} {r[1][:40]}")
def test_every_answered_attack_names_a_test(row):
    files = re.findall(r"`([\w/]+\.py)`", row[3])
    assert files
    assert [name for name in files if not (ROOT / "tests" / name).is_file()] == []


def test_every_attack_of_the_catalogue_is_answered_or_admitted():
    numbers = {int(n) for row in THREATS for n in re.findall(r"\d+", row[0])}
    assert numbers == set(range(1, CATALOGUE + 1))


def test_decisions_are_numbered_and_name_what_was_rejected():
    pages = sorted((ROOT / "docs/adr").glob("*.md"))
    assert [int(page.name[:4]) for page in pages] == list(range(1, len(pages) + 1))
    for page in pages:
        text = page.read_text()
        assert text.startswith(f"# {int(page.name[:4])}. "), page.name
        assert "**Decided.**" in text, page.name
        assert "**Rejected" in text, page.name
    cited = {int(n) for page in PAGES for n in re.findall(r"ADR (\d{4})", page.read_text())}
    assert cited <= {int(page.name[:4]) for page in pages}


def test_the_python_example_uses_what_exists():
    (block,) = [b for b in blocks(ROOT / "docs/how-to/fetch-a-key.md") if b.language == "python"]
    tree = compile(block.text, "example", "exec", ast.PyCF_ONLY_AST | ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    for node in tree.body:
        if isinstance(node, ast.ImportFrom):
            module = importlib.import_module(node.module)
            assert all(hasattr(module, alias.name) for alias in node.names)


def test_the_first_line_of_the_readme_names_what_bare_debian_lacks():
    first = (ROOT / "README.md").read_text().splitlines()[0]
    assert "apt-get install -y make git python3-venv gcc g++" in first


@pytest.mark.parametrize("page", [Path("docs/security.md"), Path("docs/protocol.md")], ids=str)
def test_message_and_pad_names_are_those_of_the_code(page):
    """A message that is renamed, or added, turns this red until the page follows."""
    from heliograph.authentication.pads import PadRole  # noqa: PLC0415
    from heliograph.protocol import messages  # noqa: PLC0415

    text = (ROOT / page).read_text()
    if page.name == "protocol.md":
        assert [role.name for role in PadRole if f"| {role.name} | {role.value} |" not in text] == []
        assert [name for name in messages.__all__ if name != "Message" and f"`{name}`" not in text] == []
    else:
        assert {f"## {n}." for n in range(1, 12)} <= set(re.findall(r"^## \d+\.", text, re.MULTILINE))
