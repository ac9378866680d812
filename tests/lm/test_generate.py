"""Generation: every faster way to decode gives what the slow one gives."""

from itertools import pairwise

import pytest
import torch

from lm import generate
from lm.generate import Context, Token, batch, stream, text
from lm.model import Cirilla, Config
from lm.speculate import PromptLookup

VOCAB = 300  # few tokens: random models then repeat themselves, which is what speculation lives on
STRENGTH = 6
SHAPE = dict(vocab_size=VOCAB, d_model=32, n_layers=3, n_heads=4, n_kv_heads=2, head_dim=8, d_ff=48, max_length=160)
CONFIGS = {
    "dense": Config(**SHAPE),  # type: ignore[arg-type]
    "windows": Config(**SHAPE, window=24, global_every=3),  # type: ignore[arg-type]
    "experts": Config(**SHAPE, n_experts=4, n_active=2, d_expert=24),  # type: ignore[arg-type]
    "untied, capped": Config(**SHAPE, tied=False, soft_cap=8.0),  # type: ignore[arg-type]
}


def make(config: Config, seed: int = 0) -> Cirilla:
    torch.manual_seed(seed)
    model = Cirilla(config).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            # Strong layers over a weak embedding: a tied model would else say the same token for ever.
            if parameter.ndim > 1 and "embed" not in name:
                parameter.mul_(STRENGTH)
    return model


def prompt_of(seed: int, length: int = 60) -> list[int]:
    """Random, but with a phrase that comes back."""
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(3, VOCAB, (length,), generator=generator).tolist()
    ids[-12:-2] = ids[5:15]
    return ids


def ids_of(tokens) -> list[int]:
    return [token.id for token in tokens]


class Passes:
    """Counts a model's forward passes and the tokens in them."""

    def __init__(self, model: Cirilla, monkeypatch: pytest.MonkeyPatch) -> None:
        self.sizes: list[int] = []
        hidden = model.hidden

        def counted(ids, *args, **kwargs):
            self.sizes.append(ids.shape[1])
            return hidden(ids, *args, **kwargs)

        monkeypatch.setattr(model, "hidden", counted)


@pytest.mark.parametrize("name", CONFIGS)
def test_speculative_equals_greedy(name, monkeypatch):
    accepted = 0
    for seed in range(3):
        model = make(CONFIGS[name], seed)
        prompt = prompt_of(seed)
        plain = list(stream(model, prompt, max_new_tokens=60))
        for lookup in (2, 10):
            passes = Passes(model, monkeypatch)
            fast = list(stream(model, prompt, max_new_tokens=60, lookup=lookup))
            monkeypatch.undo()
            assert ids_of(fast) == ids_of(plain)
            assert [t.probability for t in fast] == pytest.approx([t.probability for t in plain], abs=1e-5)
            hits = sum(token.speculated for token in fast)
            assert len(passes.sizes) == len(plain) - hits  # the prompt's pass gives the first token
            accepted += hits
    assert accepted > 40  # or this has shown nothing


@pytest.mark.parametrize("lookup", [0, 8])
def test_only_what_is_allowed_is_written_and_its_probability_is_the_models_own(lookup):
    model, prompt = make(CONFIGS["dense"], 0), prompt_of(0)
    free = list(stream(model, prompt, max_new_tokens=20))
    allowed = set(prompt) - {free[0].id}
    tokens = list(stream(model, prompt, max_new_tokens=20, allowed=allowed, lookup=lookup))
    assert len(tokens) == 20 and {token.id for token in tokens} <= allowed
    assert 0 < tokens[0].probability < free[0].probability  # of the same distribution, not of what is left of it


def test_speculation_keeps_limits_and_stops_in_the_middle_of_a_draft():
    model, prompt = make(CONFIGS["dense"], 1), prompt_of(1)
    full = list(stream(model, prompt, max_new_tokens=60, lookup=10))
    ids = ids_of(full)
    inside = [i for i, (a, b) in enumerate(pairwise(full)) if a.speculated and b.speculated]
    assert inside
    for limit in range(1, 60, 3):
        assert ids_of(stream(model, prompt, max_new_tokens=limit, lookup=10)) == ids[:limit]
    for i in inside:
        stop = frozenset({ids[i]})
        cut = list(stream(model, prompt, max_new_tokens=60, lookup=10, stop=stop))
        assert ids_of(cut) == ids[: ids.index(ids[i])]
        assert ids_of(cut) == ids_of(stream(model, prompt, max_new_tokens=60, stop=stop))


