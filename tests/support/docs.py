"""Read the documents: their code blocks, the commands in these, their links and anchors."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
FENCE = re.compile(r"^( *)```(\w*)\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"(?<!`)!?\[[^\]`]*\]\(([^)\s]+)\)")


class Block(NamedTuple):
    """A fenced code block.

    page: path of the document, relative to the project.
    line: number of the line that opens the fence.
    language: the word after the fence.
    """

    page: str
    line: int
    language: str
    text: str

    @property
    def place(self) -> str:
        return f"{self.page}:{self.line}"


class Command(NamedTuple):
    """A command line in a bash block: its words, and where it stands."""

    place: str
    words: tuple[str, ...]

    @property
    def text(self) -> str:
        return " ".join(self.words)


def pages() -> list[Path]:
    """Return README.md and every page of the site."""
    return [ROOT / "README.md", *sorted(DOCS.rglob("*.md"))]


def pages_with_tested_blocks() -> list[Path]:
    """Return README.md and the guide, whose blocks are run."""
    return [ROOT / "README.md", *sorted((DOCS / "guide").glob("*.md"))]


def blocks_of(page: Path) -> list[Block]:
    """Return the fenced code blocks of a page, in order."""
    text = page.read_text()
    name = str(page.relative_to(ROOT))
    return [Block(name, text.count("\n", 0, m.start()) + 1, m[2], m[3]) for m in FENCE.finditer(text)]


def commands_of(block: Block) -> list[Command]:
    """Split a bash block into commands, one per line, without comments; a backslash continues a line."""
    lines = block.text.replace("\\\n", " ").splitlines()
    return [Command(block.place, tuple(words)) for line in lines if (words := shlex.split(line, comments=True))]


def prose_of(page: Path) -> str:
    """Return the text of a page without its code blocks."""
    return FENCE.sub("", page.read_text())


def links_of(page: Path) -> Iterator[str]:
    """Yield the targets of the links and pictures of a page, but not those on the web."""
    return (target for target in LINK.findall(prose_of(page)) if not target.startswith(("http://", "https://")))


def anchors_of(page: Path) -> set[str]:
    """Return the anchors of a page's headings, as the site makes them."""
    headings = re.findall(r"^#+ (.+)$", prose_of(page), re.MULTILINE)
    return {re.sub(r"[-\s]+", "-", re.sub(r"[^\w\s-]", "", heading).strip().lower()) for heading in headings}
