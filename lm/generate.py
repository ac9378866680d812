"""Prompt in, tokens out: streaming with a key-value cache, speculation and reuse of what was read; or many at once."""

from __future__ import annotations

from collections.abc import Callable, Collection, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from lm.experts import Routing
from lm.model import Cirilla, KVCache
from lm.speculate import LONGEST_DRAFT, PromptLookup

CHUNK = 256  # tokens of a prompt in one pass: what comes between two layers then stays in a CPU's cache
RUNNERS_UP = 4


@dataclass(frozen=True, slots=True)
class Token:
    """One token that was written, and how the model came to it."""

    id: int
    probability: float  # under the model's own distribution, before temperature, truncation and penalty
    runners_up: tuple[tuple[int, float], ...] = ()  # the likeliest other tokens, best first; only when traced
    speculated: bool = False  # proposed from the prompt and verified, not decoded one by one
    experts: tuple[tuple[int, ...], ...] = ()  # by layer, those that worked on the choice; only when traced


def pick(logits: Tensor, temperature: float, top_k: int, top_p: float, generator: torch.Generator | None) -> int:
    """One token id from ``(V,)`` logits: the best at temperature 0, else sampled; see :func:`choose`."""
    uniform = torch.rand(1, generator=generator) if temperature > 0 else torch.zeros(1)
    return int(choose(logits[None], temperature, top_k, top_p, uniform)[0])


def choose(logits: Tensor, temperature: float, top_k: int, top_p: float, uniform: Tensor) -> Tensor:
    """Token ids ``(B,)`` from logits ``(B, V)``: the best at temperature 0, else sampled.

    Sampling keeps the ``top_k`` best (0: all) and the nucleus that holds ``top_p`` of the mass (Holtzman et al. 2020).

    Args:
        uniform: ``(B,)`` random numbers from [0, 1), one a row, so that a row's choice depends on its own seed alone.

    Raises:
        ValueError: ``top_k`` is negative, or ``top_p`` not in (0, 1].
    """
    if top_k < 0 or not 0 < top_p <= 1:
        raise ValueError(f"top_k is 0 or more and top_p above 0 and at most 1, not {top_k} and {top_p}")
    if temperature <= 0:
        return logits.argmax(-1)
    probabilities, ids = torch.softmax(logits / temperature, -1).sort(-1, descending=True)
    # Keep the smallest set whose mass reaches top_p: a token stays if the mass before it is still short of that.
    probabilities = probabilities.masked_fill(probabilities.cumsum(-1) - probabilities >= top_p, 0.0)
    if top_k:
        probabilities[:, top_k:] = 0.0
    mass = probabilities.cumsum(-1)  # (B, V): a number drawn from [0, all of it) falls between two entries
    drawn = uniform.to(mass)[:, None] * mass[:, -1:]
    at = torch.searchsorted(mass, drawn, right=True)  # (B, 1)
    # Rounding may put the number on the very end: the last token with any mass it is, then.
    at = torch.minimum(at, (probabilities > 0).sum(-1, keepdim=True) - 1)
    return ids.gather(-1, at)[:, 0]


def penalise(logits: Tensor, seen: Sequence[int], penalty: float) -> Tensor:
    """``(V,)`` logits with those of ``seen`` tokens divided by ``penalty``, or multiplied where they are negative."""
    if penalty == 1.0 or not seen:
        return logits
    again = logits[list(seen)]
    logits = logits.clone()
    logits[list(seen)] = torch.where(again > 0, again / penalty, again * penalty)
    return logits


class Context:
    """A key-value cache together with the tokens that are in it, so that a next prompt need not be read again.

    For one generation at a time.
    """

    def __init__(self, model: Cirilla) -> None:
        weight = model.norm.weight
        self.model = model
        self.cache = KVCache(model.config, dtype=weight.dtype, device=weight.device)
        self.ids: list[int] = []

    def common(self, prompt: Sequence[int]) -> int:
        """How many tokens at the beginning of ``prompt`` have been read."""
        # strict=False: one of the two is shorter, and that is where they part.
        pairs = enumerate(zip(self.ids, prompt, strict=False))
        return next((i for i, (a, b) in pairs if a != b), min(len(self.ids), len(prompt)))

    def prefill(self, prompt: Sequence[int]) -> Tensor:
        """Read what is new in ``prompt``: the logits ``(V,)`` of the token after it, in float32."""
        kept = min(self.common(prompt), len(prompt) - 1)  # at least one token, for it is the last that predicts
        try:
            self.cache.rewind(kept)
        except ValueError:  # a sliding window does not keep what is so far back
            kept = 0
            self.cache.rewind(0)
        self.ids = []
        new = torch.tensor([list(prompt[kept:])], device=self.model.norm.weight.device)
        hidden = self.model.prefill(new, self.cache, chunk=CHUNK)  # (1, D): the last token alone meets the vocabulary
        self.ids = list(prompt)
        return self.model.logits(hidden)[0].float()

    def read(self, new: Sequence[int], routing: list[Routing] | None = None) -> Tensor:
        """Logits ``(T, V)`` after each of T new tokens, in float32."""
        known, self.ids = self.ids, []  # should the pass fail half-way, nothing is in the cache for sure
        ids = torch.tensor([list(new)], device=self.model.norm.weight.device)
        logits = self.model.logits(self.model.hidden(ids, self.cache, routing=routing))[0].float()
        self.ids = [*known, *new]
        return logits

    def rewind(self, length: int) -> None:
        """Forget all but the first ``length`` tokens."""
        self.cache.rewind(length)
        del self.ids[length:]


