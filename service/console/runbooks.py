"""The runbooks that pages link to, as pages."""

import re
from importlib.resources import files

from markdown_it import MarkdownIt
from markupsafe import Markup

# Only text of ours is rendered, and HTML in it stays text all the same.
RENDERER = MarkdownIt("commonmark", {"html": False}).enable("table")
NAME = re.compile(r"[a-z0-9-]{1,80}")


def names() -> list[str]:
    """All runbooks by name."""
    return sorted(
        path.name.removesuffix(".md")
        for path in files("alerts").joinpath("runbooks").iterdir()
        if path.name.endswith(".md")
    )


def page(name: str) -> Markup | None:
    """A runbook as HTML; None if there is none of that name."""
    if not NAME.fullmatch(name) or name not in names():
        return None
    text = files("alerts").joinpath("runbooks", f"{name}.md").read_text(encoding="utf-8")
    return Markup(RENDERER.render(text))
