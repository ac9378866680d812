"""The whole command against a real MediaWiki: ``app.py --ingest`` killed at random moments, resumed, and compared."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from corpus.store import Store
from encoder import Encoder, files
from encoder.model import PRESETS, EncoderModel
from retrieval.index import VectorIndex
from tests.corpus.stub_wiki import contents
from tests.mediawiki_server import MediaWikiServer, mediawiki  # noqa: F401  (a fixture)

pytestmark = pytest.mark.mediawiki
ROOT = Path(__file__).resolve().parents[2]
PAGES = 24


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untrained encoder: what is compared is whether two ingests agree, not whether search is good."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("encoder")
    files.save(EncoderModel(PRESETS["encoder-tiny"]), ROOT / "weights" / "tokenizer.json", folder)
    return folder


@pytest.fixture(scope="module")
def environment(weights: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    codex = tmp_path_factory.mktemp("codex")
    for name in ("ciri", "calanthe"):
        (codex / "character").mkdir(exist_ok=True)
        text = (ROOT / "corpus" / "codex" / "character" / f"{name}.md").read_text(encoding="utf-8")
        (codex / "character" / f"{name}.md").write_text(text, encoding="utf-8")
    return os.environ | {
        "CIRILLA_ENCODER_WEIGHTS": str(weights),
        "CIRILLA_GENERATOR": "evidence",
        "CIRILLA_CODEX": str(codex),
        "CIRILLA_CONTACT": "tests@example.org",
    }


def start(environment: dict[str, str], data: Path, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "app.py", "--data", str(data), *arguments],
        cwd=ROOT, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


def run(environment: dict[str, str], data: Path, *arguments: str) -> str:
    process = start(environment, data, *arguments)
    out, err = process.communicate(timeout=240)
    assert process.returncode == 0, err
    return out


def everything(data: Path, weights: Path) -> tuple[dict, list[int], np.ndarray]:
    """All tables, and the index's ids with their vectors in the order of ids."""
    encoder = Encoder.load(weights)
    with Store(data / "archive.sqlite") as store:
        tables = contents(store)
        vectors = dict[int, np.ndarray]()
        for ids, rows in store.iter_vectors(encoder.model_hash):
            vectors.update(zip(map(int, ids), rows, strict=True))
    held = sorted(map(int, VectorIndex.open(data / "index", encoder).ids()))
    assert held == sorted(vectors), "the index holds just the passages of the archive"
    return tables, held, np.stack([vectors[id] for id in held])


def same(one: Path, two: Path, weights: Path) -> None:
    (tables, ids, vectors), (tables_2, ids_2, vectors_2) = everything(one, weights), everything(two, weights)
    assert ids == ids_2 and tables == tables_2
    # Float16 vectors of the same text may differ in the last bit with the company they had in their batch.
    assert np.abs(vectors.astype(np.float32) - vectors_2.astype(np.float32)).max() < 4e-3


def test_a_killed_ingest_resumes_to_the_same_index(
    mediawiki: MediaWikiServer,  # noqa: F811
    environment: dict[str, str],
    weights: Path,
    tmp_path: Path,
) -> None:
    rng = random.Random(7)
    mediawiki.edit_many(
        {
            f"Keeper {n}": f"Keeper {n} guards a lamp at [[Heron Reach]].\n\n== Watch ==\n"
            + " ".join(f"In {rng.randint(900, 999)} it was dark for {rng.randint(2, 9)} nights." for _ in range(30))
            for n in range(PAGES)
        }
    )  # fmt: skip
    said = run(environment, tmp_path / "whole", "--ingest", "--wiki", mediawiki.url)
    assert f"{PAGES + 1} fetched" in said, "all pages and MediaWiki's own main page"

    kills = 0
    for _ in range(12):
        process = start(environment, tmp_path / "killed", "--ingest", "--wiki", mediawiki.url)
        # Anything from the first imports to the swap of the index; an ingest takes a few seconds.
        time.sleep(rng.uniform(1.0, 6.0))
        kills += process.poll() is None
        process.send_signal(signal.SIGKILL)
        process.communicate()
    assert kills >= 4, "the ingest was over before it could be killed"
    run(environment, tmp_path / "killed", "--ingest", "--wiki", mediawiki.url)
    same(tmp_path / "whole", tmp_path / "killed", weights)

    # Edit one, delete one, redirect one: both archives follow, and only the changed page is embedded again.
    mediawiki.edit("Keeper 3", "Keeper 3 sold the lamp to a pedlar from Brennport.")
    mediawiki.delete("Keeper 4")
    mediawiki.redirect("The fifth keeper", "Keeper 5")
    said = run(environment, tmp_path / "killed", "--ingest", "--wiki", mediawiki.url)
    assert "1 added" in said and "1 embedded" in said
    run(environment, tmp_path / "fresh", "--ingest", "--wiki", mediawiki.url)
    same(tmp_path / "fresh", tmp_path / "killed", weights)

    answer = run(environment, tmp_path / "killed", "--ask", "To whom did Keeper 3 sell the lamp?", "--json")
    assert "pedlar" in answer and "oldid=" in answer
    assert "Keeper 5" in run(environment, tmp_path / "killed", "--search", "the fifth keeper")


def test_two_ingests_at_once_and_an_unreachable_wiki_lose_nothing(
    mediawiki: MediaWikiServer,  # noqa: F811
    environment: dict[str, str],
    weights: Path,
    tmp_path: Path,
) -> None:
    run(environment, tmp_path / "data", "--ingest", "--wiki", mediawiki.url)
    before = everything(tmp_path / "data", weights)
    one, two = (start(environment, tmp_path / "data", "--ingest", "--wiki", mediawiki.url) for _ in range(2))
    ends = [(process, *process.communicate(timeout=240)) for process in (one, two)]
    codes = sorted(process.returncode for process, _, _ in ends)
    assert codes[0] == 0
    for process, _, err in ends:
        if process.returncode:  # they may have run one after the other on a slow machine
            assert len([line for line in err.splitlines() if line.strip()]) == 1 and "ingest" in err.lower()
    after = everything(tmp_path / "data", weights)
    assert before[0] == after[0] and before[1] == after[1]

    process = start(environment, tmp_path / "data", "--ingest", "--wiki", "http://127.0.0.1:9")
    _, err = process.communicate(timeout=240)
    assert process.returncode != 0 and "Traceback" not in err and "Cannot reach" in err
    assert everything(tmp_path / "data", weights)[1] == before[1]