@torch.inference_mode()
def stream(
    model: Cirilla,
    prompt: Sequence[int],
    *,
    max_new_tokens: int,
    stop: frozenset[int] = frozenset(),
    temperature: float = 0.0,
    top_k: int = 0,
    top_p: float = 1.0,
    repetition_penalty: float = 1.0,
    seed: int | None = None,
    allowed: Collection[int] | None = None,
    context: Context | None = None,
    lookup: int = 0,
    trace: bool = False,
) -> Generator[Token, None, None]:
    """Continue ``prompt`` token by token until a ``stop`` token (not yielded), the limit, or the model's length.

    Args:
        repetition_penalty: divides the positive logits of tokens already generated, multiplies the negative ones
            (Keskar et al. 2019); 1 leaves them alone.  The prompt does not count: answers copy from it.
        seed: of this request's own random numbers; without one they differ from call to call.
        allowed: tokens that may be written, ``stop`` among them if it is ever to stop; all of them when None.  The
            probabilities told are those before anything was forbidden.
        context: cache and tokens of an earlier call; the beginning that both prompts share is not read again.
        lookup: longest draft to propose from the prompt (:mod:`lm.speculate`), at most 32; 0 decodes one token a pass.
            The outcome is the same, and with sampling so is every random number's use.
        trace: fill in ``runners_up`` and ``experts``, which take time.

    Raises:
        ValueError: the prompt is empty, or fills the model's length; see :func:`choose` too.
    """
    length = model.config.max_length
    if not prompt or len(prompt) >= length:
        raise ValueError(f"a prompt has 1 to {length - 1} tokens, not {len(prompt)}")
    generator = None
    if temperature > 0:
        generator = torch.Generator()
        if seed is not None:
            generator.manual_seed(seed)
        else:
            generator.seed()
    context = context or Context(model)
    drafts = PromptLookup(prompt, min(lookup, context.cache.slack)) if lookup else None
    routing: list[Routing] | None = [] if trace and model.config.n_experts else None
    limit = min(max_new_tokens, length - len(prompt))
    forbidden: Tensor | None = None  # (V,) bool
    if allowed is not None:
        forbidden = torch.ones(model.config.vocab_size, dtype=torch.bool, device=model.norm.weight.device)
        forbidden[list(allowed)] = False
    seen: list[int] = []

    def settle(rows: Tensor, draft: Sequence[int], experts: list[tuple[tuple[int, ...], ...]]) -> Iterator[Token]:
        """Tokens from the rows of logits, up to and with the first that is not the draft's."""
        for t, logits in enumerate(rows):
            choice = penalise(logits, seen, repetition_penalty)
            if forbidden is not None:
                choice = choice.masked_fill(forbidden, -torch.inf)
            token = pick(choice, temperature, top_k, top_p, generator)
            drafted = t < len(draft) and draft[t] == token
            probabilities = torch.softmax(logits, -1)
            others: tuple[tuple[int, float], ...] = ()
            if trace:
                best = probabilities.topk(RUNNERS_UP + 1)
                ranked = zip(best.indices.tolist(), best.values.tolist(), strict=True)
                others = tuple(pair for pair in ranked if pair[0] != token)[:RUNNERS_UP]
            seen.append(token)
            yield Token(token, float(probabilities[token]), others, drafted, experts[t] if experts else ())
            if not drafted or token in stop:
                return

    def chosen(routing: list[Routing] | None) -> list[tuple[tuple[int, ...], ...]]:
        """For each new token, by layer, the experts it visited."""
        layers = [r.experts[0].tolist() for r in routing or ()]  # (T, k) each
        return [tuple(map(tuple, layer)) for layer in zip(*layers, strict=True)]

    if limit <= 0:
        return
    if routing is not None and len(prompt) > 1:  # the last token's way is to be seen, so it goes by itself
        context.prefill(prompt[:-1])
        rows = context.read(prompt[-1:], routing)
    else:
        rows = context.prefill(prompt)[None]
    draft: list[int] = []
    while True:
        tokens = list(settle(rows, draft, chosen(routing)))
        # What the model rejected must leave the cache before anybody else gets to see it; the last token is not in it.
        kept = len(prompt) + len(seen) - 1
        if len(context.ids) > kept:
            context.rewind(kept)
        if drafts is not None:
            accepted = sum(token.speculated for token in tokens)
            if draft:
                drafts.learn(len(draft), accepted)
            drafts.extend(token.id for token in tokens)
        for token in tokens:
            if token.id in stop:
                return
            yield token
        room = limit - len(seen)
        if room <= 0:
            return
        if routing is not None:
            routing.clear()
        draft = drafts.propose(room - 1) if drafts is not None else []
        rows = context.read([seen[-1], *draft], routing)


