"""What pretraining and tuning share: optimisers, schedules, processes, checkpoints, logs, and what a token costs."""

from __future__ import annotations

import argparse
import json
import math
import os
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from lm.errors import LMError
from lm.model import Cirilla

PEAK_FLOPS = {
    "H100 PCIe": 756e12,
    "H100 NVL": 835e12,
    "H100": 989e12,
    "H200": 989e12,
    "A100": 312e12,
    "L4": 121e12,
    "4090": 165e12,
}
"""Dense bf16 operations a second by device name (makers' datasheets), for MFU."""

LEARNING_RATE = {"muon": 2e-3, "adamw": 1e-3}
"""Where none is given.  Muon's steps have the size of AdamW's, so that the two are close."""


# -- optimisers --------------------------------------------------------------------------------------------------


def orthogonalised(matrices: Tensor, steps: int = 5) -> Tensor:
    """``(n, A, B)`` → the same with all singular values near 1, by a quintic Newton–Schulz iteration in bf16.

    The coefficients are Jordan et al.'s (2024): steepest at zero, so that small singular values rise quickly, at the
    price of ending anywhere between 0.7 and 1.2, which does no harm.
    """
    a, b, c = 3.4445, -4.7750, 2.0315
    x = matrices.bfloat16()
    tall = x.shape[-2] > x.shape[-1]
    if tall:
        x = x.mT  # the products below are then of the smaller side
    x = x / x.norm(dim=(-2, -1), keepdim=True).clamp(min=1e-7)  # largest singular value at most 1
    for _ in range(steps):
        gram = x @ x.mT  # (n, A, A)
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.mT if tall else x


