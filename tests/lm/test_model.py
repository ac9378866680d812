"""Cirilla's arithmetic: cached against uncached, packed against separate, and what each token may see."""

from dataclasses import replace

import pytest
import torch

from lm import generate
from lm.attention import flex_view, masked_view, starts
from lm.model import PRESETS, Cirilla, Config, KVCache

TINY = replace(PRESETS["cirilla-tiny"], max_length=128)
CONFIGS = {
    "tiny": TINY,
    "odd-shapes": Config(
        d_model=48, n_layers=3, n_heads=6, n_kv_heads=2, head_dim=8, d_ff=80, max_length=128, rope_theta=50_000.0
    ),
    "windows": replace(TINY, window=16),
    "every-third-global": replace(TINY, n_layers=3, window=16, global_every=3),
    "experts": replace(TINY, n_experts=4, d_expert=32),
    "soft-cap": replace(TINY, soft_cap=2.0),
    "llama2": PRESETS["llama2-tiny"],
    "mistral": PRESETS["mistral-tiny"],
}


def make(config: Config) -> Cirilla:
    torch.manual_seed(0)
    model = Cirilla(config).eval()
    with torch.no_grad():  # norms that are not all ones, or a forgotten one would go unnoticed
        for p in model.parameters():
            if p.ndim == 1:
                p.copy_(1 + 0.3 * torch.randn_like(p))
            else:
                p.mul_(3)
    return model


@pytest.fixture(params=list(CONFIGS))
def model(request) -> Cirilla:
    return make(CONFIGS[request.param])


@pytest.fixture
def windowed() -> Cirilla:
    return make(CONFIGS["every-third-global"])


@pytest.fixture(params=["tiny", "windows", "experts"])
def speaker(request) -> Cirilla:
    return make(CONFIGS[request.param])


@pytest.fixture(params=["tiny", "windows", "experts"])
def talker(request) -> Cirilla:
    """Strong layers over a weak embedding: a tied model would else say the same token for ever."""
    model = make(CONFIGS[request.param])
    with torch.no_grad():
        model.embed_tokens.weight.div_(3)
        for name, p in model.named_parameters():
            if p.ndim > 1 and "embed" not in name:
                p.mul_(2)
    return model


