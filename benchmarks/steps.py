"""The steps of ``benchmarks.results``: what is asked of whom, and what is kept of it.

Each takes a :class:`Bench` and gives figures that JSON can hold; ``benchmarks.results_page`` makes tables of them.
"""

from __future__ import annotations

import argparse
import copy
import json
import random
import shutil
from collections.abc import Callable, Sequence
from functools import cached_property
from itertools import repeat
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from app import evaluate, settings
from app.ingest import ingest
from app.pipeline import Pipeline
from app.report import kind, telling
from benchmarks import lm, load, retrieval, spine
from benchmarks.kept import Kept, say, skipped
from benchmarks.peers import NAMES, PROMPTS, Peer
from benchmarks.scores import Row
from benchmarks.systems import Assembled, BestSentence, Given, Timed, alone
from corpus.pairs import read_zst, wiki_article
from corpus.store import Store
from encoder import Encoder, Reranker
from retrieval import evaluate as relevance
from retrieval.candidates import archive
from retrieval.index import VectorIndex
from retrieval.search import Searcher

ROOT = Path(__file__).resolve().parent.parent
WIKI_QUESTIONS = retrieval.QUESTIONS / "wiki-dev.jsonl"
SEED = 0
T = TypeVar("T")
CHOICES = ("weight", "prompt")  # what is chosen for the peers on the way; kept like a step
ANY = 1e-9  # a threshold that everything passes for which there is any evidence at all


class Bench:
    """What the steps share; each thing is made when a step first needs it."""

    def __init__(self, args: argparse.Namespace, kept: Kept) -> None:
        self.args, self.kept = args, kept
        self.settings = settings.load(data=args.data or args.work / "data")
        self.file = args.questions or ROOT / "corpus" / "questions" / f"{args.split}.jsonl"
        self.items = drawn(evaluate.read(self.file), args.limit)
        self.peer_items = self.items[: args.peer_limit]  # they were drawn in random order

    @cached_property
    def pipeline(self) -> Pipeline:
        """The pipeline over the archive of ``--data``, ingested and warmed up."""
        self.settings.data.mkdir(parents=True, exist_ok=True)
        ingest(self.settings)
        pipeline = Pipeline.open(self.settings)
        pipeline.ask("Who is Ciri's mother?")  # the first question pays for warming up
        return pipeline

    @cached_property
    def bold(self) -> Pipeline:
        """The pipeline, answering whatever its confidence."""
        bold = copy.copy(self.pipeline)
        bold.settings = self.pipeline.settings.model_copy(update={"threshold": ANY})
        return bold

    @property
    def searcher(self) -> Searcher:
        """The pipeline's own search."""
        assert isinstance(self.pipeline.searcher, Searcher)
        return self.pipeline.searcher

    @cached_property
    def rankers(self) -> dict[str, relevance.Ranker]:
        """The stages of that search, and the baseline."""
        return relevance.stages(self.searcher)

    @cached_property
    def minilm(self) -> retrieval.PeerRankers:
        """Raises ImportError where the ``[bench]`` extra is not installed."""
        path = self.args.work / "minilm.npz"
        known = dict(np.load(path)) if self.args.resume and path.exists() else None  # they take minutes
        rankers = retrieval.PeerRankers(retrieval.minilm(), self.searcher, known=known)
        np.savez(path, ids=rankers.ids, vectors=rankers.vectors, speed=np.array(rankers.speed))

        def choose() -> dict[str, Any]:
            sets = [(rankers, ROOT / "corpus/questions/dev.jsonl")]
            if self.args.wiki:
                sets.append((self.wiki_minilm, WIKI_QUESTIONS))
            recalls = [each.recalls(drawn(relevance.read_questions(file), self.args.tune)) for each, file in sets]
            return {"weight": retrieval.best_weight(recalls)}

        rankers.weight = self.kept.do("weight", choose)["weight"]
        return rankers

    @cached_property
    def wiki(self) -> Searcher:
        """Search over the pages of ``--wiki``, in an archive of their own in the work folder."""
        folder = self.args.work / "wiki"
        shutil.rmtree(folder, ignore_errors=True)  # it may be of other pages
        folder.mkdir()
        encoder = Encoder.load(self.settings.encoder_weights)
        second = Reranker.load(self.settings.reranker_weights)
        store = archive([wiki_article(page) for page in read_zst(self.args.wiki)], folder, encoder, "wiki.example")
        return Searcher(store, VectorIndex.open(folder / "index", encoder), encoder, second=second)

    @cached_property
    def wiki_minilm(self) -> retrieval.PeerRankers:
        """Raises ImportError as above."""
        return retrieval.PeerRankers(retrieval.minilm(), self.wiki)

    @cached_property
    def writer(self) -> Peer:
        """SmolLM2 with the prompt that serves it best.  Raises ImportError as above."""
        import torch

        peer = Peer("smollm2", torch.get_num_threads())

        def choose() -> dict[str, Any]:
            practice = lm.codex_questions(ROOT / "corpus/questions/train.jsonl", self.args.choose, seed=1)
            return {"accuracy": lm.choose_prompt(peer, practice), "prompt": peer.prompt.__name__}

        chosen = self.kept.do("prompt", choose)["prompt"]
        peer.prompt = next(prompt for prompt in PROMPTS["smollm2"] if prompt.__name__ == chosen)
        return peer

    @cached_property
    def judged(self) -> dict[str, set[int]]:
        """Ids of the passages that answer, by the id of question or turn."""
        questions = relevance.read_questions(self.file)
        wanted = {place(item, turn) for item in self.items for turn in range(len(item.turns))}
        return {q.id: relevance.relevant(self.pipeline.store, q) for q in questions if q.id in wanted}


