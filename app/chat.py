"""The page: the chat with its sources, and beside it what is inside an answer, the archive, and what all this is."""

from __future__ import annotations

import logging
import os
import random
from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, Protocol, cast

os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # before gradio is imported: nothing is reported to anyone

import gradio as gr

from app import about, archive, carry, catalogue, export, inside, live, render, script, smalltalk
from app.answer import Answer, Draft, Event, Final, Status
from app.feedback import Feedback
from app.limits import Guarded, client_of
from app.settings import Settings
from app.turns import CANONS, QUESTION_LIMIT, SHOWN, Turn, keep, restore
from corpus.store import Store

if TYPE_CHECKING:
    from app.pipeline import Pipeline

EXAMPLES = (
    "Who is Ciri's mother?",
    "What is the Trial of the Grasses?",
    "Who voices Geralt in The Witcher 3?",
    "What is the Law of Surprise?",
    "Who is the Emperor of Nilfgaard?",
    "What is a leshen weak to?",
    "Who leads the Wild Hunt?",
    "Who is Dandelion?",
    "What is the Elder Blood?",
    "Who raised Ciri?",
    "What is the Lodge of Sorceresses?",
    "What is the Conjunction of the Spheres?",
    "What is Kelpie?",
    "Who is Regis?",
    "What is gwent?",
    "Where is Kaer Morhen?",
    "Who is the Bloody Baron?",
    "What are the Scoia'tael?",
    "What is a striga?",
    "Who is Leo Bonhart?",
    "What is the Battle of Brenna?",
    "Who plays Yennefer in the series?",
    "What is Aerondight?",
    "What does the Swallow potion do?",
)
DRAWN = 4  # examples on an empty page
REMEMBERED = 6  # turns that a follow-up may refer to
BROKEN = "Something went wrong on our side. Please try again."
STOPPED = "Stopped."

TITLE = (
    '<header class="title"><svg viewBox="0 0 48 32" aria-hidden="true"><path d="M2 9c10-1 16 3 20 9 5-8 13-14 24-16'
    '-6 5-9 10-11 15l5 4-8-1c-3 5-8 9-15 10 4-3 5-6 5-9C17 15 11 11 2 9z"/></svg>'
    "<div><h1>Cirilla</h1><p>The world of the Witcher, with its sources</p></div></header>"
)
ARTICLE = (
    '<dialog id="article" aria-labelledby="article-title"><form method="dialog">'
    '<button class="close" aria-label="Close the article">Close</button></form>'
    '<div class="body" tabindex="-1"></div></dialog>'
)


class Streams(Protocol):
    """What a conversation needs of ``app.pipeline.Pipeline`` or of ``app.limits.Guarded`` around it."""

    def stream(
        self, question: str, history: Sequence[carry.Turn] = (), canon: str | None = None, **options: Any
    ) -> Iterator[Event]: ...


def history_of(turns: Sequence[Turn]) -> list[carry.Turn]:
    """Earlier questions, as they were understood, with their answers; small talk and empty turns leave no trace, and
    of a refusal the question and what came nearest are left."""
    out = []
    for turn in turns:
        if turn.answer is None or smalltalk.reply(turn.question) is not None:
            continue
        titles = tuple(dict.fromkeys([*(source["title"] for source in turn.sources), *turn.nearest[:1]]))
        said = "" if turn.answer["abstained"] else turn.answer["answer"]
        out.append(carry.Turn(turn.answer["standalone_question"], said, titles))
    return out[-REMEMBERED:]


def begin(question: str, turns: Sequence[Turn], replace: bool = False) -> list[Turn]:
    """The turns with a new one that waits for its answer, ``replace`` in the place of the last one.

    Nothing changes for an empty question, or while an answer is on its way.
    """
    asked = question.strip()[:QUESTION_LIMIT] if isinstance(question, str) else ""
    if not asked or (turns and turns[-1].waiting):
        return list(turns)
    return [*(turns[:-1] if replace else turns), Turn(asked, "Waiting")][-SHOWN:]


def reply(pipeline: Streams, turns: list[Turn], canon: str, **options: Any) -> Iterator[Answer | None]:
    """Answer the last turn, in place: None after every event, then the answer.

    Ends where the turn is found to have ended, for somebody pressed Stop.
    """
    turn = turns[-1]
    try:
        for event in pipeline.stream(turn.question, history_of(turns[:-1]), canon or None, **options):
            if not turn.waiting:
                return
            match event:
                case Status(text):
                    turn.status = text
                    yield None
                case Draft(text):
                    turn.draft.append(text)
                    yield None
                case Final(answer):
                    turn.finish(answer)
                    yield answer
    except Exception:  # whatever it was, the page goes on
        logging.getLogger(__name__).exception("A question could not be answered")
        turn.fail(BROKEN)
        yield None


