"""One HTML page about a run: nothing outside it is needed, and no script.

What went wrong comes first. Made from `result.json` alone, so it can be made anew.
Source: docs/reference/testbed.md.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

from packetcloud.testbed.experiments.files import can_draw, columns_of
from packetcloud.testbed.experiments.markup import Content, Markup, element, join, trusted
from packetcloud.testbed.experiments.plots import svg_of
from packetcloud.testbed.experiments.reading import (
    is_reached,
    number_text,
    ratio_of,
    word_of,
)

REPORT = "report.html"
MAX_OPEN_COUNT = 20
"""Rows of a table that is not folded up on the screen."""
MAX_ROWS_COUNT = 200
"""Of a table on the page; the CSV file has all."""
_QUICK = (
    "A quick run: it shows that everything works. Its figures mean nothing, and are compared with "
    "nothing. What is called a median may be of one run."
)

Document = Mapping[str, Any]


def make_report(document: Document, other: Document | None = None) -> str:
    """Return the page.

    Args:
        other: the result of another run, whose figures stand beside these.
    """
    title = f"PacketCloud: {document['title']}"
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("title", title),
        element("style", trusted(_style())),
    )
    body = element(
        "body",
        element("h1", title),
        _first_words(document),
        _failures(document),
        _warnings(document),
        _comparisons(document),
        _beside(document, other) if other is not None else None,
        [_experiment(one) for one in document["experiments"]],
        _machine(document),
    )
    return f"<!DOCTYPE html>\n{element('html', head, body, lang='en').text}\n"


def write_report(document: Document, folder: Path, other: Document | None = None) -> Path:
    """Write the page into a folder; return its file."""
    path = folder / REPORT
    path.write_text(make_report(document, other), encoding="utf-8")
    return path


def _style() -> str:
    return files(__package__).joinpath("report.css").read_text(encoding="utf-8")


def _first_words(document: Document) -> Markup:
    commit = (document["commit"] or "unknown")[:10]
    if document["commit_has_local_changes"]:
        commit += " with local changes"
    words = (
        f"{document['began']}, commit {commit}, Linux {document['kernel']}, seed {document['seed']}"
    )
    quick = element("p", _QUICK, class_="warning") if document["is_quick"] else None
    return join(element("p", words, class_="facts"), quick)


def _failures(document: Document) -> Markup:
    if not document["failures"]:
        return element("p", "Nothing failed, and no emulator was late.", class_="fine")
    return element(
        "section",
        element("h2", "What failed, and what makes figures worthless"),
        element("ul", [element("li", text) for text in document["failures"]]),
        class_="failures",
    )


def _warnings(document: Document) -> Markup | None:
    said = document.get("warnings")  # results of older versions have none
    if not said:
        return None
    return element(
        "div",
        element("p", "This machine had something else to do:"),
        element("ul", [element("li", text) for text in said]),
        class_="warning",
    )


def _comparisons(document: Document) -> Markup | None:
    rows = [
        (one, comparison) for one in document["experiments"] for comparison in one["comparisons"]
    ]
    if not rows:
        return None
    has_paper = any(row["paper"] is not None or row["aim"] for _, row in rows)
    titles = ["experiment", "what", "unit"]
    titles += ["paper", "ours", "ratio", "aim", "reading"] if has_paper else ["ours"]
    is_read = not document["is_quick"]
    body = [element("tr", _comparison_cells(one, row, has_paper, is_read)) for one, row in rows]
    heading = "Paper and ours" if has_paper else "Figures"
    return join(element("h2", heading), _table(titles, body))


def _comparison_cells(one: Document, row: Document, has_paper: bool, is_read: bool) -> list[Markup]:
    texts = [_cell(one["name"]), _cell(row["what"]), _cell(row["unit"])]
    if not has_paper:
        return [*texts, _cell(row["ours"])]
    reached = is_reached(row) if is_read else None
    look = {True: "fine", False: "short", None: ""}[reached]
    words = (word_of(row) if is_read else "", row["note"])
    reading = ". ".join(text for text in words if text)
    figures = [_cell(row["paper"]), _cell(row["ours"]), _cell(ratio_of(row)), _cell(row["aim"])]
    return [*texts, *figures, element("td", reading, class_=look)]


def _beside(document: Document, other: Document) -> Markup:
    """Return both runs' figures, one line each."""
    mine, its = document["figures"], other["figures"]
    rows = []
    for key in dict.fromkeys((*mine, *its)):
        a, b = mine.get(key), its.get(key)
        ratio = a / b if a is not None and b else None
        rows.append(element("tr", [_cell(value) for value in (key, a, b, ratio)]))
    words = (
        f"The other run: {other['title']}, {other['began']}, commit "
        f"{(other['commit'] or 'unknown')[:10]}, Linux {other['kernel']}, seed {other['seed']}."
    )
    differs = [
        key for key in ("kernel", "seed", "is_quick", "back_ends") if document[key] != other[key]
    ]
    if document["machine"]["cpu"] != other["machine"]["cpu"]:
        differs.append("CPU")
    warning = f"The two runs differ in: {', '.join(differs)}." if differs else ""
    return join(
        element("h2", "Beside another run"),
        element("p", words, class_="facts"),
        element("p", warning, class_="warning") if warning else None,
        _table(["figure", "this run", "the other", "ratio"], rows),
    )


