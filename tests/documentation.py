"""What README.md and docs/*.md hold: their commands, links, headings and Python code."""

import re
import unicodedata
from pathlib import Path
from typing import NamedTuple

REPOSITORY = Path(__file__).resolve().parents[1]
README = REPOSITORY / "README.md"
PAGES = [README, *sorted((REPOSITORY / "docs").glob("*.md"))]
ONE_PROGRAM = "The blocks of this page are one program."

_BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_SPAN = re.compile(r"`([^`\n]+)`")
_COMMAND = re.compile(r"(?:^|[\s/])(python (?:experiment\.py\b|-m )[^\n&#]*)")
_LINK = re.compile(r"!?\[(?:[^\[\]]|\[[^\]]*\])*\]\(\s*<?([^)\s>]+)>?[^)]*\)")
_HEADING = re.compile(r"^#+ +(.+?) *$", re.MULTILINE)


class Link(NamedTuple):
    """A link or picture of a page: the page, and the address as written."""

    page: Path
    address: str


def documented_commands(program: str = "") -> list[str]:
    """Collect each ``python experiment.py ...`` and ``python -m ...`` command that the pages show, once.

    Args:
        program: keep the commands that go on with this after ``python``, such as ``experiment.py`` or ``-m``.

    Returns:
        The commands, each from ``python`` to its end; a comment or ``&& ...`` behind it is left out.
    """
    commands = []
    for page in PAGES:
        text = page.read_text()
        code = [body for _, body in _BLOCK.findall(text)] + _SPAN.findall(_BLOCK.sub("", text))
        commands += [match.strip() for part in code for match in _COMMAND.findall(part)]
    return [command for command in dict.fromkeys(commands) if command.startswith(f"python {program}")]


def python_blocks() -> list[tuple[Path, str]]:
    """Collect the code blocks marked as Python, with their pages."""
    return [(page, body) for page in PAGES for kind, body in _BLOCK.findall(page.read_text()) if kind == "python"]


def python_programs() -> list[tuple[Path, str]]:
    """Collect what is to be run, with its page: each block, or the blocks together where the page says so."""
    programs: dict[tuple[Path, int], str] = {}
    for i, (page, body) in enumerate(python_blocks()):
        key = page, -1 if ONE_PROGRAM in page.read_text() else i
        programs[key] = programs.get(key, "") + body
    return [(page, code) for (page, _), code in programs.items()]


def block_with(text: str) -> str:
    """Find the one block of Python that holds a text."""
    (body,) = (body for _, body in python_blocks() if text in body)
    return body


def relative_links() -> list[Link]:
    """Collect the links and pictures of all pages that do not lead to the web."""
    links = []
    for page in PAGES:
        text = _SPAN.sub("`code`", _BLOCK.sub("", page.read_text()))
        links += [Link(page, address) for address in _LINK.findall(text) if not re.match(r"https?:|mailto:", address)]
    return links


def anchors(page: Path) -> set[str]:
    """Compute the anchors of a page's headings as its repository's web page has them."""
    headings = _HEADING.findall(_BLOCK.sub("", page.read_text()))
    return {_slug(heading) for heading in headings}


def floors_named(page: Path) -> set[str]:
    """Read which floors the page's map of floors names: the first cells that are a folder."""
    return set(re.findall(r"^\| `(\w+)/` \|", page.read_text(), re.MULTILINE))


def _slug(heading: str) -> str:
    plain = unicodedata.normalize("NFC", heading).lower()
    return re.sub(r"[^\w\- ]", "", plain).replace(" ", "-")
