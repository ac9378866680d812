"""Which name a follow-up leaves out: candidates from the turns before, weighed by weights learnt from conversations."""

from __future__ import annotations

import pytest

from app import carry, learn
from app.carry import Turn
from app.known import Known

ASKED = Turn("Who healed Tobiah?", "“Orsolya healed Tobiah after the siege of Brennport.” [1]", ("Orsolya",))


@pytest.fixture
def known(make):
    pipeline = make()
    return Known(pipeline.store, pipeline.searcher.names)


def test_candidates_are_the_names_of_the_turns_before_and_the_titles_cited(known):
    found = {c.name: c.where for c in carry.candidates("Where was she born?", [ASKED], known)}
    assert found == {
        "Tobiah": {"question": 0, "answer": 1},
        "Orsolya": {"title": 0, "answer": 0},
        "Brennport": {"answer": 2},
    }
    # What the turn names itself need not be carried over.
    assert "Orsolya" not in {c.name for c in carry.candidates("Where was Orsolya born?", [ASKED], known)}
    assert carry.candidates("Why?", [Turn("What is a wyvern?", "")], known) == []


@pytest.mark.parametrize(
    ("question", "first"),
    [("Where was she born?", "Orsolya"), ("and where did he die?", "Tobiah"), ("what is her mother's name", "Orsolya")],
)
def test_a_pronoun_finds_its_name(known, question, first):
    options = carry.likely(question, [ASKED], known)
    assert options[0][0] == first
    assert sum(p for _, p in options) == pytest.approx(1.0)
    assert "" in {name for name, _ in options}


def test_what_stands_beside_the_sort_asked_for_is_told(known):
    asked = Turn(
        "Which elf healed Tobiah?", "“Tobiah lay near Brennport; he was healed by the elf Vienne.” [1]", ("Orsolya",)
    )
    found = carry.candidates("Where was she born?", [asked], known)
    assert {c.name: c.where for c in found} == {
        "Tobiah": {"question": 0, "answer": 0},
        "Orsolya": {"title": 0},
        "Brennport": {"answer": 1},
        "Vienne": {"answer": carry.ANSWER_NAMES, "beside": carry.ANSWER_NAMES},
    }
    told = {c.name for c in found if carry.features(c, "Where was she born?", [asked], known)["told_sort"]}
    assert told == {"Vienne"}  # no article bears the name
    assert "Vienne" not in {c.name for c in carry.candidates("Where was Vienne born?", [asked], known)}


def test_the_sort_may_be_part_of_the_name(known):
    asked = Turn("Which archers carve their bows?", "“They are the archers of the Scoia'tarn. Orsolya is none.” [1]")
    found = {c.name: c.where for c in carry.candidates("Who leads them?", [asked], known)}
    assert "beside" in found["Scoia'tarn"]
    assert "beside" not in found["Orsolya"]  # in a sentence of its own


def test_a_refusal_leaves_what_it_came_closest_to(make):
    answer = make().ask("Which lighthouse of Brennport was built by Zyxnarok Blorft?")
    assert answer.abstained and answer.nearest
    turn = answer.as_turn()
    assert turn.answer == "" and answer.nearest[0] in turn.titles
    assert answer.closest is None or turn.titles[0] == answer.closest.title


def test_a_portrait_names_much_besides_and_is_about_one(known):
    portrait = Turn("Who is Orsolya?", "“Orsolya, like Ilvane, healed Tobiah at Brennport.” [1]", ("Brennport",))
    other = Turn("Who healed Orsolya?", *portrait[1:])
    about, told = (dict(carry.likely("Who leads it?", [turn], known))["Orsolya"] for turn in (portrait, other))
    assert about > 0.5 and about > 2 * told


def test_nobody_says_they_of_a_place(known, monkeypatch):
    monkeypatch.setattr(known, "kind", lambda page: "place" if page in known.pages("Brennport") else "")
    named = {c.name for c in carry.candidates("Why do they sing?", [ASKED], known)}
    assert "Brennport" not in named and "Orsolya" in named
    assert "Brennport" in {c.name for c in carry.candidates("Who rules it?", [ASKED], known)}


def test_a_new_topic_carries_nothing(known):
    options = carry.likely("By the way, how many lighthouses does the harbour city of Brennport have?", [ASKED], known)
    assert options[0][0] == ""


def test_pronouns_are_read_off_the_article(known):
    assert [known.pronoun(name) for name in ("Orsolya", "Tobiah", "nobody")] == ["she", "he", ""]
    assert [name for name, _ in known.mentions("Did orsola meet Tobiah?")] == ["orsola", "Tobiah"]
    assert known.pages("orsola") == known.pages("Orsolya") != known.pages("Tobiah")


def test_weights_learn_from_where_names_stood():
    """Names that stood in the question are right, others wrong, in forty conversations: so those are chosen."""

    def case(right: bool) -> learn.Case:
        place = {"question": 1.0, "answer": 0.0} if right else {"question": 0.0, "answer": 1.0}
        other = {"question": 0.0, "answer": 1.0}
        return learn.Case([place, other], {"constant": 1.0}, [right, False, not right])

    cases = [case(True) for _ in range(40)] + [case(False) for _ in range(10)]
    weights = learn.fit_carry(cases)
    assert weights.name["question"] > 1 > weights.name["answer"]
    judged = learn.judge_carry(cases, weights)
    assert judged["carried_right"] == 1.0


def test_released_weights_fit_the_features(known):
    c = carry.candidates("Where was she born?", [ASKED], known)[0]
    assert carry.features(c, "Where was she born?", [ASKED], known).keys() == carry.WEIGHTS.name.keys()
    assert carry.none_features("Where was she born?", known).keys() == carry.WEIGHTS.none.keys()
    assert carry.LEARNT["on_dev"]["carried_among_3"] > 0.8
