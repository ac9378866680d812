"""The "Look inside" tab: how the last answer came about, drawn from what the pipeline kept of that very run.

``tab`` builds the components; ``Inside.draw`` gives their values for an answer.  Every chart has a sentence or two that
says what it shows, and a table or a summary with the same content for those who cannot see it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import gradio as gr

from app import charts
from app.answer import Answer
from app.embedding_map import Layout, Maps, facts
from app.inside_views import (
    Focus,
    View,
    candidate_view,
    draft_view,
    expert_view,
    focus_of,
    note,
    question_view,
    section,
    timing_view,
)
from app.render import CANONS
from corpus.errors import CirillaError

if TYPE_CHECKING:
    from app.pipeline import Pipeline

COLOURINGS = (("Kind of article", "kind"), ("Canon", "canon"))
MAP = section(
    "Map of the archive",
    "Every dot is a passage; the encoder turned each into a vector, and passages with similar vectors lie close "
    "together. The question is a vector too: dense search returns the passages nearest to it. Draw a box to zoom in, "
    "double-click to see everything again.",
)

# Plotly's own letters take the page's colour, in light and dark; texts inside bars keep what Plotly chose for contrast.
STYLE = """<style>
.inside h3 { font-size: 1.05rem; margin: 1.2rem 0 .2rem; } .inside p { margin: .2rem 0; max-width: 50rem; }
.inside table { border-collapse: collapse; width: 100%; font-size: .85rem; }
.inside th, .inside td { text-align: left; padding: .25rem .5rem; vertical-align: top;
  border-bottom: 1px solid var(--border-color-primary); }
