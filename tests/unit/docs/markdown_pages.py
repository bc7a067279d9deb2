"""What the documentation tests read: pages, their code blocks with the marker comment above them, links, headings."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[3]
PAGES = [
    *(ROOT / name for name in ("README.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md")),
    *sorted((ROOT / "docs").rglob("*.md")),
]

_BLOCK = re.compile(
    r"^(?P<indent> *)(?:<!-- (?P<marker>[^\n]*?) -->\n(?P=indent))?```(?P<language>\w+)\n(?P<text>.*?)^(?P=indent)```$",
    re.MULTILINE | re.DOTALL,
)


@dataclass(frozen=True)
class Block:
    """One fenced block."""

    page: Path
    marker: str
    language: str
    text: str

    def commands(self) -> list[list[str]]:
        """Return the command lines of a shell block as words; a trailing backslash joins lines."""
        lines = self.text.replace("\\\n", " ").splitlines()
        return [words for line in lines if (words := shlex.split(line, comments=True))]


def blocks(page: Path) -> list[Block]:
    """Return the page's fenced blocks."""
    found = []
    for match in _BLOCK.finditer(page.read_text()):
        indent = len(match["indent"])
        text = "".join(line[indent:] for line in match["text"].splitlines(keepends=True))
        found.append(Block(page, match["marker"] or "", match["language"], text))
    return found


def prose(page: Path) -> str:
    """Return the page without its fenced blocks."""
    return _BLOCK.sub("", page.read_text())


def inline_codes(page: Path) -> list[str]:
    """Return what stands between single backticks."""
    return re.findall(r"`([^`\n]+)`", prose(page))


def headings(page: Path) -> set[str]:
    """Return the numbers of the page's numbered headings: "3", "1.5", "3a"."""
    return {match[1] for match in re.finditer(r"^#+ (\d+(?:\.\d+)?[a-z]?)\.? ", page.read_text(), re.MULTILINE)}


def table_rows(page: Path) -> list[list[str]]:
    """Return the cells of every table row below a header."""
    lines = [line for line in page.read_text().splitlines() if line.startswith("|")]
    return [
        [cell.strip() for cell in line.strip("|").split("|")] for line in lines if not line.startswith(("|---", "| # "))
    ]
