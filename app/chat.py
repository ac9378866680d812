"""The chat page: one column of turns, a question box, a choice of canon."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from typing import Any, Protocol

os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # before gradio is imported: nothing is reported to anyone

import gradio as gr

from app import followup
from app.answer import Draft, Event, Final, Status
from app.render import CANONS, Turn, conversation
from app.settings import Settings
from app.theme import ON_LOAD

EXAMPLES = (
    "Who is Ciri's mother?",
    "What is the Trial of the Grasses?",
    "Where do the witchers of the School of the Wolf live?",
    "Who voices Geralt in The Witcher 3?",
)
REMEMBERED = 6  # turns that a follow-up may refer to
SHOWN = 50  # turns kept on the page; older ones go, so that a long evening does not slow the browser
PASTE_LIMIT = 20_000  # characters of a question that are kept at all; the pipeline reads far fewer

TITLE = (
    '<div class="title"><h1>Cirilla</h1><p>A chat about the world of the Witcher that shows its sources. Both models '
    "were written and trained from scratch.</p></div>"
)


class Streams(Protocol):
    """What the page needs of ``app.pipeline.Pipeline``."""

    def stream(
        self, question: str, history: Sequence[followup.Turn] = (), canon: str | None = None
    ) -> Iterator[Event]: ...


def history_of(turns: Sequence[Turn]) -> list[followup.Turn]:
    """Earlier questions, as they were understood, with their answers; refusals and empty turns leave no trace."""
    answers = [turn.answer for turn in turns if turn.answer and not turn.answer["abstained"]]
    return [(answer["standalone_question"], answer["answer"]) for answer in answers][-REMEMBERED:]


def reply(pipeline: Streams, question: str, canon: str, turns: list[Turn]) -> Iterator[tuple[list[Turn], str]]:
    """Answer one question: (turns so far, the page's HTML) after every event."""
    turn = Turn(question.strip()[:PASTE_LIMIT])
    turns = [*turns, turn][-SHOWN:]
    for event in pipeline.stream(turn.question, history_of(turns[:-1]), canon or None):
        match event:
            case Status(text):
                turn.status = text
            case Draft(text):
                turn.draft.append(text)
            case Final(answer):
                turn.finish(answer)
        yield turns, conversation(turns)


def build(pipeline: Streams, settings: Settings) -> gr.Blocks:
    """The page.  All sessions share ``pipeline``; questions wait in one queue and are answered one at a time."""

    def answer(question: str, canon: str, turns: list[Turn]) -> Iterator[tuple[list[Turn], str]]:
        yield from reply(pipeline, question or "", canon, turns)

    with gr.Blocks(analytics_enabled=False, title="Cirilla", fill_width=True) as page:
        turns = gr.State([])
        asked = gr.State("")
        gr.HTML(TITLE)
        log = gr.HTML(conversation([]), js_on_load=ON_LOAD, elem_id="log", apply_default_css=False)
        with gr.Row(elem_classes="examples"):
            examples = [gr.Button(text, size="sm", min_width=140) for text in EXAMPLES]
        with gr.Row(equal_height=True):
            box = gr.Textbox(
                label="Your question",
                placeholder="Ask about the world of the Witcher",
                lines=1,
                max_lines=6,
                scale=6,
                autofocus=True,
                submit_btn="Ask",
                stop_btn="Stop",
                elem_id="question",
            )
        with gr.Row():
            choices = [("All tellings", ""), *((label, name) for name, label in CANONS.items())]
            canon = gr.Radio(choices, value="", label="Canon", scale=4, min_width=320)
            clear = gr.Button("New conversation", size="md", scale=1, min_width=140)

        # One queue for everything that uses the models, however many people are here.
        queued: dict[str, Any] = {"concurrency_limit": 1, "concurrency_id": "answer"}
        quiet: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}
        taken = box.submit(lambda text: (text, ""), box, [asked, box], queue=False, **quiet)
        running = [taken.then(answer, [asked, canon, turns], [turns, log], **queued, **quiet)]
        running += [
            button.click(answer, [button, canon, turns], [turns, log], **queued, **quiet) for button in examples
        ]
        box.stop(None, cancels=running, api_visibility="private")
        nothing: tuple[list[Turn], str, str] = ([], conversation([]), "")
        clear.click(lambda: nothing, None, [turns, log, box], queue=False, cancels=running, **quiet)
    return page