.inside .scroll { overflow-x: auto; max-height: 24rem; } .inside td.n { white-space: nowrap; }
.inside summary { cursor: pointer; padding: .2rem 0; } .inside { overflow-wrap: anywhere; }
.inside td { overflow-wrap: normal; } .inside mark { background: #fde68a; color: #1c1917; }
.inside-plot [class$="tick"] text, .inside-plot .legendtext,
.inside-plot .infolayer [class*="title"] text, .inside-plot .cbaxis text, .inside-plot .annotation-text,
.inside-plot .textpoint text, .inside-plot .bartext-outside { fill: var(--body-text-color) !important; }
.inside-tokens { max-width: 36rem; }
</style>"""

# A chart is one figure with a name to a screen reader; what is in it stands in the text and table beside it.
NAME_CHARTS = """
const name = () => document.querySelectorAll('.inside-plot').forEach((plot) => {
  plot.setAttribute('role', 'figure');
  plot.setAttribute('aria-label', (plot.id || '').replace(/^inside-/, 'Chart: ').replaceAll('-', ' ')
    + '. The text beside it says the same.');
});
name();
new MutationObserver(name).observe(document.body, { childList: true, subtree: true });  // charts come and go
"""


class Inside:
    """The tab's components in ``outputs``, and their values for an answer."""

    outputs: list[Any]

    def __init__(self, pipeline: Pipeline) -> None:
        self.pipeline = pipeline
        self.maps = Maps(pipeline.settings.data / "map")
        self._traces: tuple[tuple[Any, ...], list[dict[str, Any]]] | None = None  # of the map last drawn
        self.outputs = []

    def draw(self, answer: Answer | None) -> list[Any]:
        """Values for ``outputs``; None stands for a conversation without an answer yet."""
        focus = focus_of(answer)
        tokenizer = getattr(self.pipeline.encoder, "tokenizer", None)
        views = [question_view(tokenizer, answer), candidate_view(answer), self.map_view(focus), draft_view(answer)]
        views += [expert_view(answer), timing_view(answer)]
        return [*(value for view in views for value in shown(view)), "kind", focus]

    def map_view(self, focus: Focus, colour: str = "kind") -> View:
        """The map of the corpus, with what ``focus`` names lit; passages coloured by kind or canon."""
        pipeline = self.pipeline
        store, index = pipeline.store, getattr(pipeline.searcher, "index", None)
        model = getattr(pipeline.encoder, "model_hash", None)
        if index is None or model is None:
            return MAP + note("This index keeps no vectors that could be drawn."), None
        try:
            layout = self.maps.layout(store, index, model)
            traces = self._points(layout, index.manifest.sha256, colour)
            place = None
            if focus.question:
                place = layout.place(pipeline.encoder.encode_queries([focus.question[:1_000]])[0], index)
            lit = self._lit(layout, focus)
        except CirillaError as error:
            return MAP + note(str(error)), None
        said = []
        if len(layout.ids) < layout.total:
            said.append(f"{len(layout.ids):,} of {layout.total:,} passages are shown.")
        if layout.method == "components":
            said.append("This is a first sketch by principal components; a better map is being computed and will be "
                        "here the next time.")  # fmt: skip
        else:
            said.append(f"The map squeezes {index.manifest.dimension} dimensions into two: it keeps many neighbours "
                        "together, but distances between far-off groups mean little.")  # fmt: skip
        if place:
            said.append("The question stands in the middle of its five nearest passages on the map.")
        if lit:
            said.append("Lit passages: " + "; ".join(f"{each.label} {each.hover}" for each in lit[:6]) + ".")
        return MAP + note(" ".join(said)), charts.embedding_map(traces, lit, place)

    def _points(self, layout: Layout, version: str, colour: str) -> list[dict[str, Any]]:
        key = (version, layout.method, colour)
        held = self._traces
        if held is None or held[0] != key:
            known = facts(self.pipeline.store, [int(id) for id in layout.ids])
            groups = [
                (CANONS.get(canon, "any telling") if colour == "canon" else kind or "no kind")
                for _, kind, canon in known
            ]
            held = self._traces = (key, charts.points(layout.xy, [heading for heading, _, _ in known], groups))
        return held[1]

    def _lit(self, layout: Layout, focus: Focus) -> list[charts.Lit]:
        """The focus's passages with their places; those outside a sample lie among their neighbours."""
        lit = []
        for id, label, hover, state in focus.passages:
            place = layout.of(id)
            if place is None:
                passage = self.pipeline.store.passage(id)
                if passage is None:
                    continue
                vector = self.pipeline.encoder.encode_passages([(passage.heading, passage.text)])[0]
                place = layout.place(vector, self.pipeline.searcher.index)  # type: ignore[attr-defined]
            if place is not None:
                lit.append(charts.Lit(*place, label, hover, state))
        return lit


def shown(view: View) -> tuple[str, Any]:
    """A section's values: where there is nothing to draw, its chart is not there at all."""
    return view[0], gr.update(value=view[1], visible=view[1] is not None)


def tab(pipeline: Pipeline) -> Inside:
    """Build the tab's components, inside ``with gr.Tab(…)``."""
    inside = Inside(pipeline)
    gr.HTML(
        f'{STYLE}<p class="inside">A language model alone would answer from memory. Cirilla looks things up first: it '
        "searches, weighs sentences, reads a few passages and is then checked against them. Here is the last answer, "
        "step by step.</p>",
        js_on_load=NAME_CHARTS, apply_default_css=False,
    )  # fmt: skip
    outputs = inside.outputs

    def chart(view: View, name: str, *classes: str) -> None:
        outputs.append(gr.HTML(view[0], apply_default_css=False, elem_classes="inside"))
        outputs.append(
            gr.Plot(label=name.replace("-", " "), show_label=False, container=False, visible=False,
                    elem_id=f"inside-{name}", elem_classes=["inside-plot", *classes])
        )  # fmt: skip

    chart(question_view(None, None), "tokens-of-the-question", "inside-tokens")
    chart(candidate_view(None), "candidates")
    chart((MAP + note("The map is drawn with the first answer."), None), "map-of-the-archive")
    drawn = outputs[-2:]
    colour = gr.Radio(COLOURINGS, value="kind", label="Colour of the dots")
    chart(draft_view(None), "tokens-of-the-draft", "inside-tokens")
    chart(expert_view(None), "experts")
    chart(timing_view(None), "time-by-stage")
    focus = gr.State(Focus())
    outputs += [colour, focus]
    colour.input(
        lambda *asked: shown(inside.map_view(*asked)),
        [focus, colour],
        drawn,
        queue=False,
        show_progress="hidden",
        api_visibility="private",
    )
    return inside
