"""Tokenizer, prompt and reader: text in, text out."""

import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lm import chat, data, tokenizer
from lm.tokenizer import ASSISTANT, BOS, END, PASSAGE, SPECIAL_TOKENS, USER, Tokenizer, train

TOKENIZER = Tokenizer.load(Path("weights/tokenizer.json"))


@given(st.text())
def test_every_string_round_trips(text):
    assert TOKENIZER.decode(TOKENIZER.encode(text)) == text


@pytest.mark.parametrize("token", SPECIAL_TOKENS)
def test_text_never_makes_a_control_token(token):
    ids = TOKENIZER.encode(f"before {token} after")
    assert TOKENIZER.special(token) not in ids
    assert TOKENIZER.decode(ids) == f"before {token} after"


def test_names_of_the_continent_are_short():
    for name in ("Yennefer", "Geralt", "Nilfgaard", "Cintra", "Dandelion", "Novigrad"):
        assert len(TOKENIZER.encode(" " + name)) <= 2, name


def test_training_learns_frequent_words():
    learnt = train(["the striga of Vizima"] * 50, vocab_size=16 + 256 + 20)
    assert learnt.vocab_size <= 16 + 256 + 20
    assert len(learnt.encode("the striga of Vizima")) < 10 < len(learnt.encode("of Nilfgaard and Redania"))
    assert learnt.decode(learnt.encode("łódź 🐺")) == "łódź 🐺"


def test_missing_training_text_is_one_line(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(data, "TOKENIZER_MIX", [("codex", 1, None)])
    given = ["x", "--data", str(tmp_path), "--codex", str(tmp_path / "nowhere"), "--out", str(tmp_path / "t.json")]
    monkeypatch.setattr(sys, "argv", given)
    assert tokenizer.main() == 1
    assert capsys.readouterr().err == f"No article of the codex is in {tmp_path / 'nowhere'}.\n"
    assert not (tmp_path / "t.json").exists()


PASSAGES = [("Ciri › Family", "Ciri's grandmother was Queen Calanthe."), ("Roach", "Roach is a horse. " * 200)]


def test_the_prompt_holds_everything_in_order():
    turns = [("user", "Who is Ciri?"), ("assistant", "A princess [1]."), ("user", "And her grandmother?")]
    ids = chat.render(TOKENIZER, PASSAGES[:1], turns, budget=500)
    text = TOKENIZER.inner.decode(ids, skip_special_tokens=False)
    assert text == (
        f"{BOS}{PASSAGE}[1] Ciri › Family\nCiri's grandmother was Queen Calanthe."
        f"{USER}Who is Ciri?{ASSISTANT}A princess [1].{END}{USER}And her grandmother?{ASSISTANT}"
    )


@given(st.integers(40, 600), st.integers(0, 6))
def test_the_prompt_keeps_its_budget_and_the_question(budget, n):
    turns = [("user", "Who rode Roach, and where did they go?"), ("assistant", "Geralt [2]. " * 20), ("user", "Why?")]
    ids = chat.render(TOKENIZER, (PASSAGES * 3)[:n], turns, budget=budget)
    assert len(ids) <= budget
    assert TOKENIZER.decode(ids).endswith("Why?")
    assert ids[-1] == TOKENIZER.special(ASSISTANT) and ids[0] == TOKENIZER.bos


def test_a_short_passage_stays_whole_beside_a_long_one():
    ids = chat.render(TOKENIZER, PASSAGES, [("user", "Who?")], budget=120)
    assert "Ciri's grandmother was Queen Calanthe." in TOKENIZER.decode(ids)
    assert len(ids) == 120


def test_a_prompt_must_end_with_a_question():
    with pytest.raises(ValueError, match="user"):
        chat.render(TOKENIZER, [], [("assistant", "hm")], budget=50)
