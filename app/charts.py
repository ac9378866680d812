"""The charts of the "Look inside" tab: plain values in, Plotly figures out.

Plotly reads a little HTML (``<b>``, ``<a href>``, ``<br>``), entities and TeX between dollar signs in every text that
it shows, so whatever comes from an archive, a question or a model goes through ``plain`` first.  Colours are Okabe and
Ito's, which the colour-blind can tell apart, or cividis; letters and axes take the page's own colour (``app.inside``).
"""

from __future__ import annotations

import json
import textwrap
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import plotly.graph_objects as go
from gradio.components.plot import PlotData
from plotly.subplots import make_subplots

BLUE, ORANGE, GREEN, VERMILION, PURPLE, SKY, YELLOW, GREY = (
    "#0072b2", "#e69f00", "#009e73", "#d55e00", "#cc79a7", "#56b4e9", "#f0e442", "#8a8a8a",
)  # fmt: skip
PALETTE = (BLUE, ORANGE, GREEN, VERMILION, PURPLE, SKY, YELLOW)
SYMBOLS = ("circle", "square", "diamond", "triangle-up", "cross", "x", "triangle-down", "circle")
COLUMNS = 40  # characters in a row of token boxes: what a phone can show
SVG_POINTS = 4_000  # above so many points the map is drawn by WebGL, which is quick but not crisp
MONO = "ui-monospace, SFMono-Regular, Menlo, Consolas, monospace"

_SIGNS = str.maketrans({"&": "&amp;", "<": "&lt;", ">": "&gt;", "$": "&#36;", "{": "&#123;", "\n": " "})


def plain(text: str, width: int = 0) -> str:
    """Text that Plotly shows letter by letter; with ``width``, in lines of that many characters."""
    text = "".join(letter if letter.isprintable() or letter == "\n" else "\ufffd" for letter in text)
    lines = textwrap.wrap(text, width) or [""] if width else [text]
    return "<br>".join(line.translate(_SIGNS) for line in lines)


def short(text: str, limit: int) -> str:
    """``text`` cut to ``limit`` characters with an ellipsis; not yet escaped."""
    return text if len(text) <= limit else text[: limit - 1].rstrip() + "…"


def plot(figure: go.Figure, *, tools: bool = False) -> PlotData:
    """The figure as Gradio sends it, with Plotly's buttons only where there is something to zoom into."""
    layout = {
        "template": "none",
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "font": {"color": "#767676", "size": 13},
        "modebar": {"bgcolor": "rgba(0,0,0,0)", "color": GREY, "activecolor": ORANGE},
        "hoverlabel": {"bgcolor": "#1c1917", "bordercolor": "#1c1917", "font": {"color": "#fafaf9"}, "align": "left"},
    }
    figure.update_layout(layout)
    config: dict[str, Any] = {"displaylogo": False, "displayModeBar": tools, "scrollZoom": False}
    if tools:
        config["modeBarButtonsToRemove"] = ["select2d", "lasso2d", "toImage", "autoScale2d"]
    return PlotData(type="plotly", plot=json.dumps({**json.loads(figure.to_json()), "config": config}))


# -- tokens --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Box:
    """One token as a box: ``colour`` is a CSS colour or a value between 0 and 1; ``strip`` a passage's number."""

    text: str
    hover: str  # already ``plain``
    colour: float | str = BLUE
    strip: int = 0
    marked: bool = False


def visible(text: str) -> str:
    """A token's text with its spaces and line ends to be seen."""
    return text.replace(" ", "·").replace("\n", "⏎").replace("\t", "⇥") or "∅"


def rows_of(boxes: Sequence[Box], columns: int = COLUMNS) -> list[tuple[int, int, int]]:
    """(row, column, width) of each box, broken into rows of ``columns`` characters; a longer box gets its own row."""
    places, row, column = [], 0, 0
    for box in boxes:
        width = max(2, min(len(visible(box.text)), columns - 1) + 1)
        if column and column + width > columns:
            row, column = row + 1, 0
        places.append((row, column, width))
        column += width
    return places