class Muon(torch.optim.Optimizer):
    """Momentum whose step is orthogonalised (Jordan et al. 2024), with decoupled weight decay.

    The step is rescaled to the size of an AdamW step (Liu et al. 2025, "Muon is Scalable"), so that one learning rate
    serves both.  The same arithmetic as ``torch.optim.Muon(adjust_lr_fn="match_rms_adamw")``, with two differences:
    a stack of experts ``(E, A, B)`` counts as E matrices, and all matrices of one shape go through the iteration
    together, which on a GPU is a few large products instead of hundreds of small ones.

    Raises:
        ValueError: a parameter is neither a matrix nor a stack of them.
    """

    def __init__(self, params: list[nn.Parameter], lr: float, weight_decay: float = 0.1, momentum: float = 0.95):
        if wrong := [tuple(p.shape) for p in params if p.ndim not in (2, 3)]:
            raise ValueError(f"Muon is for matrices and stacks of them, not for {wrong[0]}")
        super().__init__(params, {"lr": lr, "weight_decay": weight_decay, "momentum": momentum})

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        """One step from the gradients that are there; a ``closure`` is called for its loss first."""
        with torch.enable_grad():
            loss = None if closure is None else closure()
        for group in self.param_groups:
            alike: dict[torch.Size, list[Tensor]] = {}
            for p in group["params"]:
                if p.grad is not None:
                    alike.setdefault(p.shape[-2:], []).append(p)
            for (rows, columns), params in alike.items():
                self._step(params, group, 0.2 * math.sqrt(max(rows, columns)))
        return loss

    def _step(self, params: list[Tensor], group: dict[str, Any], scale: float) -> None:
        gradients = [p.grad for p in params if p.grad is not None]
        for p in params:
            if "momentum" not in self.state[p]:
                self.state[p]["momentum"] = torch.zeros_like(p)
        momenta = [self.state[p]["momentum"] for p in params]
        torch._foreach_lerp_(momenta, gradients, 1 - group["momentum"])
        ahead = torch._foreach_lerp(gradients, momenta, group["momentum"])  # Nesterov: where the momentum will be
        matrices = torch.cat([g.view(-1, *g.shape[-2:]) for g in ahead])  # (n, A, B)
        steps = orthogonalised(matrices).to(params[0].dtype).split([p.numel() // matrices[0].numel() for p in params])
        torch._foreach_mul_(params, 1 - group["lr"] * group["weight_decay"])
        shaped = [step.view_as(p) for step, p in zip(steps, params, strict=True)]
        torch._foreach_add_(params, shaped, alpha=-group["lr"] * scale)


def is_hidden_matrix(name: str, parameter: Tensor) -> bool:
    """Whether a parameter maps hidden vectors to hidden vectors, which is what Muon is for.

    The embedding and the output matrix are looked up and read out row by row, and a router is a small classifier:
    their singular values mean little, and AdamW serves them better (Jordan et al. 2024).
    """
    return parameter.ndim >= 2 and not any(part in name for part in ("embed_tokens", "lm_head", "router"))


def optimizers(model: Cirilla, lr: float, weight_decay: float = 0.1, kind: str = "muon") -> list[torch.optim.Optimizer]:
    """Optimisers that together hold every parameter exactly once.

    Args:
        kind: "muon": Muon for hidden matrices, AdamW (Loshchilov & Hutter 2019) for the rest.  "adamw": AdamW for all
            of it, decay on matrices alone, as GPT-2 and GPT-3 were trained: the baseline.

    Raises:
        ValueError: there is no such ``kind``.
    """
    named = list(model.named_parameters())
    fused = {"fused": True} if named[0][1].is_cuda else {}
    groups: list[torch.optim.Optimizer]
    if kind == "muon":
        hidden = [p for n, p in named if is_hidden_matrix(n, p)]
        others = [p for n, p in named if not is_hidden_matrix(n, p)]
        groups = [
            Muon(hidden, lr, weight_decay),
            torch.optim.AdamW(others, lr=lr, betas=(0.9, 0.95), weight_decay=0.0, **fused),
        ]
    elif kind == "adamw":
        decays = [{"params": [p for _, p in named if p.ndim >= 2], "weight_decay": weight_decay}]
        plain = [{"params": [p for _, p in named if p.ndim < 2], "weight_decay": 0.0}]
        groups = [torch.optim.AdamW([*decays, *plain], lr=lr, betas=(0.9, 0.95), **fused)]
    else:
        raise ValueError(f"there is no optimiser {kind!r}, only {', '.join(LEARNING_RATE)}")
    held = [id(p) for optimizer in groups for group in optimizer.param_groups for p in group["params"]]
    assert sorted(held) == sorted(id(p) for p in model.parameters()), "a parameter has no optimiser, or two"
    return groups


def schedule(step: int, steps: int, warmup: int, decay: float, shape: str = "wsd") -> float:
    """Factor on the learning rate.

    "wsd": warm-up, plateau, linear fall to zero over the last ``decay`` share of ``steps`` (warmup-stable-decay, Hu et
    al. 2024): a plateau can be prolonged, and a decay branched off it, at any time.  "cosine": warm-up, then half a
    cosine down to a tenth (Brown et al. 2020), for the baseline; ``decay`` means nothing there.
    """
    rise = min(1.0, (step + 1) / max(1, warmup))
    if shape == "cosine":
        done = min(1.0, max(0.0, (step - warmup) / max(1, steps - warmup)))
        return min(rise, 0.1 + 0.45 * (1 + math.cos(math.pi * done)))
    fall = min(1.0, (steps - step) / max(1.0, decay * steps))
    return min(rise, fall)


def set_lr(groups: list[torch.optim.Optimizer], lr: float) -> None:
    """The same learning rate for all parameters of all optimisers."""
    for optimizer in groups:
        for group in optimizer.param_groups:
            group["lr"] = lr


def update(model: nn.Module, groups: list[torch.optim.Optimizer], clip: float = 1.0) -> Tensor:
    """One step of every optimiser on clipped gradients; the gradient's norm before clipping comes back."""
    norm = nn.utils.clip_grad_norm_(model.parameters(), clip)
    for optimizer in groups:
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    return norm.detach()


# -- processes ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class World:
    """The processes that train one model together, each on its own part of every batch; usually there is one.

    All keep equal weights: they start from the same, and every step they apply the same mean gradient.
    """

    rank: int = 0
    size: int = 1
    device: str = "cpu"

    @property
    def is_main(self) -> bool:
        """Whether this process evaluates, logs and saves."""
        return self.rank == 0

    def sum(self, value: Tensor) -> Tensor:
        """Sum over all processes, on the CPU: a GPU is waited for only where ``value`` comes from one."""
        value = value.detach().cpu()
        if self.size > 1:
            value = value.clone()
            dist.all_reduce(value)
        return value

    def mean(self, value: Tensor) -> Tensor:
        """Mean over all processes, on the device of ``value``."""
        return (self.sum(value) / self.size).to(value.device)

    def agree(self, flag: bool) -> bool:
        """Whether any process says so: clocks differ, and all must stop at the same step."""
        return flag if self.size == 1 else bool(self.sum(torch.tensor(float(flag))) > 0)

    def average_gradients(self, model: nn.Module) -> None:
        """Replace every gradient by its mean over the processes, in one message."""
        if self.size == 1:
            return
        parameters = [p for p in model.parameters() if p.requires_grad]
        # What took no part here in this step has no gradient, and may have one elsewhere.
        flat = torch.cat([(p.grad if p.grad is not None else torch.zeros_like(p)).flatten() for p in parameters])
        dist.all_reduce(flat)
        flat /= self.size
        for p, piece in zip(parameters, flat.split([p.numel() for p in parameters]), strict=True):
            p.grad = piece.view_as(p)


@contextmanager
def join_world() -> Iterator[World]:
    """The processes that ``torchrun`` started, or this one alone; GPUs where there are any."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        yield World(device=device)
        return
    if device == "cuda":
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    dist.init_process_group("cpu:gloo,cuda:nccl" if device == "cuda" else "gloo")
    try:
        yield World(dist.get_rank(), size, device)
    finally:
        dist.destroy_process_group()


def launch(train: Callable[[argparse.Namespace, World], None], flags: argparse.ArgumentParser) -> int:
    """What a program that trains does: read its flags, join the others, train.  Returns the exit status."""
    args = flags.parse_args()
    try:
        with join_world() as world:
            train(args, world)
    except LMError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


# -- checkpoints and logs ----------------------------------------------------------------------------------------


def save_checkpoint(
    path: Path, model: nn.Module, groups: list[torch.optim.Optimizer], stage: str, sizes: list[int], **state: Any
) -> None:
    """Everything that an exact resumption needs; the old checkpoint stays until the new one is whole on disk.

    Args:
        stage: which program trains.
        sizes: how many rows or documents its data has: ``state`` may count on them.
    """
    state |= {"model": model.state_dict(), "optimizers": [g.state_dict() for g in groups]}
    part = path.with_suffix(".part")
    with part.open("wb") as f:
        torch.save({"stage": stage, "sizes": sizes, **state}, f)
        f.flush()
        os.fsync(f.fileno())
    part.replace(path)


def load_checkpoint(
    path: Path, model: nn.Module, groups: list[torch.optim.Optimizer], device: str, stage: str, sizes: list[int]
) -> dict[str, Any]:
    """Restore model and optimisers in place; returns the rest of what was saved.

    Raises:
        LMError: the checkpoint is damaged, or belongs to another stage, data of another size, another model or other
            optimisers.
    """
    remedy = "give another --out, or delete it."
    try:
        # Our own file: it holds generator states, which the weights-only loader refuses.
        state = torch.load(path, map_location=device, weights_only=False)
    except (torch.OutOfMemoryError, PermissionError):
        raise  # nothing is wrong with the file
    except Exception as error:  # what a damaged pickle raises depends on the damage
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise LMError(f"{path} cannot be read ({reason}): {remedy}") from error
    if not isinstance(state, dict) or state.get("stage") != stage:
        raise LMError(f"{path} is no checkpoint of lm.{stage}: {remedy}")
    if state["sizes"] != sizes:
        raise LMError(f"{path} is of other data, of {state['sizes']} rows or documents and not {sizes}: {remedy}")
    try:
        model.load_state_dict(state.pop("model"))
        for optimizer, saved in zip(groups, state.pop("optimizers"), strict=True):
            optimizer.load_state_dict(saved)
    except (RuntimeError, ValueError) as error:
        raise LMError(f"{path} is of another model or optimiser: {remedy}") from error
    return state


class Log:
    """One JSON line a window in ``log.jsonl``; other processes than the first write nothing."""

    def __init__(self, folder: Path, step: int, write: bool = True) -> None:
        """``step``: where the run goes on.  Lines after it were written by a run that died before it could save."""
        self.path, self.write = folder / "log.jsonl", write
        if write and self.path.exists():
            # A line without its end was being written when the run was killed.
            whole = [line for line in self.path.read_text().splitlines(keepends=True) if line.endswith("\n")]
            self.path.write_text("".join(line for line in whole if json.loads(line)["step"] <= step))

    def add(self, row: dict[str, Any]) -> None:
        if self.write:
            print(json.dumps(row), flush=True)
            with self.path.open("a") as f:
                f.write(json.dumps(row) + "\n")


# -- speed -------------------------------------------------------------------------------------------------------


def peak_flops(device: str) -> float:
    """bf16 peak of one device in FLOP/s, NaN where unknown."""
    if device != "cuda":
        return math.nan
    name = torch.cuda.get_device_name()
    return next((peak for key, peak in PEAK_FLOPS.items() if re.search(rf"\b{key}\b", name)), math.nan)


def flops_per_token(model: Cirilla, context: float) -> float:
    """Floating-point operations that training on one token costs: 6 a matrix weight that it meets, plus attention.

    Counting of Kaplan et al. 2020 and of PaLM's appendix B (Chowdhery et al. 2022), but only for what the token sees:
    the past, not the future, within its document and a layer's window.

    Args:
        context: tokens that a token sees on the mean, itself included: half a row, or less with masked documents.
    """
    c = model.config
    return 6 * model.matmul_parameters() + sum(12 * c.n_heads * c.head_dim * min(context, w) for w in c.windows)
