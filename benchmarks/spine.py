"""Speed and size of the main path, printed as one table: starting, cleaning, embedding, a long ingest.

    python -m benchmarks.spine [--pages 8000] [--out FILE.json]

Everything is measured here and now: on a machine that does something else at the same time, the table says so by being
slower.  ``--pages 0`` leaves out the long ingest (several minutes).
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

from benchmarks.load import server

ROOT = Path(__file__).resolve().parent.parent

PAGE = """<div class="mw-parser-output"><aside class="portable-infobox"><h2 class="pi-title">{title}</h2>
<div class="pi-item" data-source="race"><h3 class="pi-data-label">Race</h3><div class="pi-data-value">{race}</div></div>
<div class="pi-item" data-source="home"><h3 class="pi-data-label">Home</h3><div class="pi-data-value">{home}</div></div>
</aside>{body}<div class="navbox"><table><tr><td>{links}</td></tr></table></div></div>"""


def synthetic_page(number: int) -> tuple[str, str]:
    """Title and HTML of an invented wiki page of about 600 words in Fandom's structure (14 kB with its markup)."""
    rng = random.Random(number)
    names = ["Orsolya", "Tobiah", "Maruk", "Ilvane", "Pebble", "Sarn", "Wenna", "Dorrick"]
    places = ["Marn", "Brennport", "the Hollow Hills", "Ostrava Ford", "Lower Quay", "the Salt Road"]
    deeds = [
        "rode to",
        "was besieged in",
        "sold a mill in",
        "fled from",
        "wrote a ballad about",
        "buried a friend near",
    ]

    def sentence() -> str:
        who, where, year = rng.choice(names), rng.choice(places), rng.randint(900, 1300)
        return (
            f'<a href="/wiki/{who}" title="{who}" class="mw-redirect">{who}</a> {rng.choice(deeds)} {where} in the '
            f"year {year}, {rng.choice(['alone', 'in the rain', 'with a cart of apples', 'against all advice'])}"
            f'<sup class="reference"><a href="#cite_note-{year}">[{year % 50}]</a></sup>.'
        )

    title = f"{rng.choice(names)} of {rng.choice(places)} ({number})"
    body = ""
    for heading in ("", "Biography", "Appearance", "In the video games", "Trivia"):
        if heading:
            body += f'<h2><span class="mw-headline">{heading}</span><span class="mw-editsection">[edit]</span></h2>'
        body += "".join(f"<p>{' '.join(sentence() for _ in range(4))}</p>" for _ in range(2))
    links = " · ".join(f'<a href="/wiki/{n}_{i}" title="{n} {i}">{n} {i}</a>' for n in names for i in range(12))
    return title, PAGE.format(title=title, race="human", home=rng.choice(places), body=body, links=links)


def clean_and_chunk(pages: int = 200) -> dict[str, float]:
    """Pages a second from raw HTML to passages, on one core, the network and the database aside."""
    from corpus import chunk, clean
    from corpus.types import Page

    made = [Page("bench", n, *_title_first(n)) for n in range(pages)]
    began = time.perf_counter()
    passages = sum(len(chunk.passages(clean.parse_page(page))) for page in made)
    seconds = time.perf_counter() - began
    size = sum(len(page.html) for page in made) / pages / 1000
    return {"pages_per_second": pages / seconds, "kilobytes_a_page": size, "passages_a_page": passages / pages}


def _title_first(number: int) -> tuple[str, int, str, str]:
    title, html = synthetic_page(number)
    return title, 1, f"http://127.0.0.1/?oldid={number}", html