def tokens(boxes: Sequence[Box], *, scale: bool = False) -> PlotData:
    """Boxes in reading order.  ``scale``: colours are probabilities and a colour bar says so; strips below the boxes
    show the passage that a run of tokens was copied from, hatching those that were speculated."""
    places = rows_of(boxes)
    lines = 1 + max((row for row, _, _ in places), default=0)
    figure = go.Figure()
    marker: dict[str, Any] = {"color": [box.colour for box in boxes], "line": {"width": 1, "color": GREY}}
    if scale:
        bar = {
            "orientation": "h",
            "x": 0,
            "xanchor": "left",
            "y": 1,
            "yanchor": "bottom",
            "len": 0.6,
            "thickness": 8,
            "tickformat": ".0%",
            "tickvals": [0, 0.5, 1],
            "title": {"text": "probability", "font": {"size": 12}},
        }
        marker |= {"colorscale": "Cividis", "cmin": 0.0, "cmax": 1.0, "colorbar": bar}
    marker["pattern"] = {
        "shape": ["/" if box.marked else "" for box in boxes], "fillmode": "overlay", "fgcolor": "#d55e00",
        "solidity": 0.2, "size": 6,
    }  # fmt: skip
    figure.add_bar(
        orientation="h",
        base=[column for _, column, _ in places],
        x=[width - 0.15 for _, _, width in places],
        y=[-row for row, _, _ in places],
        width=0.6,
        text=[plain(short(visible(box.text), COLUMNS - 2)) for box in boxes],
        textposition="inside",
        insidetextanchor="middle",
        textangle=0,
        constraintext="none",
        textfont={"family": MONO, "size": 12, "color": [_ink(box.colour) for box in boxes]},
        hovertext=[box.hover for box in boxes],
        hoverinfo="text",
        marker=marker,
    )
    strips = [(place, box.strip) for place, box in zip(places, boxes, strict=True) if box.strip]
    if strips:
        figure.add_bar(
            orientation="h",
            base=[column for (_, column, _), _ in strips],
            x=[width for (_, _, width), _ in strips],
            y=[-row - 0.4 for (row, _, _), _ in strips],
            width=0.14,
            marker={"color": [PALETTE[(n - 1) % len(PALETTE)] for _, n in strips]},
            hovertext=[f"copied from passage {n}" for _, n in strips],
            hoverinfo="text",
        )
        labels = [(place, n) for at, (place, n) in enumerate(strips) if not at or strips[at - 1][1] != n]
        figure.add_scatter(
            x=[column for (_, column, _), _ in labels],
            y=[-row - 0.56 for (row, _, _), _ in labels],
            text=[f"[{n}]" for _, n in labels],
            mode="text",
            textposition="middle right",
            textfont={"size": 10},
            hoverinfo="skip",
        )
    figure.update_layout(
        barmode="overlay",
        showlegend=False,
        height=16 + (48 * lines + 60 if scale else 36 * lines),
        margin={"l": 4, "r": 4, "t": 68 if scale else 8, "b": 8},
        dragmode=False,
        xaxis={"visible": False, "range": [-0.3, COLUMNS + 0.3], "fixedrange": True},
        yaxis={"visible": False, "range": [-lines + 0.25, 0.5], "fixedrange": True},
    )
    return plot(figure)


def _ink(colour: float | str) -> str:
    """What can be read on a box: cividis is light from somewhat below its middle."""
    return "#ffffff" if isinstance(colour, str) or colour < 0.45 else "#000000"


def experts(counts: np.ndarray) -> PlotData:
    """How often each expert was chosen: ``counts[layer, expert]``, tokens."""
    layers, number = counts.shape
    figure = go.Figure(
        go.Heatmap(
            z=counts,
            x=[f"expert {at}" for at in range(number)],
            y=[f"layer {at}" for at in range(layers)],
            text=[[f"layer {row}, expert {at}: {int(counts[row, at])} tokens" for at in range(number)]
                  for row in range(layers)],
            hoverinfo="text",
            colorscale="Cividis",
            colorbar={"title": {"text": "tokens", "side": "right"}, "thickness": 10},
        )
    )  # fmt: skip
    figure.update_layout(height=120 + 34 * layers, margin={"l": 70, "r": 10, "t": 10, "b": 50}, dragmode=False)
    return plot(figure)


