"""Sphinx: how `make docs` builds the site from these pages and the docstrings. Knows nothing of what the pages say."""

from __future__ import annotations

import posixpath
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pygments.lexers.special import TextLexer

import velocity_ws

if TYPE_CHECKING:
    from sphinx.application import Sphinx

ROOT = Path(__file__).parents[1]

project = "velocity-ws"
author = copyright = "the velocity-ws authors"  # noqa: A001 - the name that Sphinx reads
version = release = velocity_ws.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["comparison/**"]
default_role = "any"  # `Broker.join_room` in a docstring is a reference, and a warning where there is no such thing
myst_heading_anchors = 4  # as code hosts make them

autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
autodoc_class_signature = "mixed"
autoclass_content = "both"  # arguments are said where they are taken, in __init__
autodoc_default_options = {"members": True, "inherited-members": "Generic,list,tuple,dict"}
napoleon_use_ivar = True
add_module_names = False
python_use_unqualified_type_names = True
python_maximum_signature_line_length = 88
toc_object_entries_show_parents = "hide"

html_theme = "furo"
html_title = f"velocity-ws {version}"
html_copy_source = html_show_sourcelink = html_show_sphinx = False
html_static_path = ["static"]
html_css_files = ["site.css"]

OUTSIDE = {
    "changelog": "CHANGELOG.md",
    "contributing": "CONTRIBUTING.md",
    "results": "benchmarks/RESULTS.md",
    "security-policy": "SECURITY.md",
}
"""Pages whose text stands outside of docs/, where people look for it."""
PAGES = {path: f"docs/{page}.md" for page, path in OUTSIDE.items()}


def resolve_links(app: Sphinx, page: str, source: list[str]) -> None:
    """Put in the text of a page that stands elsewhere, and let links lead to such pages."""
    path = OUTSIDE.get(page)
    if path is not None:
        app.env.note_dependency(ROOT / path)
        source[0] = (ROOT / path).read_text(encoding="utf-8")
    folder = posixpath.dirname(path or f"docs/{page}.md")
    here = posixpath.dirname(f"docs/{page}.md")

    def resolve(link: re.Match[str]) -> str:
        target, anchor = link[1], link[2] or ""
        there = posixpath.normpath(posixpath.join(folder, target))
        return f"]({posixpath.relpath(PAGES.get(there, there), here)}{anchor})"

    source[0] = re.sub(r"\]\((?!https?:|mailto:)([^)#\s]+)(#[^)\s]*)?\)", resolve, source[0])


def name_functions(*event: Any) -> tuple[str | None, str | None]:
    """Let a function that is the default of an argument be its name, without which the arguments cannot be parsed."""
    arguments, result = event[-2:]
    return arguments and re.sub(r"<(?:built-in )?function (\w+)>", r"\1", arguments), result


def setup(app: Sphinx) -> None:
    app.add_lexer("haproxy", TextLexer)  # of which Pygments has none
    app.connect("source-read", resolve_links)
    app.connect("autodoc-process-signature", name_functions)
