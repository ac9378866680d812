"""Prompt-lookup speculation (Saxena 2023): answers copy from their passages, so the passages propose what comes next.

When the last tokens of an answer stand somewhere in the prompt, what follows them there is proposed as a draft.  One
forward pass computes what the model itself would say after each token of the draft; the longest beginning on which the
two agree is kept, and the model's own token after it (Leviathan et al. 2023).  The answer is the same as without, token
for token, with fewer passes, and on a CPU a pass over ten tokens costs hardly more than one over a single token.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

LONGEST_NGRAM = 3
SHORTEST_NGRAM = 1
LONGEST_DRAFT = 10  # longer ones fail too often; a ring cache must be able to take one back


class PromptLookup:
    """Proposes drafts from the tokens seen so far, prompt and answer alike.

    Args:
        ids: the prompt.
        longest: tokens in a draft at most.

    Attributes:
        proposed, accepted: tokens so far.
    """

    def __init__(self, ids: Sequence[int], longest: int = LONGEST_DRAFT) -> None:
        self.ids: list[int] = []
        self.longest = longest
        self.length = min(4, longest)  # of the next draft: grows with success
        self.proposed = self.accepted = 0
        # For every n-gram, where the token after its first occurrence stands: the best passage comes first, and in a
        # text that repeats itself the draft is not cut short by the present.
        self.after: dict[tuple[int, ...], int] = {}
        self.extend(ids)

    def extend(self, ids: Iterable[int]) -> None:
        """Take in tokens that are now settled."""
        for token in ids:
            # The n-grams that end before this token are entered only now, when something follows them: looking up the
            # last tokens therefore never finds themselves.
            end = len(self.ids)
            for n in range(SHORTEST_NGRAM, min(LONGEST_NGRAM, end) + 1):
                self.after.setdefault(tuple(self.ids[end - n :]), end)
            self.ids.append(token)

    def propose(self, room: int) -> list[int]:
        """At most ``room`` tokens that may come next; [] when the last ones occur nowhere else.

        The longest n-gram that is found decides: the more tokens agree, the likelier the next ones do.
        """
        length = min(self.length, room)
        for n in range(LONGEST_NGRAM, SHORTEST_NGRAM - 1, -1):
            at = self.after.get(tuple(self.ids[-n:])) if len(self.ids) >= n else None
            if at is not None and length > 0:
                return self.ids[at : at + length]
        return []

    def learn(self, proposed: int, accepted: int) -> None:
        """How the last draft fared: the next one is twice as long after full success, else as long as what held."""
        self.proposed += proposed
        self.accepted += accepted
        if accepted < proposed:
            self.length = min(max(2, accepted + 1), self.longest)
        else:
            self.length = min(2 * self.length, self.longest)
