"""MkDocs: put into the site what pages link to outside docs/, such as ../figs/x.png.

On a repository's web page such a link is right as it is. MkDocs knows only what lies in docs/; so each file that a page
links to becomes a file of the site, and the link loses its ``../``. A link to what is not there is left alone, and
``mkdocs build --strict`` refuses it.
"""

import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

OUTSIDE = re.compile(r"\]\(\.\./([^)#\s]+)\)")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the files outside docs/ that pages link to."""
    pages = [Path(page.abs_src_path).read_text() for page in files.documentation_pages()]
    for path in sorted({path for page in pages for path in OUTSIDE.findall(page)}):
        if (_root(config) / path).is_file():
            files.append(File.generated(config, path, abs_src_path=str(_root(config) / path)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Let links lead to the files that :func:`on_files` added."""
    return OUTSIDE.sub(lambda link: f"]({link[1]})" if files.get_file_from_path(link[1]) else link[0], markdown)


def _root(config: MkDocsConfig) -> Path:
    return Path(config.docs_dir).parent
