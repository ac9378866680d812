"""What the programs that train share: rows, optimisers, checkpoints, log, a GPU's speed, and one line for a mistake."""

from __future__ import annotations

import argparse
import json
import pickle
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from encoder.errors import EncoderError

PEAK_FLOPS = {"H100 PCIe": 756e12, "H100 NVL": 835e12, "H100": 989e12, "H200": 989e12, "A100": 312e12}
"""Dense bf16 operations a second by device name (maker's datasheets), for MFU; the first that fits counts."""


def launch(train: Callable[[argparse.Namespace], None], flags: argparse.ArgumentParser) -> int:
    """Read the flags and train; an :class:`EncoderError` becomes one line.  Returns the exit status."""
    args = flags.parse_args()
    try:
        train(args)
    except EncoderError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def json_lines(paths: Sequence[Path]) -> Iterator[dict[str, Any]]:
    """The rows of files of JSON lines, one after another.

    Raises:
        EncoderError: a file cannot be read, a line is not JSON, or there is no row in any of them.
    """
    row = None
    for path in paths:
        try:
            with path.open(encoding="utf-8") as f:
                for line in f:
                    row = json.loads(line)
                    yield row
        except (OSError, ValueError) as error:
            raise EncoderError(f"{path} cannot be read ({error}).") from error
    if row is None:
        raise EncoderError(f"{', '.join(map(str, paths))} holds no rows.")


def make_optimizers(
    model: nn.Module, lr: float, weight_decay: float, head: Sequence[nn.Parameter] = ()
) -> list[torch.optim.Optimizer]:
    """Muon (Jordan et al. 2024) for the hidden matrices, AdamW for embeddings, norms, biases and a blank ``head``.

    Muon's step is rescaled to the size of an AdamW step (Liu et al. 2025), so that one learning rate serves both; a
    head that starts from nothing on trained layers takes three times that rate.
    """
    new = {id(p) for p in head}
    named = [(n, p) for n, p in model.named_parameters() if id(p) not in new]
    hidden = [p for n, p in named if p.ndim == 2 and "embedding" not in n]
    others = [p for n, p in named if p.ndim != 2 or "embedding" in n]
    adam: list[dict[str, Any]] = [{"params": others}]
    if head:
        adam.append({"params": list(head), "scale": 3.0})
    return [
        torch.optim.Muon(hidden, lr=lr, weight_decay=weight_decay, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(adam, lr=lr, betas=(0.9, 0.98), weight_decay=0.0),
    ]


def update(model: nn.Module, optimizers: Sequence[torch.optim.Optimizer], lr: float) -> None:
    """One step of every optimiser at the learning rate ``lr``, on gradients clipped to norm 1."""
    nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = lr * group.get("scale", 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)


def save_checkpoint(path: Path, model: nn.Module, optimizers: Sequence[torch.optim.Optimizer], **state: Any) -> None:
    """Everything that going on exactly needs; the old checkpoint stays until the new one is whole."""
    state |= {"model": model.state_dict(), "optimizers": [o.state_dict() for o in optimizers]}
    torch.save(state, path.with_suffix(".part"))
    path.with_suffix(".part").replace(path)


def load_checkpoint(path: Path, model: nn.Module, optimizers: Sequence[torch.optim.Optimizer]) -> dict[str, Any]:
    """Restore model and optimisers in place; returns the rest of what was saved, nothing where there is no checkpoint.

    Raises:
        EncoderError: the checkpoint is damaged, or of another model or other optimisers.
    """
    if not path.exists():
        return {}
    try:
        # Our own file: it holds generator states, which the weights-only loader refuses.
        state = torch.load(path, map_location="cpu", weights_only=False)
        model.load_state_dict(state.pop("model"))
        for optimizer, saved in zip(optimizers, state.pop("optimizers"), strict=True):
            optimizer.load_state_dict(saved)
    except (OSError, EOFError, RuntimeError, ValueError, KeyError, pickle.UnpicklingError) as error:
        line = (str(error) or type(error).__name__).splitlines()[0]
        raise EncoderError(f"{path} does not fit ({line}): give another --out, or delete it.") from error
    print(f"resumed at step {state['step']}")
    return state


def log(folder: Path, row: dict[str, Any]) -> None:
    """Print a row and append it to the folder's ``log.jsonl``."""
    print(json.dumps(row), flush=True)
    with (folder / "log.jsonl").open("a") as f:
        f.write(json.dumps(row) + "\n")


def peak_flops(device: str) -> float | None:
    """bf16 peak of the device in FLOP/s, ``None`` where unknown."""
    name = torch.cuda.get_device_name() if device == "cuda" else ""
    return next((peak for key, peak in PEAK_FLOPS.items() if key in name), None)