def end(turns: Sequence[Turn]) -> None:
    """Give up the last turn if it still waits for its answer."""
    if turns and turns[-1].waiting:
        turns[-1].fail(STOPPED)


def article_html(store: Store, wanted: object) -> str:
    """The article of a passage as HTML, with a quote marked; ``wanted`` is what a browser sent, so anything at all."""
    told = wanted if isinstance(wanted, dict) else {}
    key, start, end = str(told.get("passage", "")), told.get("start"), told.get("end")
    passage = store.passage(int(key)) if key.isascii() and key.isdigit() and len(key) < 20 else None
    if passage is None:
        return "<p>This passage is no longer in the archive: its article has changed since the answer was given.</p>"
    if not (isinstance(start, int) and isinstance(end, int) and 0 <= start <= end <= len(passage.text)):
        start = end = 0
    return catalogue.article_html(store, passage.page, (passage.section, passage.start + start, passage.start + end))


def draw_examples() -> list[str]:
    """A few of the examples, others each time."""
    return random.sample(EXAMPLES, DRAWN)


def build(pipeline: Pipeline | Guarded, settings: Settings) -> gr.Blocks:
    """The page.  All sessions share ``pipeline``; what is not guarded yet is put behind limits of its own."""
    answers = pipeline if isinstance(pipeline, Guarded) else Guarded(pipeline, settings)
    inner = cast("Pipeline", answers.pipeline)
    with gr.Blocks(analytics_enabled=False, title="Cirilla", fill_width=True) as page:
        gr.HTML(TITLE + ARTICLE, apply_default_css=False, js_on_load=None)
        with gr.Tabs(elem_id="rooms") as rooms:
            with gr.Tab("Chat", id="chat"):
                last, chat_log = _chat(page, answers, inner.store, settings)
            with gr.Tab("Look inside", id="inside") as inside_room:
                view = inside.tab(inner)
            with gr.Tab("Archive", id="archive"):
                archive.tab(inner, settings)
            with gr.Tab("About", id="about"):
                gr.HTML(about.html(settings), apply_default_css=False)
        quiet: dict[str, Any] = {"queue": False, "show_progress": "hidden", "api_visibility": "private"}
        inside_room.select(view.draw, last, view.outputs, **quiet)
        chat_log.inside(lambda: gr.Tabs(selected="inside"), None, rooms, **quiet).then(
            view.draw, last, view.outputs, **quiet
        )
    return page


