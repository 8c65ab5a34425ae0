"""Pages in one file: data are never markup, no script runs but the page's own, and nothing is half-written."""

import base64
import hashlib
import html.parser
import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bbb.pages import as_json, make_page, write_page
from bbb.system import StorageError

NASTY = "</script><script>alert(1)</script><!--<script>&amp;\u2028\"'"
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


class Elements(html.parser.HTMLParser):
    """What a browser finds in a page: each script and style with its attributes and its text."""

    def __init__(self, text):
        super().__init__()
        self.found, self.open = [], None
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.open = tag if tag in ("script", "style", "title") else None
        self.found.append([tag, dict(attrs), ""])

    def handle_data(self, text):
        if self.open:
            self.found[-1][2] += text

    def handle_endtag(self, tag):
        self.open = None

    def all(self, tag):
        return [(attributes, text) for name, attributes, text in self.found if name == tag]


@given(VALUES)
def test_data_survive_the_page_and_hold_no_markup(value):
    text = as_json(value)
    assert text.isascii()
    assert not {*text} & {*"<>&"}
    assert json.loads(text) == value


def test_numbers_that_are_not_finite_become_null():
    assert json.loads(as_json({"a": [math.nan, math.inf, 1.5], "b": (-math.inf,)})) == {
        "a": [None, None, 1.5],
        "b": [None],
    }


def test_a_page_holds_what_it_was_given_and_no_other_script():
    text = make_page(NASTY, "<p>body</p>", ["p { color: red }"], ["'first';", "'second';"], {"data": {NASTY: NASTY}})
    elements = Elements(text)
    assert [text for _, text in elements.all("title")] == [NASTY]
    assert [text for _, text in elements.all("style")] == ["p { color: red }"]
    (of_data, data), *scripts = elements.all("script")
    assert of_data == {"type": "application/json", "id": "data"}
    assert json.loads(data) == {NASTY: NASTY}
    assert scripts == [({}, "'first';"), ({}, "'second';")]


def test_the_policy_runs_the_pages_own_scripts_and_loads_nothing():
    scripts = ["'one';\r\n'two';\r", "'thr\N{LATIN SMALL LETTER E WITH ACUTE}e';"]
    elements = Elements(make_page("title", "", [], scripts))
    (policy,) = (attributes["content"] for attributes, _ in elements.all("meta") if "http-equiv" in attributes)
    rules = dict(rule.split(" ", 1) for rule in policy.split("; "))
    hashes = [hashlib.sha256(text.encode()).digest() for _, text in elements.all("script")]
    assert rules["script-src"].split() == [f"'sha256-{base64.b64encode(each).decode()}'" for each in hashes]
    assert rules["default-src"] == "'none'"
    assert not any(word in policy for word in ("http", "*", "unsafe-eval", "file:"))
    assert "\r" not in "".join(text for _, text in elements.all("script"))


@pytest.mark.parametrize(
    ("styles", "scripts"),
    [(["</style>"], []), ([], ["'</SCRIPT>'"]), ([], ["'<!--'; '<script>'"])],
)
def test_what_would_end_a_script_early_is_refused(styles, scripts):
    with pytest.raises(ValueError, match="by which a browser takes its end for another"):
        make_page("title", "", styles, scripts)


def test_a_page_is_written_whole_or_not_at_all(tmp_path):
    write_page(tmp_path / "new" / "page.html", "\N{GREEK SMALL LETTER MU}")
    assert (tmp_path / "new" / "page.html").read_bytes() == "\N{GREEK SMALL LETTER MU}".encode()
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["page.html"]
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match=r"file/page\.html: cannot be written"):
        write_page(tmp_path / "file" / "page.html", "text")