def embedding(weights: Path) -> dict[str, float]:
    """Passages of the codex a second through the encoder, all cores."""
    from corpus import chunk, codex
    from encoder import Encoder

    encoder = Encoder.load(weights)
    passages = [
        (p.heading, p.text)
        for page in codex.load(ROOT / "corpus/codex")
        for p in chunk.passages(codex.parse_page(page))
    ][:1500]
    # The codex has many short sections; a wiki's long ones give passages of full length.
    running = " ".join(text for _, text in passages).split()
    full = [("Heading › Section", " ".join(running[i : i + 180])) for i in range(0, len(running) - 180, 180)][:500]
    encoder.encode_passages(passages[:100])

    def rate(texts: list[tuple[str, str]]) -> float:
        began = time.perf_counter()
        encoder.encode_passages(texts)
        return len(texts) / (time.perf_counter() - began)

    words = sum(len(text.split()) for _, text in passages) / len(passages)
    return {
        "passages_per_second": rate(passages),
        "words_a_passage": words,
        "passages_of_180_words_per_second": rate(full),
    }


def ingest_many(pages: int) -> dict[str, float]:
    """Pace and peak memory of parsing, storing, embedding and indexing ``pages`` pages, in a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        code = (
            "import sys, json, resource, time\n"
            "from pathlib import Path\n"
            "from benchmarks.spine import synthetic_page\n"
            "from corpus import chunk, clean\n"
            "from corpus.store import Store\n"
            "from corpus.types import Page\n"
            "from encoder import Encoder\n"
            "from retrieval import index\n"
            "folder, pages = Path(sys.argv[1]), int(sys.argv[2])\n"
            "encoder = Encoder.load('weights/encoder')\n"
            "with Store(folder / 'archive.sqlite') as store:\n"
            "    began = time.perf_counter()\n"
            "    for n in range(pages):\n"
            "        title, html = synthetic_page(n)\n"
            "        page = Page('bench', n, title, 1, 'http://127.0.0.1/', html)\n"
            "        article = clean.parse_page(page)\n"
            "        store.replace_page(page, article, chunk.passages(article))\n"
            "    stored = time.perf_counter() - began\n"
            "    report = index.build(store, encoder, folder / 'index')\n"
            "peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024\n"
            "print(json.dumps({'pages': pages, 'passages': report.total, 'stored_pages_per_second': pages / stored,\n"
            "    'indexed_passages_per_second': report.total / report.seconds, 'peak_memory_mb': peak}))\n"
        )
        done = subprocess.run(
            [sys.executable, "-c", code, folder, str(pages)], check=True, cwd=ROOT, capture_output=True, text=True
        )
        return json.loads(done.stdout.strip().splitlines()[-1])


def start_up(data: Path) -> dict[str, float]:
    """Seconds from ``python app.py`` to a page that answers, index and weights in place; median of three."""

    def once() -> float:
        with server(data) as (_, _, seconds):
            return seconds

    return {"seconds": median(once() for _ in range(3))}


def index_of_the_codex(data: Path) -> dict[str, float]:
    """Seconds from an empty folder to an index of the codex, weights in place."""
    began = time.perf_counter()
    build = [sys.executable, "app.py", "--ingest", "--codex-only", "--data", str(data)]
    subprocess.run(build, check=True, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return {"seconds": time.perf_counter() - began}


def measure(pages: int) -> dict[str, dict]:
    """All figures by step; the long ingest only where ``pages`` is not 0."""
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder)
        steps: dict[str, Callable[[], dict]] = {
            "index_of_the_codex": lambda: index_of_the_codex(data),
            "start_up": lambda: start_up(data),
            "clean_and_chunk": clean_and_chunk,
            "embedding": lambda: embedding(ROOT / "weights/encoder"),
        }
        if pages:
            steps["ingest"] = lambda: ingest_many(pages)
        return {name: step() for name, step in steps.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pages", type=int, default=8_000, help="pages of the long ingest; 0 leaves it out")
    parser.add_argument("--out", type=Path, default=None, help="write the figures as JSON too")
    args = parser.parse_args()
    figures = measure(args.pages)
    for name, values in figures.items():
        print(f"\n{name}")
        for key, value in values.items():
            print(f"  {key:32} {value:,.3f}" if isinstance(value, float) else f"  {key:32} {value}")
    if args.out:
        args.out.write_text(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    main()
