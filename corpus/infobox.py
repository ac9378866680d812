"""Infoboxes → facts and sentences, data tables → lines."""

from __future__ import annotations

import re

from bs4 import Tag

from corpus import canon
from corpus.markup import Gatherer, classes_of, is_noise, line_of
from corpus.types import FACTS_PATH, Canon, Fact, Section

_UNKNOWN: Canon = ""


def fact_line(title: str, fact: Fact) -> str:
    """One infobox row as a line that can be searched and quoted: ``Ciri — mother: Pavetta.``

    Chosen over "Ciri's mother: …" and "Mother of Ciri: …" because it holds for every label a wiki may have ("died",
    "brewed from", "appears in" are no nouns), and because title, label and value stay word for word what a reader
    and the search would type, with no possessive glued to a name that ends in s.
    """
    label = fact.label.strip().rstrip(":")
    if label[1:2].islower() or len(label) == 1:
        label = label[:1].lower() + label[1:]
    tag = f" ({fact.canon})" if fact.canon and fact.canon not in label.casefold() else ""
    joint = "; " if any("," in value for value in fact.values) else ", "
    values = joint.join(" ".join(value.split()) for value in fact.values)
    return f"{title} — {label}{tag}: {values}{'' if values.endswith(('.', '!', '?', '…')) else '.'}"


def facts_section(
    title: str, facts: tuple[Fact, ...], page_canon: Canon = "", references: tuple[str, ...] = ()
) -> tuple[Section, ...]:
    """The infobox as a section of its own, one fact a line; empty where there are no facts."""
    if not facts:
        return ()
    text = "\n".join(fact_line(title, fact) for fact in facts)
    return (Section(path=FACTS_PATH, text=text, canon=page_canon, references=references),)


def table_cells(table: Tag) -> list[list[Tag]]:
    """The cells of a table's own visible rows; nested tables are not looked into."""
    rows: list[list[Tag]] = []
    stack = [iter(table.contents)]
    while stack:
        child = next(stack[-1], None)
        if child is None:
            stack.pop()
        elif isinstance(child, Tag) and not is_noise(child):
            if child.name == "tr":
                rows.append([])
            if child.name in ("td", "th"):
                if rows:
                    rows[-1].append(child)
            elif child.name != "table":
                stack.append(iter(child.contents))
    return [row for row in rows if row]


def _span(cell: Tag, attribute: str) -> int:
    value = str(cell.attrs.get(attribute, "1")).strip()
    return min(int(value), 60) if value.isascii() and value.isdigit() and len(value) < 6 else 1


def table_lines(rows: list[list[Tag]]) -> list[str]:
    """``Header: value; Header: value`` for every row of data; a row of headers holds until the next one."""
    lines: list[str] = []
    headers: list[str] = []
    carried: dict[int, tuple[int, str]] = {}  # column → rows it still reaches down, text
    for row in rows:
        line: list[str] = []
        for cell in row:
            while (held := carried.get(len(line))) is not None:
                carried.pop(len(line))
                if held[0] > 1:
                    carried[len(line)] = (held[0] - 1, held[1])
                line.append(held[1])
            text = line_of(cell)
            down = _span(cell, "rowspan")
            if down > 1:
                carried[len(line)] = (down - 1, text)
            line += [text] + [""] * (_span(cell, "colspan") - 1)
        if all(cell.name == "th" for cell in row):
            if len(row) > 1:
                headers = line
            elif line[0]:
                lines.append(line[0])  # a title across the table
            continue
        pairs = [(headers[i] if i < len(headers) else "", text) for i, text in enumerate(line) if text]
        if not headers and len(pairs) > 1 and row[0].name == "th":
            pairs = [(pairs[0][1], "; ".join(text for _, text in pairs[1:]))]
        lines.append("; ".join(f"{header.rstrip(':')}: {text}" if header else text for header, text in pairs))
    return [line for line in lines if line]


def _values(text: str) -> tuple[str, ...]:
    """The lines of an infobox value; a line that only qualifies the one before ("(adopted)") stays with it."""
    values: list[str] = []
    for line in text.split("\n"):
        item = line.removeprefix("•").strip(" ,;")
        if item.startswith("(") and values:
            values[-1] += " " + item
        elif item:
            values.append(item)
    return tuple(values)


def portable_facts(aside: Tag, cited: list[str]) -> list[Fact]:
    """Rows of a portable infobox.  The canon of a row comes from its group's header or its tab's label."""
    facts: list[Fact] = []
    labels: dict[str, str] = {}
    tabs: list[str] = []
    panels: list[int] = []
    for tag in aside.descendants:
        if not isinstance(tag, Tag) or "class" not in tag.attrs:
            continue
        classes = classes_of(tag)
        if "wds-tabs__tab-label" in classes:
            tabs.append(line_of(tag))
        elif "wds-tab__content" in classes:
            panels.append(id(tag))
        is_label = "pi-data-label" in classes or "pi-smart-data-label" in classes
        if not is_label and "pi-data-value" not in classes and "pi-smart-data-value" not in classes:
            continue
        source, where = str(tag.attrs.get("data-source", "")), _UNKNOWN
        for depth, parent in enumerate(tag.parents):
            if parent is aside or depth > 12:
                break
            source = source or str(parent.attrs.get("data-source", ""))
            if id(parent) in panels and panels.index(id(parent)) < len(tabs):
                where = where or canon.of_heading(tabs[panels.index(id(parent))])
            elif parent.name == "section":
                head = next((c for c in parent.contents if isinstance(c, Tag) and "pi-header" in classes_of(c)), None)
                where = where or (canon.of_heading(line_of(head)) if head else "")
        if is_label:
            labels[source] = line_of(tag)
            continue
        gathered = Gatherer().add(tag)
        values = _values(gathered.text)
        label = labels.get(source, "") or source.replace("_", " ").strip().capitalize()
        if values and label:
            cited += gathered.cited
            facts.append(Fact(key=source or _slug(label), label=label, values=values, canon=where))
        if not source:
            labels.pop("", None)  # a row without data-source: its label must not reach the next one
    return facts


def _slug(label: str) -> str:
    return re.sub(r"\W+", "_", label.casefold()).strip("_")


def legacy_facts(table: Tag, cited: list[str]) -> list[Fact]:
    """Two-celled rows of an old ``table.infobox``; titles, pictures and captions span it and have one cell."""
    facts = []
    for row in table_cells(table):
        if len(row) != 2:
            continue
        label, gathered = line_of(row[0]).rstrip(": "), Gatherer().add(row[1])
        values = _values(gathered.text)
        if label and values and len(label.split()) <= 6:
            cited += gathered.cited
            facts.append(Fact(key=_slug(label), label=label, values=values))
    return facts
