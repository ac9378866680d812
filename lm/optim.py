"""What pretraining and tuning share: optimisers, schedule, checkpoints, and how fast the hardware is."""

from __future__ import annotations

import math
import os
from pathlib import Path

import torch
from torch import nn

from lm.model import Cirilla

PEAK_FLOPS = {"H100": 989e12, "H200": 989e12, "A100": 312e12, "L4": 121e12, "4090": 165e12}
"""Dense bf16 operations a second by device name (makers' datasheets), for MFU."""


def device_and_peak() -> tuple[str, float]:
    """ "cuda" or "cpu", and the device's bf16 peak in FLOP/s (NaN where unknown)."""
    if not torch.cuda.is_available():
        return "cpu", math.nan
    name = torch.cuda.get_device_name()
    return "cuda", next((peak for key, peak in PEAK_FLOPS.items() if key in name), math.nan)


def optimizers(model: Cirilla, lr: float, weight_decay: float = 0.1) -> list[torch.optim.Optimizer]:
    """Muon (Jordan et al. 2024) for the hidden matrices, AdamW for the embedding and the norms.

    Muon's step is rescaled to the size of an AdamW step (Liu et al. 2025), so that one learning rate serves both.
    """
    hidden = [p for n, p in model.named_parameters() if p.ndim == 2 and "embed" not in n]
    others = [p for n, p in model.named_parameters() if p.ndim != 2 or "embed" in n]
    assert len(hidden) + len(others) == len(list(model.parameters())), "a parameter has no optimiser"
    return [
        torch.optim.Muon(hidden, lr=lr, weight_decay=weight_decay, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(others, lr=lr, betas=(0.9, 0.95), weight_decay=0.0),
    ]


def schedule(step: int, steps: int, warmup: int, decay: float) -> float:
    """Factor on the learning rate: warm-up, plateau, linear fall to zero over the last ``decay`` share of ``steps``.

    Warmup-stable-decay (Hu et al. 2024): a plateau can be prolonged, and a decay branched off it, at any time.
    """
    rise = min(1.0, (step + 1) / max(1, warmup))
    fall = min(1.0, (steps - step) / max(1.0, decay * steps))
    return min(rise, fall)


def set_lr(groups: list[torch.optim.Optimizer], lr: float) -> None:
    for optimizer in groups:
        for group in optimizer.param_groups:
            group["lr"] = lr


def update(model: nn.Module, groups: list[torch.optim.Optimizer], clip: float = 1.0) -> None:
    """One step of every optimiser on clipped gradients."""
    nn.utils.clip_grad_norm_(model.parameters(), clip)
    for optimizer in groups:
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)


def save_checkpoint(path: Path, model: nn.Module, groups: list[torch.optim.Optimizer], **state) -> None:
    """Everything that an exact resumption needs; the old checkpoint stays until the new one is whole on disk."""
    part = path.with_suffix(".part")
    with part.open("wb") as f:
        torch.save({"model": model.state_dict(), "optimizers": [g.state_dict() for g in groups], **state}, f)
        f.flush()
        os.fsync(f.fileno())
    part.replace(path)


def load_checkpoint(path: Path, model: nn.Module, groups: list[torch.optim.Optimizer], device: str) -> dict:
    """Restore model and optimisers in place; returns the rest of what was saved."""
    # Our own file: it holds generator states, which the weights-only loader refuses.
    state = torch.load(path, map_location=device, weights_only=False)
    model.load_state_dict(state.pop("model"))
    for optimizer, saved in zip(groups, state.pop("optimizers"), strict=True):
        optimizer.load_state_dict(saved)
    return state


def flops_per_token(model: Cirilla, length: int) -> float:
    """Floating-point operations a training token costs: 6 a matrix parameter, plus causal attention.

    Counting of Kaplan et al. 2020 / PaLM appendix B; the embedding counts once, as the output matrix.
    """
    matrices = sum(p.numel() for p in model.parameters() if p.ndim == 2)
    c = model.config
    return 6 * matrices + 6 * c.n_layers * c.n_heads * c.head_dim * length