@torch.inference_mode()
def batch(
    model: Cirilla,
    prompts: Sequence[Sequence[int]],
    *,
    max_new_tokens: int,
    stop: frozenset[int] = frozenset(),
    temperature: float = 0.0,
    top_k: int = 0,
    top_p: float = 1.0,
    repetition_penalty: float = 1.0,
    seeds: Sequence[int] | None = None,
) -> list[list[int]]:
    """Continue many prompts at once, left-padded to the longest: the new tokens of each, without ``stop`` tokens.

    Every row is what :func:`stream` gives for it with the same settings and its own seed, whoever is beside it.

    Args:
        seeds: one a prompt.

    Raises:
        ValueError: a prompt is empty or fills the model's length; not as many seeds as prompts; see :func:`choose` too.
    """
    if not prompts:
        return []
    if seeds is not None and len(seeds) != len(prompts):
        raise ValueError(f"{len(prompts)} prompts need as many seeds, not {len(seeds)}")
    sizes, longest = [len(prompt) for prompt in prompts], max(map(len, prompts))
    if not min(sizes) or longest >= model.config.max_length:
        raise ValueError(f"a prompt has 1 to {model.config.max_length - 1} tokens, not {min(sizes)} or {longest}")
    device, dtype = model.norm.weight.device, model.norm.weight.dtype
    ids = torch.zeros(len(prompts), longest, dtype=torch.long)
    for row, prompt in enumerate(prompts):
        ids[row, longest - len(prompt) :] = torch.tensor(list(prompt))
    pad = torch.tensor([longest - size for size in sizes], device=device) if min(sizes) < longest else None
    generators = [torch.Generator() for _ in prompts]
    for row, generator in enumerate(generators):
        generator.manual_seed(seeds[row]) if seeds is not None else generator.seed()

    cache = KVCache(model.config, batch=len(prompts), dtype=dtype, device=device)
    hidden = model.prefill(ids.to(device), cache, pad, chunk=CHUNK)  # (B, D)
    seen = torch.zeros(len(prompts), model.config.vocab_size, dtype=torch.bool, device=device)
    given: list[list[int]] = [[] for _ in prompts]
    running = [True] * len(prompts)
    limit = min(max_new_tokens, model.config.max_length - longest)
    for step in range(limit):
        logits = model.logits(hidden).float()  # (B, V)
        if repetition_penalty != 1.0:
            again = torch.where(logits > 0, logits / repetition_penalty, logits * repetition_penalty)
            logits = torch.where(seen, again, logits)
        uniform = torch.zeros(len(prompts))
        if temperature > 0:
            uniform = torch.cat([torch.rand(1, generator=generator) for generator in generators])
        new = choose(logits, temperature, top_k, top_p, uniform)  # (B,)
        for row, token in enumerate(new.tolist()):
            running[row] = running[row] and token not in stop
            if running[row]:
                given[row].append(token)
        if not any(running) or step == limit - 1:
            break
        seen.scatter_(1, new[:, None], True)
        hidden = model.hidden(new[:, None], cache)[:, -1]
    return given


def text(
    tokens: Iterable[Token], decode: Callable[[Sequence[int]], str], stop_strings: Sequence[str] = ()
) -> Iterator[tuple[Token, str]]:
    """Each token with the text that is sure once it is there; it ends before the first of ``stop_strings``.

    A character may be spread over several byte tokens, and a stop string over several tokens: both are held back until
    they are whole or refuted, so a token may come with "".  What is still held back at the end comes with the last
    token once more; bytes that never became a character are dropped.
    """
    ids: list[int] = []
    sent = 0  # characters
    whole, last = "", None
    for last in tokens:
        ids.append(last.id)
        now = decode(ids)
        if now.endswith("\ufffd"):
            yield last, ""
            continue
        whole = now
        found = [at for at in (whole.find(stop, max(0, sent - len(stop))) for stop in stop_strings) if at >= 0]
        if found:
            yield last, whole[sent : max(sent, min(found))]
            return
        # The end may be the beginning of a stop string.
        held = max((n for s in stop_strings for n in range(1, len(s)) if whole.endswith(s[:n])), default=0)
        until = max(sent, len(whole) - held)
        yield last, whole[sent:until]
        sent = until
    if last is not None and sent < len(whole):
        yield last, whole[sent:]


__all__ = ["LONGEST_DRAFT", "Context", "Token", "batch", "choose", "penalise", "pick", "stream", "text"]