def _chat(page: gr.Blocks, answers: Guarded, store: Store, settings: Settings) -> tuple[gr.State, gr.HTML]:
    """The chat's components and events; the last ``Answer`` and the conversation."""
    feedback = Feedback(settings, lambda: live.version(cast("Pipeline", answers.pipeline)))

    def article(wanted: dict) -> str:
        return article_html(store, wanted)

    # One list for as long as the session lasts, changed in place: events overlap, and where each put a list of its own
    # here, the slower one would undo what the faster one did.
    turns, editing, last = gr.State([]), gr.State(False), gr.State(None)
    # Not a secret, only the same after a restart: what a browser kept is the reader's own to see and to change.
    kept = gr.BrowserState([], storage_key="cirilla-conversation", secret="cirilla")
    log = gr.HTML(
        render.conversation([], EXAMPLES[:DRAWN]),
        js_on_load=script.ON_LOAD,
        elem_id="log",
        apply_default_css=False,
        server_functions=[article],
    )
    box = gr.Textbox(
        label="Your question",
        placeholder="Ask a question",
        lines=1,
        max_lines=6,
        max_length=QUESTION_LIMIT,
        autofocus=True,
        submit_btn="Ask",
        stop_btn="Stop",
        elem_id="question",
    )
    with gr.Row(elem_id="controls"):
        choices = [("All", ""), *((label, name) for name, label in CANONS.items())]
        canon = gr.Radio(choices, value="", label="Canon", scale=4, min_width=300, elem_id="canon")
        new = gr.Button("New conversation", size="md", scale=1, min_width=130)
        save = gr.Button("Export", size="md", scale=1, min_width=130)
    with gr.Accordion("Options", open=False, elem_id="options"), gr.Row():
        lengths = [("Short", "short"), ("Normal", "normal"), ("Long", "long")]
        length = gr.Radio(lengths, value="normal", label="Answer length", min_width=280, elem_id="length")
        passages = gr.Slider(1, 10, settings.passages, step=1, label="Passages to read", min_width=280)
    shared = gr.Textbox(visible=False)  # the question of a shared link
    written = gr.Textbox(visible=False)  # a conversation on its way to a file

    def shown(turns: Sequence[Turn], said: str = "") -> str:
        return render.conversation(turns, () if turns else draw_examples(), said)

    def answer(
        turns: list[Turn], canon: str, length: str, passages: int, request: gr.Request
    ) -> Iterator[tuple[Any, ...]]:
        """Outputs: turns, log, last, kept."""
        if not turns or not turns[-1].waiting or turns[-1].begun:
            yield gr.skip(), gr.skip(), gr.skip(), gr.skip()
            return
        turns[-1].begun = True
        options: dict[str, Any] = {"length": length} if length != "normal" else {}
        if passages != settings.passages:
            options["passages"] = int(passages)
        client = client_of(request, settings)
        for result in reply(answers, turns, canon, client=client, fresh=turns[-1].fresh, **options):
            done = result is not None
            yield turns, shown(turns), result if done else gr.skip(), keep(turns) if done else gr.skip()

    # The first step, at once, shows the question; the second one waits its turn in app.limits and answers.
    now: dict[str, Any] = {"queue": False, "show_progress": "hidden", "api_visibility": "private"}
    later: dict[str, Any] = {
        "concurrency_limit": None,
        "trigger_mode": "multiple",
        "show_progress": "hidden",
        "api_visibility": "private",
    }
    asking = [turns, log, box, editing]

    def then_answer(begun: Any) -> None:
        begun.then(answer, [turns, canon, length, passages], [turns, log, last, kept], **later)

    def from_box(text: str, turns: list[Turn], editing: bool) -> tuple[Any, ...]:
        if not text.strip() or (turns and turns[-1].waiting):
            return gr.skip(), gr.skip(), gr.skip(), gr.skip()
        turns[:] = begin(text, turns, replace=editing)
        return turns, shown(turns), gr.update(value="", label="Your question"), False

    def from_page(turns: list[Turn], event: gr.EventData) -> tuple[Any, ...]:
        turns[:] = begin(str((event._data or {}).get("question", "")), turns)
        return turns, shown(turns), gr.skip(), gr.skip()

    def from_last(turns: list[Turn]) -> tuple[Any, ...]:
        if not turns or turns[-1].waiting:
            return gr.skip(), gr.skip(), gr.skip(), gr.skip()
        turns[:] = begin(turns[-1].question, turns, replace=True)
        turns[-1].fresh = True
        return turns, shown(turns), gr.skip(), gr.skip()

    def arrive(kept: object, question: str, turns: list[Turn]) -> tuple[Any, ...]:
        asked = list(turns)  # perhaps something already, if this came late
        turns[:0] = restore(kept)
        if not asked and (not turns or turns[-1].question != question.strip()):
            turns[:] = begin(question, turns)
        return turns, shown(turns, said="" if asked else " "), gr.skip(), gr.skip()

    then_answer(box.submit(from_box, [box, turns, editing], asking, **now))
    then_answer(log.ask(from_page, turns, asking, **now))
    then_answer(log.retry(from_last, turns, asking, **now))
    then_answer(page.load(arrive, [kept, shared, turns], asking, js=script.ON_ARRIVAL, **now))

    # Gradio's own way to cancel acts some time after it was asked to and may hit the question that follows.  A turn
    # that has ended is enough: whoever is at work on it notices at the next event.
    def stop(turns: list[Turn]) -> str:
        end(turns)
        return shown(turns)

    box.stop(stop, turns, log, **now)

    def edit(turns: list[Turn]) -> tuple[Any, bool]:
        if not turns or turns[-1].waiting:
            return gr.skip(), False
        return gr.update(value=turns[-1].question, label="Your last question, to be asked anew"), True

    log.edit(edit, turns, [box, editing], **now).then(None, None, None, js=script.TO_QUESTION, **now)

    def opinion(turns: list[Turn], event: gr.EventData) -> tuple[Any, Any]:
        told = event._data if isinstance(event._data, dict) else {}
        turn = next((turn for turn in turns if turn.id == told.get("turn")), None)
        verdict = str(told.get("verdict", ""))
        if turn is None or not feedback.save(turn, verdict, str(told.get("reason", "")), str(told.get("comment", ""))):
            return gr.skip(), gr.skip()
        turn.verdict = verdict
        said = "Thank you, your opinion was kept." if verdict else "Your opinion was taken back."
        return shown(turns, said), keep(turns)

    log.feedback(opinion, turns, [log, kept], **now)

    def clear(turns: list[Turn]) -> tuple[Any, ...]:
        end(turns)
        turns.clear()
        return (
            turns,
            shown(turns, said="A new conversation."),
            gr.update(value="", label="Your question"),
            False,
            None,
            [],
        )

    new.click(clear, turns, [*asking, last, kept], **now).then(None, None, None, js=script.TO_QUESTION, **now)
    # Twice the same text would change nothing and start nothing, hence not written.change.
    save.click(lambda turns: export.markdown(turns, datetime.now()), turns, written, **now).then(
        None, written, None, js=script.SAVE_FILE, **now
    )
    return last, log
