"""The mixture of experts: the fast way equals the plain one, and a router that has collapsed comes back."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from lm.experts import Experts, Routing
from lm.model import PRESETS, Cirilla, Config

CONFIG = Config(
    vocab_size=64, d_model=32, n_layers=2, n_heads=2, n_kv_heads=1, head_dim=16, d_ff=64, max_length=64,
    n_experts=8, n_active=2, d_expert=16, balance=0.02,
)  # fmt: skip


def layer(config: Config = CONFIG, spread: float = 0.3) -> Experts:
    torch.manual_seed(0)
    experts = Experts(config)
    for p in experts.parameters():
        torch.nn.init.normal_(p, std=spread)
    return experts


def test_equals_the_definition():
    """Every expert on every token, then the weighted sum of the chosen: what the sparse code saves itself."""
    experts, x = layer(), torch.randn(3, 5, 32)
    scores = (x @ experts.router.T).softmax(-1)
    best = scores.sort(descending=True).indices[..., :2]
    share = torch.zeros_like(scores).scatter(-1, best, scores.gather(-1, best))
    share = share / share.sum(-1, keepdim=True)
    gate, up = torch.einsum("btd,efd->btef", x, experts.gate_up).chunk(2, -1)
    every = torch.einsum("btef,edf->bted", F.silu(gate) * up, experts.down)
    assert torch.allclose(experts(x), (share[..., None] * every).sum(2), atol=1e-5)


@pytest.mark.parametrize("n_active", [1, 2, 8])
def test_grouped_equals_the_loop(n_active):
    """Forward and backward, with experts that nobody chose."""
    if not hasattr(F, "grouped_mm"):
        pytest.skip("this torch has no grouped_mm")
    experts, x = layer(replace(CONFIG, n_active=n_active)), torch.randn(20, 32, requires_grad=True)
    chosen = torch.randint(0, 4 if n_active < 8 else 8, (20, 8)).argsort(1)[:, :n_active]
    weights = torch.rand(20, n_active, requires_grad=True)
    wanted = torch.randn(20, 32)
    results = []
    for run in (experts.loop, experts.grouped):
        y = run(x, chosen, weights)
        inputs = (x, weights, experts.gate_up, experts.down)
        results.append((y, *torch.autograd.grad((y * wanted).sum(), inputs)))
    for a, b in zip(*results, strict=True):
        assert torch.allclose(a, b, atol=1e-5)


def test_grouped_runs_where_the_loop_does_under_autocast(monkeypatch):
    experts, x = layer(), torch.randn(2, 10, 32)
    exact = experts(x)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert not experts.wants_grouped(x)  # a CPU takes the loop
        looped = experts(x)
        monkeypatch.setattr(experts, "wants_grouped", lambda _: True)
        grouped = experts(x)
    assert torch.allclose(looped, exact, atol=0.1) and torch.allclose(grouped, exact, atol=0.1)
    assert grouped.dtype == looped.dtype == torch.float32


def routed(probabilities: torch.Tensor, k: int) -> Routing:
    weights, experts = probabilities.topk(k, -1)
    return Routing(experts, weights / weights.sum(-1, keepdim=True), probabilities)


def test_the_balance_loss_at_its_ends():
    tokens, n_experts = torch.arange(400), 8
    sharp = F.one_hot(tokens % n_experts, n_experts).float()[None]
    assert routed(sharp, 1).balance_loss().item() == pytest.approx(1)  # even: each token its own, all equally often
    assert torch.allclose(routed(sharp, 1).load(), torch.full((8,), 1 / 8))
    collapsed = F.one_hot(torch.zeros(400, dtype=torch.long), n_experts).float()[None]
    assert routed(collapsed, 1).balance_loss().item() == pytest.approx(n_experts)
    two = torch.tensor([0.5, 0.5] + [0.0] * 6).expand(1, 400, 8)
    assert routed(two, 2).balance_loss().item() == pytest.approx(n_experts / 2)


def test_the_balance_loss_falls_as_routing_evens_out():
    """From all tokens on few experts to all tokens on all: every step on the way is cheaper."""
    generator = torch.Generator().manual_seed(0)
    noise, losses, crowds = torch.randn(1, 4_000, 8, generator=generator), [], []
    for pull in (8.0, 4.0, 2.0, 1.0, 0.5, 0.0):
        routing = routed((noise + pull * torch.linspace(1, -1, 8)).softmax(-1), 2)
        losses.append(routing.balance_loss().item())
        crowds.append(routing.load().max().item())
    assert losses == sorted(losses, reverse=True) and crowds == sorted(crowds, reverse=True)
    assert losses[0] > 2.5 and losses[-1] == pytest.approx(1, abs=0.01)


def collapse(experts: Experts, towards: torch.Tensor) -> None:
    with torch.no_grad():
        experts.router[:2] += 1.5 * towards / towards.norm()


def test_a_collapsed_router_evens_out():
    """All tokens on two experts of eight; 300 steps of the balance loss alone, on tokens never seen before."""
    experts, centre = layer(spread=0.1), torch.randn(32)
    collapse(experts, centre)

    def look() -> Routing:
        routing: list[Routing] = []
        experts(torch.randn(4, 64, 32) + centre, routing)
        return routing[0]

    before = look()
    assert before.load()[:2].sum() > 0.95 and before.balance_loss() > 3
    optimizer = torch.optim.AdamW([experts.router], lr=0.005)
    losses = []
    for _ in range(300):
        loss = look().balance_loss()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    after = torch.stack([look().load() for _ in range(8)]).mean(0)
    assert after.max() < 0.25 and after.min() > 0.04  # even would be 0.125
    assert sum(losses[-20:]) / 20 < 1.1


@pytest.mark.parametrize("balance", [0.0, 0.02])
def test_training_a_model_keeps_its_experts_in_use(balance):
    """A language model whose routers start collapsed: it learns either way, but without the loss most experts idle."""
    torch.manual_seed(0)
    model = Cirilla(replace(CONFIG, balance=balance)).train()
    ids = torch.randint(0, 64, (32, 1)).repeat(1, 24).add(torch.arange(24)).remainder(64)  # counting up
    with torch.no_grad():  # collapsed along what all tokens share
        model.embed_tokens.weight += 0.05 * torch.randn(32)
        routing: list[Routing] = []
        inputs: list[torch.Tensor] = []
        layers = [m for m in model.modules() if isinstance(m, Experts)]
        hooks = [m.register_forward_pre_hook(lambda _, args: inputs.append(args[0])) for m in layers]
        model.hidden(ids)
        for hook in hooks:
            hook.remove()
        for experts, x in zip(layers, inputs, strict=True):
            collapse(experts, x.flatten(0, 1).mean(0))
        model.hidden(ids, routing=routing)
    assert all(r.load()[:2].sum() > 0.9 for r in routing)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for _ in range(200):
        loss = model.loss(ids[:, :-1], ids[:, 1:])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    routing.clear()
    with torch.no_grad():
        model.hidden(ids, routing=routing)
        assert model.eval().loss(ids[:, :-1], ids[:, 1:]) < 0.5
    crowded = max(r.load()[:2].sum().item() for r in routing)
    assert crowded < 0.4 if balance else crowded > 0.6


def test_the_loss_in_evaluation_is_cross_entropy_alone():
    torch.manual_seed(0)
    model, ids = Cirilla(replace(CONFIG, balance=1.0)), torch.randint(0, 64, (2, 20))
    with torch.no_grad():
        training = model.train().loss(ids, ids).item()
        alone = model.eval().loss(ids, ids).item()
    assert alone == pytest.approx(F.cross_entropy(model(ids).flatten(0, 1), ids.flatten()).item(), abs=1e-5)
    assert 0.9 < training - alone < 4.1  # E/k at most


def test_where_tokens_went_can_be_read():
    model, ids = Cirilla(CONFIG).eval(), torch.randint(0, 64, (2, 7))
    routing: list[Routing] = []
    with torch.no_grad():
        looked, plain = model.hidden(ids, routing=routing), model.hidden(ids)
    assert torch.equal(looked, plain) and len(routing) == 2
    assert routing[0].experts.shape == routing[0].weights.shape == (2, 7, 2)
    assert torch.allclose(routing[1].weights.sum(-1), torch.ones(2, 7))
    dense: list[Routing] = []
    Cirilla(PRESETS["cirilla-tiny"]).hidden(ids, routing=dense)
    assert dense == []
