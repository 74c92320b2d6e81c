"""HTML that cannot be broken by what stands in it: every text is escaped where it goes in.

Only `Markup` passes as it is, and only `element` and `trusted` make it. A library of templates
would be one more dependency for what two functions do.
"""

from __future__ import annotations

import html
from collections.abc import Iterable
from dataclasses import dataclass

_WITHOUT_CONTENT = frozenset({"meta", "br", "hr"})


@dataclass(frozen=True, slots=True)
class Markup:
    """Finished HTML."""

    text: str


Content = Markup | str | None | Iterable["Content"]


def element(tag: str, /, *content: Content, **attributes: str) -> Markup:
    """Return an element. Texts are escaped; None is left out; `class_` stands for `class`."""
    words = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{html.escape(value)}"'
        for key, value in attributes.items()
    )
    if tag in _WITHOUT_CONTENT:
        return Markup(f"<{tag}{words}>")
    return Markup(f"<{tag}{words}>{_text_of(content)}</{tag}>")


def trusted(text: str) -> Markup:
    """Return markup of our own making, such as a style sheet, as it is."""
    return Markup(text)


def join(*content: Content) -> Markup:
    """Return several pieces as one."""
    return Markup(_text_of(content))


def _text_of(content: Content) -> str:
    if content is None:
        return ""
    if isinstance(content, Markup):
        return content.text
    if isinstance(content, str):
        return html.escape(content)
    return "".join(map(_text_of, content))
