"""Several processes train one model as one process would: run for real with gloo on the CPU."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from lm import data, files
from lm.tokenizer import Tokenizer
from tests.lm.test_training import TOKENIZER, documents, learnt, rows_of


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def start(processes: int, module: str, *args) -> list[subprocess.Popen]:
    """What torchrun starts, without torchrun's own seconds."""
    port = free_port()
    made = []
    for rank in range(processes):
        env = {**os.environ, "OMP_NUM_THREADS": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port),
               "WORLD_SIZE": str(processes), "RANK": str(rank), "LOCAL_RANK": str(rank)}  # fmt: skip
        command = [sys.executable, "-m", f"lm.{module}", *map(str, args)]
        made.append(subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True))
    return made


def finish(processes: list[subprocess.Popen]) -> None:
    for process in processes:
        said, _ = process.communicate(timeout=240)
        assert process.returncode == 0, said


@pytest.fixture(scope="module")
def tokens(tmp_path_factory) -> list:
    folder = tmp_path_factory.mktemp("tokens")
    data.write_shard(iter(documents(120)), TOKENIZER, folder / "one", holdout_every=20)
    (folder / "own-mix.json").write_text(json.dumps({"one": 1.0}))
    return ["--tokens", folder, "--mix", folder / "own-mix.json", "--preset", "cirilla-tiny", "--length", 48,
            "--window", 5, "--eval-rows", 2, "--save-every", 6]  # fmt: skip


def weights(folder: Path) -> dict[str, Any]:
    return torch.load(folder / "checkpoint.pt", weights_only=False)["model"]


def test_two_processes_learn_what_one_learns_from_double_batches(tokens, tmp_path):
    """The same losses, equal weights on both, and a run that was killed and resumed has the same curve too."""
    steps = ["--steps", 20]
    alone = start(1, "pretrain", *tokens, *steps, "--batch", 4, "--out", tmp_path / "one")
    finish(alone)
    finish(start(2, "pretrain", *tokens, *steps, "--batch", 2, "--out", tmp_path / "two"))
    one, two = learnt(tmp_path / "one"), learnt(tmp_path / "two")
    assert [row["step"] for row in two] == [5, 10, 15, 20]
    for a, b in zip(one, two, strict=True):
        assert b["tokens"] == a["tokens"]
        assert b["loss"] == pytest.approx(a["loss"], abs=0.02)  # bf16: sums in another order
        assert b["bits_per_byte"] == pytest.approx(a["bits_per_byte"], abs=0.02)

    pair = start(2, "pretrain", *tokens, *steps, "--batch", 2, "--out", tmp_path / "killed")
    deadline = time.monotonic() + 120
    while not (tmp_path / "killed" / "checkpoint.pt").exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    for process in pair:
        os.kill(process.pid, signal.SIGKILL)
    for process in pair:
        process.communicate()
    assert not (tmp_path / "killed" / "model").exists()
    finish(start(2, "pretrain", *tokens, *steps, "--batch", 2, "--out", tmp_path / "killed"))
    assert learnt(tmp_path / "killed") == two
    for (name, a), b in zip(weights(tmp_path / "two").items(), weights(tmp_path / "killed").values(), strict=True):
        assert torch.equal(a, b), name


WORKER = """
import os, sys, torch
from pathlib import Path
from lm import optim
from lm.model import PRESETS, Cirilla

with optim.join_world() as world:
    torch.manual_seed(0)
    model = Cirilla(PRESETS["cirilla-tiny"]).train()
    groups = optim.optimizers(model, 1e-2)
    generator = torch.Generator().manual_seed(1)
    for _ in range(3):
        ids = torch.randint(16, 500, (4, 33), generator=generator)
        mine = ids.chunk(world.size)[world.rank]
        model.loss(mine[:, :-1], mine[:, 1:]).backward()
        if world.rank == 1:
            model.norm.weight.grad = None  # as if nothing here had used it
        world.average_gradients(model)
        optim.update(model, groups)
    assert world.agree(world.rank == 1) == (world.size == 2) and not world.agree(False)
    assert world.sum(torch.tensor([1.0 + world.rank])).item() == (3.0 if world.size == 2 else 1.0)
    torch.save(model.state_dict(), Path(sys.argv[1]) / f"{world.size}-{world.rank}.pt")
"""


def test_every_process_has_the_same_weights_after_every_step(tmp_path):
    port = free_port()
    for size in (1, 2):
        pool = []
        for rank in range(size):
            env = {**os.environ, "OMP_NUM_THREADS": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port),
                   "WORLD_SIZE": str(size), "RANK": str(rank), "LOCAL_RANK": str(rank)}  # fmt: skip
            command = [sys.executable, "-c", WORKER, str(tmp_path)]
            pool.append(subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True))
        finish(pool)
    first, second, alone = (torch.load(tmp_path / f"{name}.pt") for name in ("2-0", "2-1", "1-0"))
    for name, value in first.items():
        assert torch.equal(value, second[name]), name
        if name != "norm.weight":  # whose gradient one of the two threw away
            assert torch.allclose(value, alone[name], atol=2e-2), name


def test_tuning_weighs_processes_by_their_answers(tmp_path):
    """Padded batches of answers of different lengths: the mean is over tokens, not over processes."""
    from lm.model import PRESETS, Cirilla

    torch.manual_seed(0)
    tokenizer = Tokenizer.load(Path("weights/tokenizer.json"))
    files.save(Cirilla(PRESETS["cirilla-tiny"]), tokenizer, tmp_path / "start", torch.float32)
    rows = rows_of(60)
    for i, row in enumerate(rows):
        row["answer"] = row["answer"][:-1] + " and nobody else ever did" * (i % 4) + "."
        row["turns"] = [["user", f"Who, {i}?"]]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    common = ["--data", tmp_path / "rows.jsonl", "--start", tmp_path / "start", "--steps", 10, "--window", 5,
              "--held-out", 8, "--eval-every", 5, "--length", 120, "--no-pack"]  # fmt: skip
    finish(start(1, "tune", *common, "--batch", 4, "--out", tmp_path / "one"))
    finish(start(2, "tune", *common, "--batch", 2, "--out", tmp_path / "two"))
    for a, b in zip(learnt(tmp_path / "one"), learnt(tmp_path / "two"), strict=True):
        assert b["answer_loss"] == pytest.approx(a["answer_loss"], abs=0.02)
        assert b["held_out_answer_loss"] == pytest.approx(a["held_out_answer_loss"], abs=0.02)
