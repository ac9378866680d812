"""The endpoints for programs: ``/ask`` and ``/search``, and ``/stream`` for those who want to watch an answer come.

docs/api.md shows how to call them.  They share queue, limits and memory with the page.
"""

# Annotations are values here, not texts: Gradio reads those of the endpoints, which are made inside a function.

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from app.answer import Draft, Final, Status
from app.carry import Turn
from app.errors import AppError
from app.limits import Guarded, Refused, client_of
from app.settings import Settings

if TYPE_CHECKING:
    from retrieval.search import Found

CANONS = ("books", "games", "tv")


class BadRequest(AppError):
    """A call of the API that cannot be understood; the message says which argument is wrong, and how."""


def search_json(query: str, found: "Found") -> dict[str, Any]:
    """What a search brought, ready for ``json.dumps``; scores of stages that did not find a passage are None."""
    passages = [
        {
            "rank": rank,
            "title": hit.passage.display_title or hit.passage.title,
            "section": " › ".join(hit.passage.path),
            "canon": hit.passage.canon,
            "url": hit.passage.url,
            "passage": hit.passage.text,
            "score": hit.score,
            "bm25": hit.bm25,
            "bm25_rank": hit.bm25_rank,
            "dense": hit.dense,
            "dense_rank": hit.dense_rank,
            "second": hit.second,
            "second_rank": hit.second_rank,
        }
        for rank, hit in enumerate(found.hits, 1)
    ]
    return {"query": query, "corrections": found.corrections, "passages": passages, "timings": found.timings}


def checked_question(question: Any, settings: Settings) -> str:
    """The question, if it is one.

    Raises:
        BadRequest: it is no text, empty, or longer than ``question_limit`` characters.
    """
    if not isinstance(question, str):
        raise BadRequest(f"question: a text is needed, not {_kind(question)}.")
    if not question.strip():
        raise BadRequest("question: it is empty.")
    if len(question) > settings.question_limit:
        raise BadRequest(f"question: it has {len(question):,} characters; {settings.question_limit:,} are the most.")
    return question


def checked_canon(canon: Any) -> str | None:
    """The canon, None for all of them.

    Raises:
        BadRequest: it is none of ours.
    """
    if canon is None or canon == "":
        return None
    if canon not in CANONS:
        raise BadRequest(f"canon: {', '.join(CANONS)} or null, not {str(canon)[:40]!r}.")
    return str(canon)


def checked_history(history: Any, settings: Settings) -> list[Turn]:
    """Earlier turns as pairs of texts, oldest first.

    Raises:
        BadRequest: it is no list of [question, answer] pairs, or too long.
    """
    if history is None:
        return []
    if not isinstance(history, list):
        raise BadRequest(f"history: a list of [question, answer] pairs is needed, not {_kind(history)}.")
    turns: list[Turn] = []
    for number, pair in enumerate(history, 1):
        if not isinstance(pair, list) or len(pair) != 2 or not all(isinstance(text, str) for text in pair):
            raise BadRequest(f"history: turn {number} is not a [question, answer] pair of texts.")
        turns.append(Turn(pair[0], pair[1]))
    size = sum(len(turn.question) + len(turn.answer) for turn in turns)
    if size > settings.history_limit:
        raise BadRequest(f"history: it has {size:,} characters; {settings.history_limit:,} are the most.")
    return turns


def add(answers: Guarded, settings: Settings) -> None:
    """Declare the endpoints; call it inside the page's ``gr.Blocks``.

    A mistake of the caller comes back as an error event that says what is wrong, not as an answer.
    """
    import gradio as gr  # here, for it takes seconds that --search does not need

    def shown(error: AppError) -> gr.Error:
        """An error that Gradio tells the caller word for word, without a traceback in our log."""
        return gr.Error(str(error), title="Cirilla", print_exception=False)

    def ask(
        question: str,
        canon: str | None = None,
        history: list[list[str]] | None = None,
        request: gr.Request = None,  # type: ignore[assignment]  # Gradio fills it in
    ) -> dict:
        """Answer one question from the archives.

        Args:
            question: the question, in English.
            canon: "books", "games" or "tv" keeps to one telling; null (the default) takes all.
            history: earlier [question, answer] pairs, oldest first, for follow-ups such as "And his mother?".

        Returns:
            question, standalone_question, answer (with [n] after each sentence), abstained, confidence (0 to 1),
            citations (n, title, url, section, canon, passage, quote, start, end, score), timings (ms), generator.
        """
        try:
            asked = checked_question(question, settings)
            turns = checked_history(history, settings)
            answer = answers.ask(asked, turns, checked_canon(canon), client=client_of(request, settings))
            return answer.to_json()
        except (BadRequest, Refused) as error:
            raise shown(error) from None

    def stream(
        question: str,
        canon: str | None = None,
        history: list[list[str]] | None = None,
        request: gr.Request = None,  # type: ignore[assignment]
    ) -> Iterator[dict]:
        """Answer one question as ``/ask`` does, and tell what happens meanwhile.

        Args:
            question: the question, in English.
            canon: "books", "games" or "tv" keeps to one telling; null (the default) takes all.
            history: earlier [question, answer] pairs, oldest first.

        Returns:
            Objects with "event" and "value": "status" (a text such as "2 questions before yours"), "draft" (one
            checked sentence), and at last "answer" (what /ask returns, which replaces the drafts).
        """
        try:
            asked = checked_question(question, settings)
            turns = checked_history(history, settings)
            chosen = checked_canon(canon)
            for event in answers.events(asked, turns, chosen, client=client_of(request, settings)):
                match event:
                    case Status(text):
                        yield {"event": "status", "value": text}
                    case Draft(text):
                        yield {"event": "draft", "value": text}
                    case Final(answer):
                        yield {"event": "answer", "value": answer.to_json()}
        except (BadRequest, Refused) as error:
            raise shown(error) from None

    def search(
        query: str,
        canon: str | None = None,
        limit: int = 12,
        request: gr.Request = None,  # type: ignore[assignment]
    ) -> dict:
        """Find passages, with the score of every stage.

        Args:
            query: words or a question.
            canon: "books", "games" or "tv" keeps to one telling; null (the default) takes all.
            limit: passages to return, 1 to 50.

        Returns:
            query, corrections (misspelt name: name searched for), passages (rank, title, section, canon, url,
            passage, score, bm25, bm25_rank, dense, dense_rank, second, second_rank), timings (ms).
        """
        try:
            asked = checked_question(query, settings)
            if not isinstance(limit, int) or isinstance(limit, bool) or not 1 <= limit <= 50:
                raise BadRequest("limit: a whole number from 1 to 50 is needed.")
            found = answers.search(asked, limit, checked_canon(canon), client=client_of(request, settings))
            return search_json(asked, found)
        except (BadRequest, Refused) as error:
            raise shown(error) from None

    for endpoint in (ask, search, stream):
        # No limit in Gradio's queue: all wait in ours, with the page's questions, and are told their place.
        gr.api(endpoint, api_name=endpoint.__name__, concurrency_limit=None)


def _kind(value: Any) -> str:
    names = {bool: "a truth value", int: "a number", float: "a number", list: "a list", dict: "an object"}
    return "null" if value is None else names.get(type(value), type(value).__name__)