def _experiment(one: Document) -> Markup:
    missing = [f"{key}: {why}" for key, why in one["missing"].items()]
    facts = f"{one['name']}, {number_text(float(one['seconds']))} s"
    if "others_cores" in one:
        facts += f"; others used {one['others_cores']:.2f} processors meanwhile"
    return element(
        "section",
        element("h2", one["title"]),
        element("p", facts, class_="facts"),
        _sentences("What failed", one["failures"], "failures"),
        [_figure(plot) for plot in one["plots"]],
        [_rows(name, rows) for name, rows in one["tables"].items()],
        _sentences("Not measured", missing),
        _sentences("Measured", one["measured"]),
        _sentences("Assumed", one["assumed"]),
        _sentences("Between services and this machine", one["protections"]),
    )


def _sentences(title: str, sentences: Sequence[str], look: str = "") -> Markup | None:
    if not sentences:
        return None
    content = element("h3", title), element("ul", [element("li", one) for one in sentences])
    return element("div", *content, class_=look)


def _figure(plot: Document) -> Markup:
    if not can_draw():
        words = (
            f"{plot['title']}: not drawn, matplotlib is missing; pip install 'packetcloud[bench]'"
        )
        return element("p", words, class_="warning")
    # Its texts are escaped by who draws it.
    return element("figure", trusted(svg_of(plot)), element("figcaption", plot["title"]))


def _rows(name: str, rows: Sequence[Document]) -> Markup:
    columns = columns_of(rows)
    shown = rows[:MAX_ROWS_COUNT]
    body = [element("tr", [_cell(row.get(column)) for column in columns]) for row in shown]
    rest = len(rows) - len(shown)
    more = element("p", f"{rest} more rows in {name}.csv", class_="facts") if rest > 0 else None
    heading = element("summary", f"{name}, {len(rows)} rows")
    titles = [column.replace("_", " ") for column in columns]
    is_open = {"open": "open"} if len(rows) <= MAX_OPEN_COUNT else {}
    return element("details", heading, _table(titles, body), more, **is_open)


def _machine(document: Document) -> Markup:
    facts = {
        **document["machine"],
        "kernel": document["kernel"],
        "python": document["python"],
        **document["packages"],
        "commit": document["commit"],
        "back-ends": ", ".join(document["back_ends"]),
        "seed": document["seed"],
    }
    rows = [element("tr", _cell(key), _cell(_plain(value))) for key, value in facts.items()]
    return element("section", element("h2", "Machine and software"), _table(["", ""], rows))


def _plain(value: object) -> object:
    return ", ".join(map(str, value)) if isinstance(value, list | tuple) else value


def _table(titles: Sequence[str], rows: Sequence[Markup]) -> Markup:
    head = element("thead", element("tr", [element("th", title) for title in titles]))
    return element("div", element("table", head, element("tbody", rows)), class_="wide")


def _cell(value: object) -> Markup:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    content: Content = number_text(value)
    return element("td", content, class_="number") if is_number else element("td", content)