def drawn(items: Sequence[T], limit: int) -> list[T]:
    """At most ``limit`` of the items (0: all), in random order."""
    return random.Random(SEED).sample(list(items), min(limit or len(items), len(items)))


def place(item: evaluate.Item, turn: int) -> str:
    """The id that ``retrieval.evaluate`` gives to a question or to a turn, which has its rewrite beside it."""
    return f"{item.id}-{turn}" if item.turns[turn].extra else item.id


def row(outcome: evaluate.Outcome) -> Row:
    """What is kept of one judged question; times in milliseconds."""
    timings = outcome.answer["timings"]
    return {
        "item": outcome.id,
        "turn": outcome.turn,
        "type": type_of(kind(outcome), outcome.turn),
        "canon": telling(outcome),
        "question": outcome.question,
        "answer": outcome.answer["answer"],
        "decline": outcome.decline,
        "right": outcome.right,
        "abstained": outcome.answer["abstained"],
        "corrected": outcome.corrected,
        "found": outcome.found,
        "sentences": outcome.sentences,
        "supported": outcome.supported,
        "confidence": outcome.answer["confidence"],
        "ms": outcome.ms,
        "first_ms": timings.get("first_word", outcome.ms),
    }


def type_of(name: str, turn: int) -> str:
    """The type that the tables tell apart: first and later turns of a conversation are two."""
    return f"conversation, {'later turns' if turn else 'first turn'}" if name == "conversation" else name


def ours(bench: Bench) -> dict[str, Any]:
    """The pipeline's answers, and what it would have said where it declined, for the risk of answering more."""
    outcomes = list(evaluate.run(Timed(bench.pipeline), bench.items, progress("Cirilla", bench.items)))
    declined = [outcome for outcome in outcomes if outcome.answer["abstained"]]
    # As it was understood: the turns before it have been worked in already.
    again = [
        evaluate.Item(f"{o.id} {o.turn}", (evaluate.Ask(o.answer["standalone_question"], o.expected, o.decline),))
        for o in declined
    ]
    told = {o.id: o for o in evaluate.run(bench.bold, again, progress("Cirilla, whatever its confidence", again))}
    would = []
    for outcome in outcomes:
        answered = told.get(f"{outcome.id} {outcome.turn}", outcome)
        would.append(row(outcome) | {"right": answered.right and not outcome.decline, "abstained": False})
    figures = evaluate.summary(outcomes)
    stages = {name[4:-3]: value for name, value in figures.items() if name.startswith("p50_")}
    return {"rows": [row(outcome) for outcome in outcomes], "would": would, "stages": stages}


def floor(bench: Bench) -> dict[str, list[Row]]:
    """Our BM25 and a sentence out of its passages, without any model."""
    system = BestSentence(bench.pipeline.store, bench.rankers["bm25"])
    items = alone(bench.items)
    return {"rows": [row(o) for o in evaluate.run(system, items, progress("BM25 and best sentence", items))]}


def oracle(bench: Bench, bold: bool) -> dict[str, list[Row]]:
    """Our evidence and answer stages on the right passages, only where there are any; ``bold`` never declines."""
    items = [item for item in bench.items if any(turn.answers for turn in item.turns)]
    given = [sorted(bench.judged.get(place(item, turn), ())) for item in items for turn in range(len(item.turns))]
    pipeline = bench.bold if bold else bench.pipeline
    outcomes = evaluate.run(Given(pipeline, given), items, progress("right passages", items))
    return {"rows": [row(outcome) for outcome in outcomes]}


