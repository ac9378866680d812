"""Looks of the chat: system fonts, a calm palette for light and dark, one column on phones.

Gradio writes every rule twice, once as it stands and once below ``.gradio-container``; rules inside ``@media`` only
the second way, so nothing outside the page (``body``, ``html``) can be styled there.
"""

from __future__ import annotations

from gradio.themes import Base, colors, sizes


def theme() -> Base:
    """Gradio's plain theme with our colours; its fonts are the reader's own, so nothing is fetched."""
    base = Base(
        primary_hue=colors.teal,
        secondary_hue=colors.stone,
        neutral_hue=colors.stone,
        text_size=sizes.text_md,
        radius_size=sizes.radius_lg,
        font=("ui-sans-serif", "system-ui", "sans-serif"),
        font_mono=("ui-monospace", "monospace"),
    )
    return base.set(
        body_background_fill="#faf9f7",
        body_background_fill_dark="#171513",
        body_text_color="#292524",
        body_text_color_dark="#e7e5e4",
        body_text_color_subdued="#57534e",
        body_text_color_subdued_dark="#b5afa9",
        background_fill_primary="#ffffff",
        background_fill_primary_dark="#211e1c",
        background_fill_secondary="#f5f4f1",
        background_fill_secondary_dark="#1c1a18",
        block_background_fill="#ffffff",
        block_background_fill_dark="#211e1c",
        block_label_text_color="#57534e",
        block_label_text_color_dark="#b5afa9",
        block_title_text_color="#44403c",
        block_title_text_color_dark="#d6d3d1",
        block_info_text_color="#57534e",
        block_info_text_color_dark="#b5afa9",
        block_border_width="1px",
        border_color_primary="#e2ded8",
        border_color_primary_dark="#3a3633",
        input_background_fill="#ffffff",
        input_background_fill_dark="#171513",
        input_border_color="#d3cec7",
        input_border_color_dark="#4a4541",
        input_border_width="1px",
        input_placeholder_color="#6b6560",
        input_placeholder_color_dark="#a39c96",
        button_primary_background_fill="#0f766e",
        button_primary_background_fill_hover="#115e59",
        button_primary_background_fill_dark="#0f766e",
        button_primary_text_color="#ffffff",
        button_secondary_background_fill="#ffffff",
        button_secondary_background_fill_hover="#f0ede9",
        button_secondary_background_fill_dark="#2a2724",
        button_secondary_background_fill_hover_dark="#38332f",
        button_secondary_text_color="#292524",
        button_secondary_text_color_dark="#e7e5e4",
        button_secondary_border_color="#d3cec7",
        button_secondary_border_color_dark="#4a4541",
        checkbox_label_background_fill="#ffffff",
        checkbox_label_background_fill_dark="#2a2724",
        checkbox_label_text_color_selected="#134e4a",
        checkbox_label_text_color_selected_dark="#ccfbf1",
        checkbox_label_background_fill_selected="#e3f4f1",
        checkbox_label_background_fill_selected_dark="#134e4a",
        checkbox_background_color_selected="#0f766e",
        checkbox_background_color_selected_dark="#2dd4bf",
        checkbox_border_color="#8a837c",
        checkbox_border_color_dark="#8a837c",
        checkbox_border_color_selected="#0f766e",
        checkbox_border_color_selected_dark="#2dd4bf",
        color_accent_soft="#e3f4f1",
        slider_color="#0f766e",
        slider_color_dark="#2dd4bf",
        link_text_color="#0f766e",
        link_text_color_dark="#5eead4",
        link_text_color_hover="#115e59",
        link_text_color_hover_dark="#99f6e4",
        link_text_color_visited="#0f766e",
        link_text_color_visited_dark="#5eead4",
    )


