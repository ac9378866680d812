"""Fitting how evidence is weighed: on questions made so that one feature alone tells right from wrong."""

from __future__ import annotations

import random
from dataclasses import replace

import numpy as np
import pytest

from app import calibrate
from app import evidence as ev
from app.calibrate import Case, fit_sentences, judge, rescored, thresholds
from app.question import analyse
from retrieval.search import Hit


@pytest.fixture
def cases(make):
    """60 questions of 6 sentences; the right one has the best second-stage score, coverage is noise; a third silent."""
    pipeline = make()
    passages = pipeline.search("Orsolya Tobiah Brennport").hits
    question = analyse("Who raised Orsolya?", pipeline.searcher.names, pipeline.vocabulary)
    rng = random.Random(0)
    made = []
    for number in range(60):
        decline = number % 3 == 0
        right = None if decline else rng.randrange(6)
        found = []
        for at in range(6):
            hit = Hit(passages[at % len(passages)].passage, 1.0)
            second = rng.gauss(4.0 if at == right else -4.0, 1.0)
            found.append(ev.Evidence(hit, at, at, at + 1, rng.random(), 0.5, 0.5, 1.0, 0.5, second=second))
        labels = [int(at == right) for at in range(6)]
        made.append(Case(question, found, labels, [bool(label) for label in labels], decline))
    return made


def test_the_feature_that_tells_gets_the_weight(cases):
    sentence, silence = fit_sentences(cases)
    assert sentence["second"] > 1 > abs(sentence["coverage"])
    ranked = [rescored(case, ev.Calibration(sentence, silence, {})) for case in cases]
    assert np.mean([case.holds[0] for case in ranked if not case.decline]) > 0.95


def test_confidence_tells_answers_from_silence_on_questions_not_seen(cases):
    sure, right, decline = judge(cases)
    assert sure[~decline].min() > sure[decline].max() or sure[~decline].mean() > 0.8 > 0.2 > sure[decline].mean()
    half = next(row for row in thresholds(sure, right, decline) if row["threshold"] == 0.5)
    assert half["right"] > 0.9 and half["rightly_declined"] > 0.9 and half["wrongly_declined"] < 0.1


def test_weights_that_are_given_are_those_that_count(cases):
    case = cases[1]
    kinds = ("sentence", "silence", "confidence")
    nothing = replace(ev.CALIBRATION, **{kind: dict.fromkeys(getattr(ev.CALIBRATION, kind), 0.0) for kind in kinds})
    even = ev.ranked(case.question, case.found, nothing)
    assert [e.text for e in even] == [e.text for e in case.found]
    assert [e.share for e in even] == pytest.approx([1 / 7] * 6)  # six sentences and silence
    assert ev.confidence(case.question, even, nothing) == 0.5
    margin = nothing.confidence | {"margin": 1.0}
    sure = replace(nothing, silence=nothing.silence | {"constant": -2.0}, confidence=margin)
    assert ev.confidence(case.question, even, sure) == pytest.approx(1 / (1 + np.exp(-2.0)))


def test_written_weights_are_those_that_are_read(cases, tmp_path):
    calibrate.write(cases, tmp_path / "calibration.json")
    read = ev.Calibration.load(tmp_path / "calibration.json")
    assert read.sentence.keys() == ev.features(cases[0].found[0]).keys() == ev.CALIBRATION.sentence.keys()
    assert read.confidence.keys() == ev.CALIBRATION.confidence.keys()


def test_what_somebody_is_asked_to_have_must_be_named(make):
    pipeline = make()
    weights = ev.Calibration(
        ev.CALIBRATION.sentence, ev.CALIBRATION.silence, dict.fromkeys(ev.CALIBRATION.confidence, 0.0)
    )

    def sure(text: str) -> float:
        question, hits = pipeline.understand(text, None)
        return ev.confidence(question, ev.find(question, hits, pipeline.encoder), weights)

    assert sure("Who is Orsolya's mother?") == 0.5
    assert sure("What is Orsolya's walrus called?") in (0.5 * ev.UNNAMED, 0.5 * ev.UNNAMED * ev.UNKNOWN_NAME)


def test_a_number_that_is_asked_for_must_be_there(make):
    pipeline = make()
    question, hits = pipeline.understand("How many children did Orsolya raise?", None)
    found = ev.find(question, hits, pipeline.encoder)
    with_number = [replace(found[0], type=1.0), *found[1:]]
    without = [replace(e, type=0.0) for e in found]
    weights = ev.Calibration(
        ev.CALIBRATION.sentence, ev.CALIBRATION.silence, dict.fromkeys(ev.CALIBRATION.confidence, 0.0)
    )
    assert ev.confidence(question, with_number, weights) == 0.5
    assert ev.confidence(question, without, weights) == 0.5 * ev.UNTYPED