def test_speculation_at_the_end_of_the_model():
    model = make(CONFIGS["dense"])
    prompt = prompt_of(1, length=150)
    plain = ids_of(stream(model, prompt, max_new_tokens=99))
    assert len(plain) == 10
    assert ids_of(stream(model, prompt, max_new_tokens=99, lookup=10)) == plain


def test_sampling_uses_its_random_numbers_alike_with_and_without_speculation():
    model, prompt = make(CONFIGS["dense"]), prompt_of(2)
    settings = dict(max_new_tokens=50, temperature=0.4, top_k=20, top_p=0.95, repetition_penalty=1.05)
    plain = [ids_of(stream(model, prompt, seed=seed, **settings)) for seed in range(4)]  # type: ignore[arg-type]
    fast = [ids_of(stream(model, prompt, seed=seed, lookup=8, **settings)) for seed in range(4)]  # type: ignore[arg-type]
    assert fast == plain
    assert len({tuple(ids) for ids in plain}) > 1


def test_drafts_adapt_to_their_success():
    lookup = PromptLookup([1, 2, 3, 4, 5, 6, 7, 8, 9, 1, 2], longest=6)
    assert lookup.propose(99) == [3, 4, 5, 6]
    assert lookup.propose(2) == [3, 4]
    assert lookup.propose(0) == []
    lookup.learn(4, 4)
    assert lookup.propose(99) == [3, 4, 5, 6, 7, 8]
    lookup.learn(6, 0)
    assert lookup.propose(99) == [3, 4]
    lookup.extend([77])
    assert lookup.propose(99) == []
    assert (lookup.proposed, lookup.accepted) == (10, 4)


@pytest.mark.parametrize("name", CONFIGS)
def test_a_context_reads_only_what_is_new(name, monkeypatch):
    model = make(CONFIGS[name])
    first, fork = prompt_of(3, 40), [*prompt_of(3, 40)[:25], *prompt_of(4, 20)]
    context = Context(model)
    answer = ids_of(stream(model, first, max_new_tokens=20, context=context, lookup=6))
    prompts = [first, [*first, *answer, 7, 8], fork, first, [9], fork]
    for prompt in prompts:
        fresh = ids_of(stream(model, prompt, max_new_tokens=20))
        assert ids_of(stream(model, prompt, max_new_tokens=20, context=context, lookup=6)) == fresh
        assert context.ids[: len(prompt)] == prompt and context.cache.length == len(context.ids)
    if name == "dense":
        passes = Passes(model, monkeypatch)
        list(stream(model, [*fork, 11, 12], max_new_tokens=1, context=context))
        assert passes.sizes == [2]


def test_a_context_survives_an_abandoned_answer_and_a_failed_pass(monkeypatch):
    model, prompt = make(CONFIGS["windows"]), prompt_of(0)
    fresh = ids_of(stream(model, prompt, max_new_tokens=30))
    context = Context(model)
    for stop_after in (1, 2, 5, 11):
        running = stream(model, prompt, max_new_tokens=30, context=context, lookup=10)
        for _ in range(stop_after):
            next(running)
        running.close()
        assert context.cache.length == len(context.ids)
    assert ids_of(stream(model, prompt, max_new_tokens=30, context=context, lookup=10)) == fresh

    def fail(*args, **kwargs):
        raise RuntimeError("no memory")

    monkeypatch.setattr(model.layers[2], "forward", fail)
    with pytest.raises(RuntimeError):
        list(stream(model, [*prompt, 5], max_new_tokens=30, context=context))
    monkeypatch.undo()
    assert ids_of(stream(model, prompt, max_new_tokens=30, context=context)) == fresh


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize(
    "settings",
    [{}, {"repetition_penalty": 1.4}, {"temperature": 0.9, "top_p": 0.9}, {"temperature": 0.7, "top_k": 5}],
    ids=["greedy", "penalty", "nucleus", "top-k"],
)
def test_a_batch_equals_its_rows(name, settings):
    model = make(CONFIGS[name])
    prompts = [prompt_of(seed, length) for seed, length in enumerate((30, 17, 44, 44))]
    rows = [
        ids_of(stream(model, prompt, max_new_tokens=25, seed=seed, **settings)) for seed, prompt in enumerate(prompts)
    ]
    stop = frozenset({rows[0][12]})
    rows = [row[: next((i for i, token in enumerate(row) if token in stop), 25)] for row in rows]
    assert batch(model, prompts, max_new_tokens=25, stop=stop, seeds=range(4), **settings) == rows