# -- candidates and timings ----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Bar:
    """One candidate passage: its scores by stage with their ranks, None where a stage did not see it."""

    label: str
    scores: tuple[tuple[float | None, int | None], ...]  # one for each of the stages
    state: str = ""  # "cited", "read" or neither


STATES = {"cited": ORANGE, "read": BLUE, "": GREY}


def candidates(stages: Sequence[str], bars: Sequence[Bar]) -> PlotData:
    """Scores of every candidate side by side: a column a stage, a row a passage, best first from the top."""
    figure = make_subplots(rows=1, cols=len(stages), shared_yaxes=True, horizontal_spacing=0.02)
    rows = list(range(len(bars)))
    for column, stage in enumerate(stages, 1):
        scores = [bar.scores[column - 1] for bar in bars]
        top = max((score for score, _ in scores if score is not None), default=1.0)
        low = min((score for score, _ in scores if score is not None), default=0.0)
        figure.add_bar(
            orientation="h",
            x=[score if score is not None else 0.0 for score, _ in scores],
            y=rows,
            width=0.7,
            text=[f"#{rank}" if rank else "" for _, rank in scores],
            textposition="outside",
            cliponaxis=False,
            textfont={"size": 11},
            hovertext=[
                f"{plain(bar.label, 60)}<br>{stage}: {_score(score, rank) or 'not found by this stage'}"
                for bar, (score, rank) in zip(bars, scores, strict=True)
            ],
            hoverinfo="text",
            marker={"color": [STATES[bar.state] for bar in bars]},
            row=1,
            col=column,
        )
        figure.update_xaxes(
            title={"text": stage, "font": {"size": 12}}, nticks=3, tickangle=0, tickfont={"size": 10}, showgrid=False,
            fixedrange=True, zeroline=True, zerolinecolor=GREY,
            range=[min(0.0, low) * 1.35, max(top, 0.0) * 1.35 + (top <= 0) * 1e-3], row=1, col=column,
        )  # fmt: skip
    figure.update_yaxes(range=[len(bars) - 0.4, -0.6], fixedrange=True, showgrid=False, zeroline=False)
    figure.update_yaxes(
        tickmode="array", tickvals=rows, automargin=True, tickfont={"size": 11},
        ticktext=[plain(f"{row + 1}. {short(bar.label, 20)}") for row, bar in enumerate(bars)], row=1, col=1,
    )  # fmt: skip
    figure.update_layout(
        showlegend=False, height=90 + 26 * len(bars), margin={"l": 10, "r": 10, "t": 10, "b": 50}, dragmode=False
    )
    return plot(figure)


def _score(score: float | None, rank: int | None) -> str:
    if score is None:
        return ""
    shown = f"{score:.1f}" if abs(score) >= 10 else f"{score:.2f}" if abs(score) >= 0.1 else f"{score:.3f}"
    return f"{shown} (#{rank})" if rank else shown


def timings(parts: Sequence[tuple[str, float]], first_token: float | None = None) -> PlotData:
    """One stacked bar of (stage, milliseconds); ``first_token`` is a moment in it."""
    figure = go.Figure()
    shapes = ("", "/", "x", "\\", ".", "+", "-")
    for at, (stage, ms) in enumerate(parts):
        figure.add_bar(
            orientation="h", name=plain(stage), x=[ms], y=[""], width=0.6,
            text=[f"{ms:.0f}"], textposition="inside", insidetextanchor="middle", textangle=0,
            hovertext=[f"{plain(stage)}: {ms:.1f} ms"], hoverinfo="text",
            marker={"color": PALETTE[at % len(PALETTE)], "line": {"width": 1, "color": "#ffffff"},
                    "pattern": {"shape": shapes[at % len(shapes)], "fillmode": "overlay", "fgcolor": "#ffffff",
                                "fgopacity": 0.35, "solidity": 0.15}},
        )  # fmt: skip
    if first_token is not None:
        figure.add_vline(x=first_token, line={"color": GREY, "dash": "dash", "width": 2})
        figure.add_annotation(
            x=first_token, y=1, yref="paper", yanchor="bottom", text="first token", showarrow=False,
            font={"size": 11},
        )  # fmt: skip
    figure.update_layout(
        barmode="stack", height=250, margin={"l": 10, "r": 10, "t": 26, "b": 30}, dragmode=False,
        legend={"orientation": "h", "y": -0.3, "yanchor": "top", "traceorder": "normal"},
        xaxis={"ticksuffix": " ms", "nticks": 5, "fixedrange": True, "zeroline": False, "showgrid": False},
        yaxis={"visible": False, "fixedrange": True},
    )  # fmt: skip
    return plot(figure)


