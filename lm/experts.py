"""A sparse mixture of experts: many small feed-forward networks, of which each token visits a few.

The router scores every expert for every token; the token goes to the ``n_active`` best and their outputs are added,
weighted by their scores (Shazeer et al. 2017; softmax over all experts, the chosen ones renormalised, as in Qwen3-MoE).
No expert has a capacity and no token is dropped.  A model so has the memory of all its experts at the cost of a few.

**Balance.**  Left alone, a router sends ever more tokens to the experts that are already best trained, and the rest
starve.  The auxiliary loss of Switch (Fedus et al. 2022) prevents it, over E experts:

    loss = E · Σ f_e · P_e     f_e: share of the choices that fell on expert e, a count and therefore a constant
                               P_e: mean probability that the router gives e

Its gradient lowers the probability of an expert by how much it is used, so the crowded lose to the idle.  When routing
is even, f_e = 1/E and the loss is exactly 1, whatever P is; when all tokens go to the same ``k`` experts with certainty
it is E/k.  (``transformers`` reports k times this value: there f sums to k.)

DeepSeek-V3's bias on the selection scores balances without a gradient, but the bias is needed at inference too and
Qwen3-MoE has no place for it: such a model could not be exported losslessly.

**Speed.**  :meth:`Experts.loop` takes the experts one after the other, which is easy to read and, on a CPU, as fast as
anything.  :meth:`Experts.grouped` sorts the tokens by expert and multiplies all of them in one grouped GEMM, for a GPU
in bf16.

Shapes in comments: N tokens, D model width, E experts, k visited by a token, F width of one expert.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

if TYPE_CHECKING:
    from lm.model import Config


@dataclass(frozen=True, slots=True)
class Routing:
    """Where the tokens of one forward pass went in one layer."""

    experts: Tensor  # (B, T, k) chosen experts, best first
    weights: Tensor  # (B, T, k) share of each in the output, adding up to 1
    probabilities: Tensor  # (B, T, E) the router's whole distribution

    def load(self) -> Tensor:
        """Share of the choices that fell on each expert, ``(E,)``; 1/E everywhere when routing is even."""
        n_experts = self.probabilities.shape[-1]
        return F.one_hot(self.experts.flatten(), n_experts).float().mean(0)

    def balance_loss(self) -> Tensor:
        """Switch's auxiliary loss, a scalar: 1 when routing is even."""
        n_experts = self.probabilities.shape[-1]
        return n_experts * (self.load() * self.probabilities.flatten(0, -2).mean(0)).sum()


class Experts(nn.Module):
    """Stands where a dense layer has its feed-forward network; each expert is a small SwiGLU."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.n_experts, self.n_active = config.n_experts, config.n_active
        self.router = nn.Parameter(torch.empty(config.n_experts, config.d_model))
        self.gate_up = nn.Parameter(torch.empty(config.n_experts, 2 * config.d_expert, config.d_model))
        self.down = nn.Parameter(torch.empty(config.n_experts, config.d_model, config.d_expert))

    def forward(self, x: Tensor, routing: list[Routing] | None = None) -> Tensor:
        """``(B, T, D)`` → ``(B, T, D)``; where the tokens went is appended to ``routing``."""
        # The choice of experts is made in float32 even under autocast: a rounding error would send a token elsewhere.
        with torch.autocast(x.device.type, enabled=False):
            probabilities = F.linear(x.float(), self.router.float()).softmax(-1)  # (B, T, E)
        weights, experts = probabilities.topk(self.n_active, dim=-1)  # (B, T, k)
        weights = weights / weights.sum(-1, keepdim=True)
        if routing is not None:
            routing.append(Routing(experts, weights, probabilities))
        flat = (x.flatten(0, -2), experts.flatten(0, -2), weights.flatten(0, -2))  # (N, D), (N, k), (N, k)
        run = self.grouped if self.wants_grouped(x) else self.loop
        return run(*flat).view_as(x)

    def wants_grouped(self, x: Tensor) -> bool:
        """On a GPU in bf16, where the grouped kernel exists (torch 2.10)."""
        return x.device.type == "cuda" and compute_dtype(x) == torch.bfloat16 and hasattr(F, "grouped_mm")

    def loop(self, x: Tensor, experts: Tensor, weights: Tensor) -> Tensor:
        """The reference: one expert after the other, each on the tokens that chose it.

        ``(N, D)`` tokens, the experts that each visits and their shares ``(N, k)`` → ``(N, D)``.
        """
        y = torch.zeros_like(x)
        for e in experts.unique().tolist():
            token, rank = torch.where(experts == e)
            gate, up = F.linear(x[token], self.gate_up[e]).chunk(2, dim=-1)  # (n, F) each
            out = F.linear(F.silu(gate) * up, self.down[e])  # (n, D)
            y.index_add_(0, token, (out * weights[token, rank, None]).to(y.dtype))
        return y

    def grouped(self, x: Tensor, experts: Tensor, weights: Tensor) -> Tensor:
        """The same in two grouped matrix products over the tokens sorted by expert."""
        dtype = compute_dtype(x)
        choice = experts.flatten()  # (N·k,)
        order = choice.argsort(stable=True)
        ends = F.one_hot(choice, self.n_experts).sum(0).cumsum(0).to(torch.int32)  # (E,) where each expert's rows end
        rows = x.to(dtype)[order // self.n_active]  # (N·k, D)
        # grouped_mm is not on autocast's list: weights are brought to bf16 here.
        gate, up = F.grouped_mm(rows, self.gate_up.to(dtype).mT, offs=ends).chunk(2, dim=-1)  # (N·k, F) each
        out = F.grouped_mm(F.silu(gate) * up, self.down.to(dtype).mT, offs=ends)  # (N·k, D)
        # Back in the tokens' order by a gather, not by atomic adds: the sum is the same in every run.
        out = out[order.argsort()].view(*experts.shape, -1)  # (N, k, D)
        return (out * weights[..., None]).sum(1).to(x.dtype)


def compute_dtype(x: Tensor) -> torch.dtype:
    """What a matrix product with ``x`` runs in here, autocast considered."""
    kind = x.device.type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else x.dtype