def nothing(bench: Bench) -> dict[str, list[Row]]:
    """The pipeline without any passage: it should keep silent."""
    outcomes = evaluate.run(Given(bench.pipeline, repeat(())), bench.items, progress("no passages", bench.items))
    return {"rows": [row(outcome) for outcome in outcomes]}


def peer(bench: Bench, fused: bool) -> dict[str, Any]:
    """The stack that people would assemble.  Raises ImportError without the ``[bench]`` extra."""
    ranker = bench.minilm.fused if fused else bench.minilm.alone
    items = alone(bench.peer_items)
    system = Assembled(bench.pipeline.store, ranker, bench.writer, NAMES["smollm2"])
    outcomes = evaluate.run(system, items, progress(f"SmolLM2{', fused' if fused else ''}", items))
    return {"rows": [row(outcome) for outcome in outcomes], "prompt": bench.writer.prompt.__name__}


def rank(
    store: Store, systems: dict[str, relevance.Ranker], questions: Sequence[relevance.Question], canons: dict[str, str]
) -> dict[str, Any]:
    """Every system's metrics, question by question."""
    judged = {question.id: relevance.relevant(store, question) for question in questions}
    out: dict[str, Any] = {"passages": store.counts()["passages"], "systems": {}}
    for name, ranker in systems.items():
        say(f"retrieval: {name}, {len(questions)} questions")
        took: list[float] = []
        values = relevance.evaluate(questions, judged, relevance.timed(ranker, took))
        rows = [
            {"item": q.id.partition("-")[0] if q.type == "conversation" else q.id, "turn": q.id}
            | {"type": q.type, "canon": canons.get(q.id) or "any canon"}
            | {metric: values[metric][at] for metric in values}
            for at, q in enumerate(questions)
        ]
        out["systems"][name] = {"rows": rows, "ms": float(np.median(took)) if took else 0.0}
    return out


def canons(path: Path) -> dict[str, str]:
    """Canon by id, where a question asks for one."""
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    return {str(row["id"]): row["canon"] for row in rows if row.get("canon")}


def search(bench: Bench) -> dict[str, Any]:
    """Retrieval on the drawn questions and on fifty plain ones.  Peers only where they are installed."""
    systems = dict(bench.rankers)
    own = retrieval.own_speed(bench.searcher.encoder, bench.pipeline.store)
    out: dict[str, Any] = {"speed": {"Cirilla's encoder": own}}
    try:
        systems |= {"minilm": bench.minilm.alone, "minilm+bm25": bench.minilm.fused}
        out["speed"]["all-MiniLM-L6-v2"] = bench.minilm.speed
        out["weight"] = bench.minilm.weight
    except ImportError as error:
        out["skipped"] = skipped("all-MiniLM-L6-v2", error)
    questions = [q for q in relevance.read_questions(bench.file) if q.id in bench.judged]
    fifty = ROOT / "benchmarks/questions/first-fifty.jsonl"
    out["drawn"] = rank(bench.pipeline.store, systems, questions, canons(bench.file))
    out["fifty"] = rank(bench.pipeline.store, systems, relevance.read_questions(fifty), {})
    return out


def wiki(bench: Bench) -> dict[str, Any]:
    """Retrieval over real wiki pages, which are not ours to ship: ``--wiki`` names their file."""
    questions = drawn(relevance.read_questions(WIKI_QUESTIONS), bench.args.limit)
    systems = relevance.stages(bench.wiki)
    out: dict[str, Any] = {}
    try:
        rankers = bench.wiki_minilm
        rankers.weight = bench.minilm.weight
        systems |= {"minilm": rankers.alone, "minilm+bm25": rankers.fused}
    except ImportError as error:
        out["skipped"] = skipped("all-MiniLM-L6-v2", error)
    return out | {"drawn": rank(bench.wiki.store, systems, questions, canons(WIKI_QUESTIONS))}


def speed(bench: Bench) -> dict[str, Any]:
    """Speed and size of the main path; see ``benchmarks.spine``."""
    return spine.measure(bench.args.pages)


def crowd(bench: Bench) -> dict[str, Any]:
    """Twenty chats at once with a server of its own; see ``benchmarks.load``."""
    _ = bench.pipeline  # its archive is used
    with load.server(bench.settings.data, CIRILLA_CACHED_ANSWERS="0") as (url, pid, seconds):
        return {"started_s": round(seconds, 1)} | load.measure(url, load.scripts(20, 3), pid)


def progress(name: str, items: Sequence[evaluate.Item]) -> Callable[[int], None]:
    """Tells how far one has come, every fifty questions."""
    total = sum(len(item.turns) for item in items)

    def tell(done: int) -> None:
        if done % 50 == 0 or done == total:
            say(f"{name}: {done} of {total}")

    return tell