def test_a_batch_says_what_is_wrong():
    model = make(CONFIGS["dense"])
    assert batch(model, [], max_new_tokens=3) == []
    assert batch(model, [[5]], max_new_tokens=0) == [[]]
    with pytest.raises(ValueError, match="seeds"):
        batch(model, [[5]], max_new_tokens=3, seeds=[1, 2])
    with pytest.raises(ValueError, match="prompt"):
        batch(model, [[5], []], max_new_tokens=3)


def test_choices_follow_the_distribution():
    logits = torch.tensor([2.0, 1.0, 0.0, -1.0, -40.0]).repeat(4_000, 1)
    uniform = torch.rand(4_000, generator=torch.Generator().manual_seed(0))
    drawn = generate.choose(logits, 1.0, 0, 1.0, uniform)
    shares = torch.bincount(drawn, minlength=5) / 4_000
    assert torch.allclose(shares, logits[0].softmax(-1), atol=0.03)
    cut = generate.choose(logits, 1.0, 3, 0.85, uniform)
    assert set(cut.tolist()) == {0, 1}
    ends = torch.tensor([0.0, 1 - 1e-7, 1.0])  # 1 is not drawn, but rounding may come to it
    assert generate.choose(logits[:3], 1.0, 2, 1.0, ends).tolist() == [0, 1, 1]


@pytest.mark.parametrize("wrong", [{"top_k": -1}, {"top_p": 0.0}, {"top_p": 1.5}])
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_a_choice_from_nothing_is_refused(wrong, temperature):
    model = make(CONFIGS["dense"])
    with pytest.raises(ValueError, match="top_k"):
        list(stream(model, [5], max_new_tokens=3, temperature=temperature, **wrong))
    with pytest.raises(ValueError, match="top_k"):
        batch(model, [[5]], max_new_tokens=3, temperature=temperature, **wrong)


@pytest.mark.parametrize("lookup", [0, 8])
def test_a_trace_shows_runners_up_and_experts(lookup):
    model, prompt = make(CONFIGS["experts"]), prompt_of(0)
    plain = list(stream(model, prompt, max_new_tokens=30, lookup=lookup))
    traced = list(stream(model, prompt, max_new_tokens=30, lookup=lookup, trace=True))
    assert ids_of(plain) == ids_of(traced)
    assert not any(token.runners_up or token.experts for token in plain)
    ids = list(prompt)
    for token in traced:
        with torch.no_grad():
            best = model(torch.tensor([ids]))[0, -1].softmax(-1).topk(5)
        assert [id for id, _ in token.runners_up] == best.indices[1:].tolist()
        assert [p for _, p in token.runners_up] == pytest.approx(best.values[1:].tolist(), abs=1e-5)
        assert len(token.experts) == 3 and all(len(set(layer)) == 2 for layer in token.experts)
        ids.append(token.id)
    if lookup:
        slow = list(stream(model, prompt, max_new_tokens=30, trace=True))
        assert [token.experts for token in slow] == [token.experts for token in traced]


def decode(ids) -> str:
    return bytes(ids).decode("utf-8", errors="replace")


def spell(string: str) -> list[Token]:
    return [Token(byte, 1.0) for byte in string.encode()]


def test_text_comes_in_whole_characters():
    pieces = [piece for _, piece in text(spell("Łódź 🐺!"), decode)]
    assert "".join(pieces) == "Łódź 🐺!"
    assert "🐺" in pieces and not any("\ufffd" in piece for piece in pieces)
    assert "".join(piece for _, piece in text(spell("a🐺")[:-1], decode)) == "a"


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ("one\n\ntwo", "one"),
        ("one\ntwo", "one\ntwo"),
        ("Question", "Question"),
        ("an answer. Question: next", "an answer. "),
        ("Question: first", ""),
        ("ends in Quest", "ends in Quest"),
        ("QuQuestion:", "Qu"),
    ],
)
def test_stop_strings_never_show(said, expected):
    stops = ("\n\n", "Question:")
    shown = "".join(piece for _, piece in text(iter(spell(said)), decode, stops))
    assert shown == expected