@pytest.fixture
def ids(model) -> torch.Tensor:
    return torch.randint(16, 16_384, (2, 90), generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("cuts", [[90], [1] * 90, [40, 1, 1, 30, 18], [89, 1], [1, 60, 29]], ids=str)
def test_cached_equals_uncached(model, ids, cuts):
    cache, parts, start = KVCache(model.config, batch=2, slack=8), [], 0
    with torch.no_grad():
        for cut in cuts:
            parts.append(model(ids[:, start : start + cut], cache))
            start += cut
        assert torch.allclose(torch.cat(parts, 1), model(ids), atol=1e-4)
    assert cache.length == 90


@pytest.mark.parametrize("chunk", [1, 7, 16, 64, 500])
def test_chunked_prefill_equals_one_shot(model, ids, chunk):
    one, many = KVCache(model.config, batch=2, slack=8), KVCache(model.config, batch=2, slack=8)
    with torch.no_grad():
        assert torch.allclose(model.prefill(ids, many, chunk=chunk), model.hidden(ids, one)[:, -1], atol=1e-4)
        # ... and what is in the cache is the same too
        assert torch.allclose(model(ids[:, :3], many), model(ids[:, :3], one), atol=1e-4)


def test_a_rewound_cache_forgets(model, ids):
    cache = KVCache(model.config, batch=2, slack=100)
    with torch.no_grad():
        model(ids, cache)
        cache.rewind(30)
        again = model(ids[:, 30:60], cache)
        assert torch.allclose(again, model(ids[:, :60])[:, 30:], atol=1e-4)


def test_tokens_taken_back_leave_no_trace(model, ids):
    """What speculation does: write a few, keep some, over and over, far beyond the window."""
    slack, kept, generator = 6, 0, torch.Generator().manual_seed(3)
    cache = KVCache(model.config, batch=2, slack=slack)
    with torch.no_grad():
        expected = model(ids)
        while kept < 80:
            guessed, right = sorted(torch.randint(1, slack + 1, (2,), generator=generator).tolist(), reverse=True)
            text = torch.cat((ids[:, kept : kept + right], torch.full((2, guessed - right), 99)), 1)
            got = model(text, cache)
            assert torch.allclose(got[:, :right], expected[:, kept : kept + right], atol=1e-4)
            kept += right
            cache.rewind(kept)
    assert cache.length == kept


def test_a_ring_says_how_far_back_it_goes(windowed, ids):
    cache = KVCache(windowed.config, batch=2, slack=8)
    with torch.no_grad():
        windowed(ids, cache)
        with pytest.raises(ValueError, match="window of 16"):
            cache.rewind(70)
        assert cache.length == 90
        cache.rewind(82)  # 8 back: as far as the slack goes
        assert torch.allclose(windowed(ids[:, 82:], cache), windowed(ids)[:, 82:], atol=1e-4)
        cache.rewind(0)  # starting over always works
        assert torch.allclose(windowed(ids[:, 5:25], cache), windowed(ids[:, 5:25]), atol=1e-4)


def test_a_rolling_buffer_is_as_large_as_its_window(windowed):
    local, _, full = (k.shape[2] for k in KVCache(windowed.config, slack=8).keys)
    assert (local, full) == (16 + 8, 128)
    mistral = Config(n_layers=1, n_heads=2, n_kv_heads=1, head_dim=8, max_length=100_000, window=64)
    cache = KVCache(mistral)
    assert sum(t.nbytes for t in cache.keys + cache.values) == 2 * (64 + 32) * 8 * 4


def test_a_window_hides_what_is_far(ids):
    """Two local layers of 16 reach 2 · 15 tokens back and no further; a global one reaches all."""
    changed = ids.clone()
    changed[:, 20] = 20
    for name, reach in (("windows", 30), ("every-third-global", 69), ("tiny", 69)):
        model = make(CONFIGS[name])
        with torch.no_grad():
            same = (model.hidden(ids) == model.hidden(changed)).all(-1)  # (B, T)
        assert same[:, :20].all() and not same[:, 20].any()
        assert not same[:, 20 + reach].any(), name
        assert same[:, 20 + reach + 1 :].all(), name


def test_a_window_as_long_as_the_text_is_full_attention(ids):
    full, local = make(TINY), make(replace(TINY, window=90))
    with torch.no_grad():
        assert torch.allclose(full(ids), local(ids), atol=1e-5)


@pytest.mark.parametrize("cuts", [[90], [40, 20, 1, 1, 28], [3] * 30], ids=str)
def test_left_padding_changes_nothing(model, cuts):
    """Rows of different lengths side by side, cached and not, against each row alone."""
    generator = torch.Generator().manual_seed(4)
    pad = torch.tensor([0, 7, 50])
    rows = [torch.randint(16, 16_384, (90 - n,), generator=generator) for n in pad.tolist()]
    batch = torch.stack([torch.cat((torch.zeros(90 - len(row), dtype=torch.long), row)) for row in rows])
    cache, parts, start = KVCache(model.config, batch=3, slack=8), [], 0
    with torch.no_grad():
        for cut in cuts:
            parts.append(model(batch[:, start : start + cut], cache, pad if start == 0 else None))
            start += cut
        cached, plain = torch.cat(parts, 1), model(batch, pad=pad)
        for i, row in enumerate(rows):
            alone = model(row[None])[0]
            assert torch.allclose(cached[i, pad[i] :], alone, atol=1e-4)
            assert torch.allclose(plain[i, pad[i] :], alone, atol=1e-4)


DOCUMENTS = torch.tensor([[0] * 30 + [1] * 1 + [2] * 59, [5] * 20 + [4] * 50 + [5] * 20])


def test_packed_equals_separate_documents(model, ids):
    with torch.no_grad():
        packed = model.hidden(ids, documents=DOCUMENTS)
        for row, (a, b) in [(0, (0, 30)), (0, (30, 31)), (0, (31, 90)), (1, (0, 20)), (1, (20, 70)), (1, (70, 90))]:
            assert torch.allclose(packed[row, a:b], model.hidden(ids[row : row + 1, a:b])[0], atol=1e-4)


@pytest.mark.filterwarnings("ignore:flex_attention called without")
@pytest.mark.parametrize("documents", [None, DOCUMENTS], ids=["one document", "packed"])
def test_flex_attention_equals_the_mask(model, ids, documents):
    targets = ids.roll(-1, 1)
    with torch.no_grad():
        one, two = (model.hidden(ids, documents=documents, flex=flex) for flex in (True, False))
        assert torch.allclose(one, two, atol=1e-4)
        losses = [model.loss(ids, targets, documents, flex=flex).item() for flex in (True, False)]
    assert losses[0] == pytest.approx(losses[1], abs=1e-4)


@pytest.mark.parametrize("flex", [False, True])
@pytest.mark.parametrize("packed", [False, True])
def test_the_loss_is_one_graph(packed, flex):
    """What torch.compile cannot trace would be found out on a GPU alone."""
    model = make(CONFIGS["windows" if flex else "tiny"])
    ids = torch.randint(16, 16_384, (2, 20))
    targets = torch.where(torch.rand(2, 20) < 0.5, ids, -100)
    documents = torch.tensor([[1] * 7 + [2] * 13, [1] * 20]) if packed else None
    compiled = torch.compile(model.loss, backend="eager", fullgraph=True)
    with torch.set_grad_enabled(not flex):  # a CPU has no backward pass for FlexAttention
        found = compiled(ids, targets, documents, flex=flex)
    assert torch.allclose(found, model.loss(ids, targets, documents, flex=False))


def test_flex_and_mask_hold_the_same_rule():
    first = starts(DOCUMENTS)
    assert first[0].tolist() == [0] * 30 + [30] + [31] * 59
    index = torch.arange(90)
    mask = masked_view(index, index, first, 16).mask
    rule = flex_view(90, first, 16, torch.device("cpu")).blocks.mask_mod
    b, q, k = torch.meshgrid(torch.arange(2), index, index, indexing="ij")
    assert mask is not None and torch.equal(mask[:, 0], rule(b, None, q, k))


def test_what_cannot_be_is_said(model, ids):
    with pytest.raises(ValueError, match="packed"):
        model.hidden(ids, KVCache(model.config, batch=2), documents=DOCUMENTS)
    cache = KVCache(model.config, batch=2)
    model.hidden(ids[:, :4], cache)
    with pytest.raises(ValueError, match="first tokens"):
        model.hidden(ids[:, 4:8], cache, torch.tensor([1, 2]))
    wrongs: list[dict] = [{"n_kv_heads": 3}, {"global_every": 2}, {"window": 8, "global_every": 1}, {"n_experts": 4}]
    for wrong in wrongs:
        with pytest.raises(ValueError):
            replace(TINY, **wrong)


def test_a_soft_cap_bounds_logits_and_keeps_their_order(ids):
    capped, free = make(CONFIGS["soft-cap"]), make(TINY)
    with torch.no_grad():
        a, b = capped(ids), free(ids)
    assert a.abs().max() <= 2.0 < b.abs().max()
    assert torch.allclose(a, 2 * torch.tanh(b / 2), atol=1e-5)


def test_costs_count_what_a_token_meets():
    dense, sparse, untied = make(TINY), make(CONFIGS["experts"]), make(PRESETS["llama2-tiny"])
    matrices = sum(p.numel() for p in dense.parameters() if p.ndim == 2)
    assert dense.matmul_parameters() == matrices
    layer = 3 * 64 * 128
    assert sparse.matmul_parameters() == matrices - 2 * layer + 2 * (2 * 3 * 64 * 32 + 4 * 64)
    assert untied.matmul_parameters() == sum(p.numel() for p in untied.parameters() if p.ndim == 2) - 16_384 * 64


def test_the_future_is_invisible(model, ids):
    changed = ids.clone()
    changed[:, 50:] = 20
    with torch.no_grad():
        assert torch.equal(model(ids)[:, :50], model(changed)[:, :50])


def test_loss_counts_only_wanted_targets(model, ids):
    targets = torch.full_like(ids, -100)
    targets[0, 10:14] = torch.tensor([20, 21, 22, 23])
    with torch.no_grad():
        logits = model(ids)[0, 10:14]
        expected = torch.nn.functional.cross_entropy(logits, targets[0, 10:14])
        assert model.loss(ids, targets).item() == pytest.approx(expected.item(), abs=1e-5)


def test_greedy_stream_equals_the_slow_way(talker):
    prompt = list(range(100, 130))
    slow = list(prompt)
    with torch.no_grad():
        for _ in range(25):
            slow.append(int(talker(torch.tensor([slow]))[0, -1].argmax()))
    said = slow[30:]
    assert len(set(said)) > 5, "a model that repeats itself proves nothing"
    tokens = list(generate.stream(talker, prompt, max_new_tokens=25))
    assert [t.id for t in tokens] == said
    assert all(0 < t.probability <= 1 for t in tokens)
    last = max(said.index(token) for token in said)  # the latest token that was not said before
    stopped = list(generate.stream(talker, prompt, max_new_tokens=25, stop=frozenset({said[last]})))
    assert last > 3 and [t.id for t in stopped] == said[:last]


def test_sampling_keeps_to_its_limits(speaker):
    logits = torch.tensor([2.0, 1.0, 0.0, -1.0, -20.0])
    generator = torch.Generator().manual_seed(0)
    assert generate.pick(logits, 0, 0, 1.0, None) == 0
    assert {generate.pick(logits, 1.0, 2, 1.0, generator) for _ in range(200)} == {0, 1}
    # 0.64 + 0.24 of the mass reach 0.8 with two tokens
    assert {generate.pick(logits, 1.0, 0, 0.8, generator) for _ in range(200)} == {0, 1}
    one, two = (
        [t.id for t in generate.stream(speaker, [20, 21], max_new_tokens=10, temperature=1.0, seed=5)] for _ in range(2)
    )
    assert one == two


def test_repetition_penalty_breaks_a_loop(speaker):
    plain = [t.id for t in generate.stream(speaker, [20, 21], max_new_tokens=40)]
    held = [t.id for t in generate.stream(speaker, [20, 21], max_new_tokens=40, repetition_penalty=1e6)]
    assert len(set(plain)) < len(plain) == len(held) == len(set(held))


def test_too_long_is_said(model):
    with pytest.raises(ValueError, match="tokens"):
        model(torch.zeros(1, model.config.max_length + 1, dtype=torch.long))
    with pytest.raises(ValueError, match="prompt"):
        list(generate.stream(model, [], max_new_tokens=1))
    full = [20] * (model.config.max_length - 3)
    assert len(list(generate.stream(model, full, max_new_tokens=50))) <= 3
