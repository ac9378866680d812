"""Looks of the chat: system fonts, a calm palette for light and dark, one column on phones."""

from __future__ import annotations

from gradio.themes import Base, colors, sizes


def theme() -> Base:
    """Gradio's plain theme with our colours; its fonts are the reader's own, so nothing is fetched."""
    return Base(
        primary_hue=colors.teal,
        secondary_hue=colors.stone,
        neutral_hue=colors.stone,
        text_size=sizes.text_md,
        radius_size=sizes.radius_md,
        font=("ui-sans-serif", "system-ui", "sans-serif"),
        font_mono=("ui-monospace", "monospace"),
    )


CSS = """
.gradio-container { max-width: 72rem !important; margin: 0 auto; }
.title h1 { font-size: 1.6rem; margin: .5rem 0 0; letter-spacing: .01em; }
.title p { color: #57534e; margin: .1rem 0 .5rem; }
.conversation { display: flex; flex-direction: column; gap: 1.5rem; min-height: 8rem; line-height: 1.6; }
.conversation .welcome { color: #57534e; margin: 2rem 0; }
.turn { display: flex; flex-direction: column; gap: .6rem; overflow-wrap: anywhere; }
.turn .question { align-self: flex-end; max-width: 85%; padding: .5rem .9rem; border-radius: 1rem 1rem .2rem 1rem;
  background: var(--primary-100); color: #134e4a; max-height: 14rem; overflow: auto; }
.dark .turn .question { background: #134e4a; color: #e6fffb; }
.turn .reply { display: grid; grid-template-columns: minmax(0, 1fr); gap: 1rem; align-items: start; }
.turn .answer p { margin: .2rem 0; }
.turn .answer.silent { border-left: 3px solid var(--border-color-primary); padding-left: .8rem; }
.turn .quiet, .turn .status, .source .quiet { color: #57534e; font-size: .875rem; }
.dark .turn .quiet, .dark .turn .status, .dark .source .quiet, .dark .title p,
.dark .welcome { color: #a8a29e !important; }
.turn .foot { display: flex; gap: .6rem; align-items: center; margin-top: .5rem !important; }
.chip { font-size: .8rem; padding: .1rem .6rem; border-radius: 1rem; border: 1px solid currentColor; }
.chip.high { color: #0f766e; } .chip.fair { color: #92600a; } .chip.low { color: #b3391f; }
.dark .chip.high { color: #5eead4; } .dark .chip.fair { color: #fbbf24; } .dark .chip.low { color: #fca5a5; }
.cite { font: inherit; font-size: .75rem; line-height: 1; padding: .1rem .35rem; margin-left: .1rem; cursor: pointer;
  border: 1px solid var(--border-color-primary); border-radius: .4rem; background: var(--background-fill-secondary);
  color: #0f766e; }
.dark .cite { color: #5eead4; }
.cite:focus-visible, .source summary:focus-visible { outline: 2px solid #0f766e; outline-offset: 2px; }
.sources h3 { font-size: .875rem; font-weight: 600; margin: 0 0 .3rem; }
.source { border: 1px solid var(--border-color-primary); border-radius: .6rem; margin-bottom: .5rem;
  background: var(--background-fill-secondary); }
.source.lit { outline: 2px solid #0f766e; }
.source summary { cursor: pointer; padding: .45rem .7rem; font-size: .9rem; }
.source .number { font-weight: 600; margin-right: .2rem; }
.source blockquote { margin: 0; padding: .2rem .8rem; font-size: .9rem; max-height: 18rem; overflow: auto; border: 0; }
.source p { margin: .2rem 0 .5rem; padding: 0 .8rem; font-size: .85rem; }
.source mark { background: #fde68a; color: #1c1917; padding: .05rem .1rem; border-radius: .2rem; }
.badge { font-size: .7rem; padding: .05rem .45rem; border-radius: .4rem; border: 1px solid currentColor; }
.dots::after { content: "…"; animation: breathe 1.4s ease-in-out infinite; }
@keyframes breathe { 50% { opacity: .2; } }
@media (prefers-reduced-motion: reduce) { .dots::after { animation: none; } }
.visually-hidden { position: absolute; width: 1px; height: 1px; overflow: hidden; clip-path: inset(50%); }
.examples button { font-weight: 400; }
@media (min-width: 60rem) { .turn .reply:has(.sources) { grid-template-columns: minmax(0, 1.15fr) minmax(0, 1fr); } }
"""

ON_LOAD = """
element.addEventListener('click', (event) => {
  const cite = event.target.closest('.cite');
  if (!cite) return;
  const source = document.getElementById(cite.dataset.source);
  if (!source) return;
  source.open = true;
  document.querySelectorAll('.source.lit').forEach((other) => other.classList.remove('lit'));
  source.classList.add('lit');
  source.scrollIntoView({ behavior: 'smooth', block: 'nearest' });
  source.querySelector('summary').focus({ preventScroll: true });
  const mark = source.querySelector('mark');
  const box = source.querySelector('blockquote');
  if (mark && box) box.scrollTop = Math.max(0, mark.offsetTop - box.offsetTop - 40);
});
"""
"""Clicking a citation opens its source and brings the marked quote into view."""
