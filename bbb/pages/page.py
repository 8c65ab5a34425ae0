"""A page in one file: its markup, style, scripts and data, so that it opens from disk and loads nothing."""

import base64
import hashlib
import html
import json
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bbb.system import write_aside, writing

_MARKUP = str.maketrans({"<": "\\u003c", ">": "\\u003e", "&": "\\u0026"})


def asset(name: str) -> str:
    """Read a file of this package: a page's markup, style or script."""
    return Path(__file__).with_name(name).read_text(encoding="utf-8")


def as_json(value: Any) -> str:
    """Write plain data as JSON that can stand between tags: ASCII without ``<``, ``>`` and ``&``.

    Args:
        value: dictionaries with texts as keys, lists or tuples, numbers, texts, True, False and None. Numbers that are
            not finite become null, since JSON has none.
    """
    return json.dumps(_finite(value), allow_nan=False, separators=(",", ":")).translate(_MARKUP)


def make_page(
    title: str,
    body: str,
    styles: Sequence[str] = (),
    scripts: Sequence[str] = (),
    data: Mapping[str, Any] | None = None,
) -> str:
    """Put a page together.

    Its Content-Security-Policy runs these scripts and no other, and lets nothing be loaded from elsewhere.

    Args:
        title: any text.
        body: markup. It is trusted: what comes from users' files belongs into ``data``.
        styles: style sheets, trusted too.
        scripts: JavaScript, trusted too, run in this order behind the body.
        data: by the id of the element that will hold it as JSON (see :func:`as_json`). A script reads it with
            ``JSON.parse(document.getElementById(ID).textContent)``.

    Raises:
        ValueError: a style or script holds what a browser would take for its end.
    """
    styles, scripts = [_inlined(text, "style") for text in styles], [_inlined(text, "script") for text in scripts]
    runs = " ".join(map(_hash, scripts)) or "'none'"
    policy = [
        "default-src 'none'",
        f"script-src {runs}",
        "style-src 'unsafe-inline'",
        "img-src data: blob:",
        "worker-src blob:",
        "base-uri 'none'",
        "form-action 'none'",
    ]
    parts = [
        "<!doctype html>",
        '<html lang="en">',
        "<head>",
        '<meta charset="utf-8">',
        f'<meta http-equiv="Content-Security-Policy" content="{"; ".join(policy)}">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        '<meta name="color-scheme" content="light dark">',
        f"<title>{html.escape(title)}</title>",
        *(f"<style>{text}</style>" for text in styles),
        "</head>",
        "<body>",
        body,
        *(
            f'<script type="application/json" id="{html.escape(name)}">{as_json(value)}</script>'
            for name, value in (data or {}).items()
        ),
        *(f"<script>{text}</script>" for text in scripts),
        "</body>",
        "</html>",
    ]
    return "\n".join(parts) + "\n"


def write_page(path: Path, text: str) -> None:
    """Write a page, and make its folder.

    Raises:
        bbb.system.StorageError: it cannot be written; an old page is unchanged.
    """
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    write_aside(path, text.encode(errors="replace"))


def _finite(value: Any) -> Any:
    """Replace numbers that are not finite by None."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    return [_finite(item) for item in value] if isinstance(value, list | tuple) else value


def _inlined(text: str, tag: str) -> str:
    """Give a text the line ends that a browser reads, since its hash is that of these."""
    if re.search(rf"</{tag}|<!--.*<script", text, re.IGNORECASE | re.DOTALL):
        raise ValueError(f"a {tag} holds </{tag}, or <script behind <!--, by which a browser takes its end for another")
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _hash(script: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'"
