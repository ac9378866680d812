"""The reader: what it remembers between answers, what it tells of them, and that threads may share it."""

import threading
from pathlib import Path

import pytest

from lm import Reader, generate
from lm.chat import render
from lm.model import PRESETS, Config
from lm.reader import GLUE, TracedToken
from lm.tokenizer import SPECIAL_TOKENS, Tokenizer
from tests.lm.test_generate import Passes
from tests.lm.test_generate import make as random_model

TOKENIZER = Tokenizer.load(Path("weights/tokenizer.json"))
PASSAGES = [("Ciri › Family", "Ciri's grandmother was Queen Calanthe of Cintra."), ("Roach", "Roach is a horse. " * 8)]
OTHERS = [("Zireael", "Zireael is the Elder Speech word for a swallow."), ("Kelpie", "Kelpie is a black mare. " * 6)]


def make(config: Config = PRESETS["cirilla-tiny"], lookup: int = 8) -> Reader:
    return Reader(random_model(config), TOKENIZER, lookup=lookup)


def ask(reader: Reader, question: str, passages=PASSAGES, history=()) -> str:
    return "".join(reader.stream(question, passages, history, max_new_tokens=24))


def test_pieces_are_whole_characters_and_repeatable():
    question = "Who is Ciri? " * 500  # longer than the model: it is cut, not an error
    pieces = list(make().stream(question, PASSAGES, max_new_tokens=30))
    assert 0 < len(pieces) <= 30 and all(pieces)
    assert all("\ufffd" not in piece for piece in pieces)
    assert pieces == list(make().stream(question, PASSAGES, max_new_tokens=30))


def test_a_second_question_about_the_same_passages_reads_only_the_question(monkeypatch):
    reader = make()
    ask(reader, "Who is Ciri?")
    passes = Passes(reader.model, monkeypatch)
    again = ask(reader, "And Roach?")
    assert passes.sizes[0] < 10
    monkeypatch.undo()
    assert again == ask(make(lookup=0), "And Roach?")


@pytest.mark.parametrize("window", [0, 16])
def test_what_is_remembered_never_shows_in_the_answer(window):
    config = Config(**(PRESETS["cirilla-tiny"].to_dict() | {"window": window}))
    reader = make(config)
    turns = [("user", "Who is Ciri?"), ("assistant", "A princess [1].")]
    for question, passages, history in [
        ("Who is Ciri?", PASSAGES, []),
        ("And Roach?", PASSAGES, turns),
        ("What is Kelpie?", OTHERS, []),
        ("Who is Ciri?", PASSAGES, []),
        ("What does it mean?", OTHERS[:1], turns),
        ("What is Kelpie?", OTHERS, []),
    ]:
        fresh = ask(make(config, lookup=0), question, passages, history)
        assert ask(reader, question, passages, history) == fresh
        assert len(reader._waiting) <= Reader.KEPT


def test_two_conversations_keep_their_caches(monkeypatch):
    reader = make()
    ask(reader, "Who is Ciri?", PASSAGES)
    ask(reader, "What is Kelpie?", OTHERS)
    passes = Passes(reader.model, monkeypatch)
    ask(reader, "And Roach?", PASSAGES)
    first = passes.sizes[0]
    passes.sizes.clear()
    ask(reader, "What is Zireael?", OTHERS)
    assert first < 10 and passes.sizes[0] < 12


def test_threads_may_share_a_reader():
    reader, alone = make(), make(lookup=0)
    questions = [(f"Who is number {n}?", PASSAGES if n % 2 else OTHERS) for n in range(6)]
    expected = [ask(alone, *question) for question in questions]
    answers = [""] * len(questions)

    def run(n: int) -> None:
        answers[n] = ask(reader, *questions[n])

    threads = [threading.Thread(target=run, args=(n,)) for n in range(len(questions))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == expected
    assert len(reader._waiting) <= Reader.KEPT


def test_an_abandoned_answer_does_no_harm():
    reader = make()
    whole = ask(make(lookup=0), "Who is Ciri?")
    pieces = reader.stream("Who is Ciri?", PASSAGES, max_new_tokens=24)
    next(pieces)
    pieces.close()
    assert len(reader._waiting) == 1
    assert ask(reader, "Who is Ciri?") == whole


def test_a_copying_answer_has_the_tokens_of_its_prompt(monkeypatch):
    written: list[list[int]] = []

    def kept(*args, **options):
        written.append([])
        for token in stream(*args, **options):
            written[-1].append(token.id)
            yield token

    stream = generate.stream
    monkeypatch.setattr(generate, "stream", kept)
    for copying in (True, False):
        "".join(make().stream("Who is Ciri?", PASSAGES, max_new_tokens=24, copying=copying))
    prompt = render(TOKENIZER, PASSAGES, [("user", "Who is Ciri?")], budget=200)
    allowed = {*prompt, *TOKENIZER.encode(GLUE)} - {TOKENIZER.special(token) for token in SPECIAL_TOKENS}
    copied, free = written
    assert copied and set(copied) <= allowed and not set(free) <= allowed


def test_every_passage_may_be_cited_in_a_copying_answer():
    glue = set(TOKENIZER.encode(GLUE))
    assert all(set(TOKENIZER.encode(f" [{n}]")) <= glue for n in range(1, 9))


def test_a_trace_tells_the_answer_token_by_token():
    config = Config(**(PRESETS["cirilla-tiny"].to_dict() | {"n_experts": 4, "d_expert": 64}))
    trace: list[TracedToken] = []
    reader = make(config)
    answer = "".join(reader.stream("Who is Ciri?", PASSAGES, max_new_tokens=24, trace=trace))
    assert answer == ask(make(config), "Who is Ciri?")
    assert len(trace) == 24
    for token in trace:
        likeliest = [p for _, p in token.runners_up]
        assert len(likeliest) == 4 and likeliest == sorted(likeliest, reverse=True)
        assert 1 >= token.probability >= likeliest[0] > 0
        assert [len(layer) for layer in token.experts] == [2, 2]


def test_the_released_reader_says_the_same_in_int8_as_in_floats():
    plain = Reader.load("weights/cirilla", int8=False)
    small = Reader.load("weights/cirilla")
    question = "Who was Ciri's grandmother?"
    assert list(small.stream(question, PASSAGES)) == list(plain.stream(question, PASSAGES))