CSS = """
.gradio-container { max-width: 74rem !important; width: 100%; margin: 0 auto; overflow: visible !important;
  overflow-x: clip !important; --color-accent: var(--accent);
  --accent: #0f766e; --soft: #57534e; --bubble: #e3f4f1; --bubble-text: #134e4a; --mark: #fde68a;
  --serif: "Iowan Old Style", "Palatino Linotype", Palatino, "Book Antiqua", Georgia, serif; }
.dark .gradio-container, .gradio-container.dark { --accent: #5eead4; --soft: #b5afa9; --bubble: #134e4a;
  --bubble-text: #ccfbf1; --mark: #fcd34d; }
.gradio-container > .main { padding: clamp(.4rem, 3vw, 2rem) clamp(.6rem, 3vw, 2rem); }
.visually-hidden { position: absolute; width: 1px; height: 1px; margin: 0; overflow: hidden; clip-path: inset(50%);
  white-space: nowrap; }
.icon { width: 1.05em; height: 1.05em; flex: none; fill: none; stroke: currentColor; stroke-width: 1.8;
  stroke-linecap: round; stroke-linejoin: round; }

.title { display: flex; align-items: center; gap: .8rem; margin: .4rem 0; }
.title svg { width: 2.9rem; height: 2rem; fill: var(--accent); flex: none; }
.title h1 { font: 600 1.7rem/1.15 var(--serif); letter-spacing: .01em; margin: 0; }
.title p { color: var(--soft); margin: 0; font-size: .9rem; }

.conversation { display: flex; flex-direction: column; gap: 2rem; line-height: 1.6; padding: .5rem 0 1rem;
  position: relative; }
.welcome { padding: 1.5rem 0 .5rem; max-width: 52rem; }
.welcome h2 { font: 600 1.45rem/1.3 var(--serif); margin: 0 0 .3rem; }
.welcome p { color: var(--soft); margin: 0 0 1.1rem; max-width: 40rem; }
.examples { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 19rem), 1fr)); gap: .6rem; }
.ask { display: flex; justify-content: space-between; align-items: center; gap: .6rem; text-align: left;
  cursor: pointer;
  padding: .7rem .95rem; border: 1px solid var(--border-color-primary); border-radius: .8rem; font: inherit;
  background: var(--background-fill-primary); color: var(--body-text-color); }
.ask:hover { border-color: var(--accent); } .ask .icon { color: var(--accent); }

.turn { display: flex; flex-direction: column; gap: .9rem; overflow-wrap: anywhere; scroll-margin-top: 1rem; }
.turn + .turn { border-top: 1px solid var(--border-color-primary); padding-top: 1.6rem; }
.turn .question { align-self: flex-end; max-width: 85%; padding: .55rem 1rem; margin: 0; font: inherit;
  border-radius: 1.1rem 1.1rem .25rem 1.1rem; background: var(--bubble); color: var(--bubble-text);
  max-height: 14rem; overflow: auto; }
.turn .reply { display: grid; grid-template-columns: minmax(0, 1fr); gap: 1.2rem 2rem; align-items: start; }
.turn .answer p { margin: .2rem 0; }
.turn .answer .text { font: 1.13rem/1.65 var(--serif); }
.turn .answer ul.text { padding-left: 1.3em; list-style: disc; }
.turn .answer.silent { border-left: 3px solid var(--border-color-primary); padding-left: 1rem; }
.quiet, .turn .status { color: var(--soft); font-size: .875rem; }
.problem { color: #a8321a; } .dark .problem { color: #fca5a5; }
.turn .foot { display: flex; flex-wrap: wrap; gap: .4rem .7rem; align-items: center; margin-top: .8rem; }
.tools { display: flex; flex-wrap: wrap; gap: .1rem; align-items: center; margin-left: -.35rem; }
.tool { display: inline-flex; align-items: center; gap: .3rem; min-height: 2rem; padding: .25rem .45rem;
  cursor: pointer;
  font: inherit; font-size: .82rem; color: var(--soft); background: none; border: 0; border-radius: .5rem; }
.tool:hover { color: var(--accent); background: var(--background-fill-secondary); }
.tool[aria-pressed="true"] { color: var(--accent); } .tool[aria-pressed="true"] .icon { fill: currentColor; }
.chip { font-size: .8rem; padding: .1rem .7rem; border-radius: 1rem; border: 1px solid currentColor;
  white-space: nowrap; }
.chip.high { color: #0f766e; } .chip.fair { color: #875a08; } .chip.low { color: #a8321a; }
.dark .chip.high { color: #5eead4; } .dark .chip.fair { color: #fbbf24; } .dark .chip.low { color: #fca5a5; }
.nearest { display: flex; flex-wrap: wrap; align-items: center; gap: .4rem; margin-top: .6rem; }
.nearest p { color: var(--soft); font-size: .9rem; margin: 0 .3rem 0 0 !important; }
.nearest .ask { padding: .3rem .8rem; border-radius: 1rem; font-size: .9rem; min-height: 2rem; }

.cite { font: 600 .72rem/1.2 ui-sans-serif, system-ui, sans-serif; min-width: 1.5rem; min-height: 1.5rem;
  cursor: pointer;
  margin-left: .15rem; padding: 0 .3rem; border: 0; border-radius: .5rem; background: var(--bubble);
  color: var(--bubble-text); vertical-align: .1em; }
.turn sup { line-height: 0; top: -.3em; }
.cite:hover { outline: 1px solid var(--accent); }
.gradio-container :is(.cite, .tool, .ask, .source summary, .source blockquote, dialog .close, .reasons button,
  a):focus-visible,
.gradio-container .tab-container button:focus-visible { outline: 2px solid var(--accent); outline-offset: 2px; }

.sources h3 { font-size: .8rem; font-weight: 600; color: var(--soft); text-transform: uppercase; letter-spacing: .06em;
  margin: 0 0 .45rem; }
.source { border: 1px solid var(--border-color-primary); border-radius: .8rem; margin-bottom: .5rem; overflow: hidden;
  background: var(--background-fill-primary); }
.source.lit { border-color: var(--accent); box-shadow: 0 0 0 1px var(--accent); }
.source summary { display: flex; align-items: center; gap: .55rem; cursor: pointer; padding: .55rem .8rem;
  font-size: .9rem;
  list-style: none; }
.source summary::-webkit-details-marker { display: none; }
.source summary::after { content: ""; width: .45rem; height: .45rem; border: solid var(--soft);
  border-width: 0 1.5px 1.5px 0;
  transform: rotate(45deg); margin: 0 .2rem 0 auto; flex: none; }
.source[open] summary::after { transform: rotate(225deg); margin-top: .3rem; }
.source summary .where { font-weight: 500; }
.source .number { font-size: .72rem; font-weight: 600; min-width: 1.4rem; text-align: center; border-radius: .5rem;
  background: var(--bubble); color: var(--bubble-text); padding: .05rem .3rem; flex: none; }
.source blockquote { margin: 0; padding: .1rem .9rem .4rem; font: .97rem/1.6 var(--serif); max-height: 17rem;
  overflow: auto; border: 0; color: inherit; position: relative; }
.source mark, #article mark { background: var(--mark); color: #1c1917; padding: .08rem .12rem; border-radius: .2rem;
  box-decoration-break: clone; -webkit-box-decoration-break: clone; }
.source .origin { display: flex; flex-wrap: wrap; align-items: center; justify-content: space-between; gap: .2rem .8rem;
  padding: .3rem .5rem .4rem .9rem; border-top: 1px solid var(--border-color-primary); }
.badge { font: 500 .7rem/1.5 ui-sans-serif, system-ui, sans-serif; padding: 0 .5rem; border-radius: .5rem; flex: none;
  border: 1px solid currentColor; color: var(--soft); vertical-align: middle; }
.badge.books { color: #7a4b12; } .badge.games { color: #1d5f86; } .badge.tv { color: #7c3a7a; }
.dark .badge.books { color: #f0c58a; } .dark .badge.games { color: #8ecdf0; } .dark .badge.tv { color: #e5b1e3; }
.dots::after { content: "…"; animation: breathe 1.4s ease-in-out infinite; }
@keyframes breathe { 50% { opacity: .25; } }

.reasons { margin-top: .7rem; padding: .8rem 1rem; border: 1px solid var(--border-color-primary); border-radius: .8rem;
  background: var(--background-fill-primary); font-size: .9rem; }
.reasons[hidden] { display: none; }
.reasons fieldset { border: 0; margin: 0; padding: 0; } .reasons legend { font-weight: 600; margin-bottom: .3rem;
  padding: 0; }
.reasons label { display: flex; align-items: center; gap: .45rem; min-height: 1.9rem; }
.reasons input { appearance: auto; width: 1rem; height: 1rem; margin: 0; accent-color: #0f766e; }
.dark .reasons input { accent-color: #2dd4bf; }
.reasons .comment { flex-direction: column; align-items: stretch; gap: .2rem; margin: .4rem 0 .6rem; }
.reasons textarea { font: inherit; padding: .4rem .6rem; border: 1px solid var(--input-border-color);
  border-radius: .5rem;
  background: var(--input-background-fill); color: inherit; resize: vertical; }
.reasons button, #article .close { font: inherit; font-size: .9rem; padding: .35rem .9rem; border-radius: .6rem;
  cursor: pointer;
  margin-right: .5rem; border: 1px solid var(--input-border-color); background: none; color: inherit; }
.reasons .primary { background: #0f766e; border-color: #0f766e; color: #fff; }

.article { line-height: 1.6; overflow-wrap: anywhere; max-width: 46rem; }
.article h3 { font-size: 1.3rem; margin: 0; } .article h4 { font-size: 1.1rem; margin: 1rem 0 .2rem; }
.article h5, .article h6 { margin: .8rem 0 .2rem; } .article p { margin: .3rem 0; }
.article table { border-collapse: collapse; width: 100%; font-size: .875rem; margin-bottom: .8rem; }
.article th, .article td { text-align: left; padding: .25rem .5rem; vertical-align: top;
  border-bottom: 1px solid var(--border-color-primary); }
.article th { overflow-wrap: normal; }
.article blockquote { font-style: italic; border-left: 3px solid var(--border-color-primary); padding-left: .8rem;
  margin: .4rem 0; }
.article footer { margin-top: 1rem; font-size: .875rem; border-top: 1px solid var(--border-color-primary); }

#article { width: min(46rem, calc(100vw - 1.5rem)); max-height: min(85vh, 60rem); padding: 0; border-radius: 1rem;
  margin: auto;
  border: 1px solid var(--border-color-primary); background: var(--background-fill-primary);
  color: var(--body-text-color);
  overflow: hidden; }
#article[open] { display: flex; flex-direction: column; }
#article::backdrop { background: rgb(12 10 9 / .55); }
#article form { position: absolute; top: .7rem; right: .4rem; margin: 0; }
#article .close { background: var(--background-fill-primary); }
#article .body { overflow: auto; padding: 1.2rem 1.6rem 2rem; font: 1.03rem/1.65 var(--serif);
  overflow-wrap: anywhere; }
#article .body:focus { outline: none; }
#article h2 { font: 600 1.5rem/1.3 var(--serif); margin: 0 5rem .1rem 0; }
#article :is(h3, h4, h5, h6) { font: 600 1.12rem/1.4 var(--serif); margin: 1.3rem 0 .2rem; }
#article :is(table, footer) { font-family: ui-sans-serif, system-ui, sans-serif; }

.form:has(#question) { position: sticky; bottom: 0; z-index: 20; overflow: visible; border: 0; border-radius: 0;
  background: linear-gradient(transparent, var(--body-background-fill) 2.5rem);
  padding-bottom: .6rem; }
html { scroll-padding: 1rem 0 7rem; }
#question { padding: .55rem .7rem .6rem 1rem; border-radius: 1.1rem !important;
  border: 1px solid var(--input-border-color) !important; box-shadow: 0 6px 24px rgb(28 25 23 / .1); }
#question:focus-within { border-color: var(--accent) !important;
  box-shadow: 0 0 0 1px var(--accent), 0 6px 24px rgb(28 25 23 / .1); }
#question [data-testid="block-info"] { font-size: .8rem; color: var(--soft); margin: 0; }
#question textarea { border: 0 !important; box-shadow: none !important; background: transparent; font-size: 1.05rem;
  padding: .3rem 0; outline: 0; }
#question .submit-button, #question .stop-button { background: #0f766e; color: #fff; font-weight: 600;
  padding: .5rem 1.2rem; border-radius: .8rem; border: 0; }
#question .submit-button:hover { background: #115e59; } #question .stop-button { background: #57534e; }
.gradio-container:has(.turn.pending) #question .submit-button,
.gradio-container:not(:has(.turn.pending)) #question .stop-button { display: none; }
#controls { align-items: end; gap: .6rem 1rem; } #controls > button { flex: 0 0 auto !important; border-radius: .8rem;
  font-weight: 500; white-space: nowrap; }
#controls .form, #canon { border: 0; background: none; padding: 0; box-shadow: none; }
#canon [data-testid="block-info"] { font-size: .8rem; color: var(--soft); margin-bottom: .25rem; }
#canon .wrap { gap: .4rem; } #canon label { padding: .4rem .75rem; border-radius: .8rem; min-height: 2.25rem; }
#canon label:has(:focus-visible) { outline: 2px solid var(--accent); outline-offset: 1px; }
#options { border-radius: .8rem; } #options .form { border: 0; }

.about { max-width: 46rem; line-height: 1.65; padding: .5rem 0 2rem; }
.about h2 { font: 600 1.25rem/1.4 var(--serif); margin: 1.5rem 0 .3rem; } .about p, .about ol { margin: .4rem 0; }
.about ol { padding-left: 1.4rem; list-style: decimal; } .about li { margin: .25rem 0; }
.about kbd { font: .85em ui-monospace, monospace; padding: .05rem .35rem; border: 1px solid var(--input-border-color);
  border-radius: .3rem; }

@media (prefers-reduced-motion: reduce) { .dots::after { animation: none; } }
@media (max-width: 40rem) { .tool .word { display: none; } .tool { min-width: 2.4rem; min-height: 2.4rem;
  justify-content: center; }
  .tool.whole { min-width: 0; margin-left: -.45rem; } .examples { gap: .45rem; } .ask { padding: .55rem .8rem; }
  .welcome { padding-top: .5rem; } .welcome p { margin-bottom: .8rem; } #controls > button { flex-grow: 1 !important; }
  #rooms .tab-container button { padding: 0 .55rem; } .turn .answer .text { font-size: 1.06rem; } .title h1 {
  font-size: 1.4rem; } .turn .question { max-width: 94%; } }
@media (min-width: 60rem) { .turn .reply:has(.sources) { grid-template-columns: minmax(0, 1.1fr) minmax(0, 1fr); } }
"""