# -- the map -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Lit:
    """A passage that stands out on the map."""

    x: int
    y: int
    label: str  # short, e.g. "[1]"
    hover: str  # not yet escaped
    state: str  # as in ``Bar``


def points(xy: np.ndarray, headings: Sequence[str], groups: Sequence[str]) -> list[dict[str, Any]]:
    """Traces of the map's points: ``xy`` (n, 2) int16, a heading and the name of a group each; the seven largest
    groups have a colour and a shape of their own, the rest share one."""
    order = [name for name, _ in sorted(Counter(groups).items(), key=lambda pair: (-pair[1], pair[0]))]
    shown = order[: len(PALETTE)]
    rest = "other" if len(order) > len(shown) else ""
    kind = "scatter" if len(xy) <= SVG_POINTS else "scattergl"
    traces = []
    of = np.array([name if name in shown else rest for name in groups], dtype=object)
    for at, name in enumerate([*shown, *([rest] if rest else [])]):
        picked = np.flatnonzero(of == name).tolist()
        traces.append(
            {
                "type": kind, "mode": "markers", "name": plain(name), "hoverinfo": "text",
                "x": xy[picked, 0], "y": xy[picked, 1], "hovertext": [plain(short(headings[i], 90)) for i in picked],
                "marker": {"color": PALETTE[at] if at < len(PALETTE) else GREY, "size": 5, "opacity": 0.8,
                           "symbol": SYMBOLS[at]},
            }
        )  # fmt: skip
    return traces


def embedding_map(traces: Sequence[dict[str, Any]], lit: Sequence[Lit], question: tuple[int, int] | None) -> PlotData:
    """The corpus with the question and its passages on top."""
    figure = go.Figure([*traces])
    for state, name in (("", "found"), ("read", "read by the decoder"), ("cited", "cited")):
        these = [each for each in lit if each.state == state]
        if not these:
            continue
        figure.add_scatter(
            x=[each.x for each in these], y=[each.y for each in these], name=name, mode="markers+text",
            text=[plain(each.label) for each in these], textposition="top center", textfont={"size": 12},
            hovertext=[plain(each.hover, 60) for each in these], hoverinfo="text",
            marker={"symbol": "circle-open", "size": 15, "color": STATES[state], "line": {"width": 3}},
        )  # fmt: skip
    if question is not None:
        figure.add_scatter(
            x=[question[0]], y=[question[1]], name="your question", mode="markers+text", text=["question"],
            textposition="bottom center", textfont={"size": 13}, hovertext=["your question"], hoverinfo="text",
            marker={"symbol": "star", "size": 19, "color": VERMILION, "line": {"width": 1.5, "color": "#ffffff"}},
        )  # fmt: skip
    axis = {"showticklabels": False, "showgrid": False, "zeroline": False, "showline": True, "linecolor": GREY,
            "mirror": True}  # fmt: skip
    figure.update_layout(
        height=560, margin={"l": 6, "r": 6, "t": 34, "b": 6}, xaxis=axis, yaxis=axis, hovermode="closest",
        legend={"orientation": "h", "y": -0.02, "itemsizing": "constant"},
        dragmode="zoom",
    )  # fmt: skip
    return plot(figure, tools=True)
