"""The "About" tab: what this is, how an answer comes about, and whose the words are."""

from __future__ import annotations

from app.settings import Settings

_TEXT = """
<article class="about">
<h2>What this is</h2>
<p>A chat that answers questions about the world of the Witcher (the books, the games, the series) and shows where every
sentence comes from. What its archives do not hold, it declines to answer.</p>
<p>Nothing in it is a borrowed model. Learned word vectors find the passages, a BERT-style encoder reads and ranks them,
and a decoder, Cirilla, drafts the answer; all are written in plain PyTorch and were trained from scratch.</p>
<h2>How an answer comes about</h2>
<ol>
<li>A follow-up such as “And her mother?” is completed from the conversation; misspelt names are mended.</li>
<li>The archive is searched by words (BM25) and by meaning (word vectors); both rankings are fused.</li>
<li>A second stage, the BERT-style encoder, reads the question together with each of the best passages. Their best
sentences are weighed; if they do not hold what was asked, the archives are said not to hold it.</li>
<li>Cirilla drafts an answer from numbered passages. Every sentence is compared with the passage that it cites: names,
numbers and content words must be there. What fails is replaced by the source itself, quoted.</li>
</ol>
<p>“Confidence” says how sure the archives hold this answer. It is a measure of the evidence, not of the truth: the
sources can err, and so can the choice among them. “Look inside” draws the last answer's whole way.</p>
<h2>What is kept</h2>
<p>The conversation stays in this browser until you begin a new one. If you rate an answer, the question, the answer and
what you wrote are kept on the server, without your address or anything else about you. The page loads nothing from
elsewhere. REMOTE</p>
<h2>Keyboard</h2>
<p><kbd>Enter</kbd> asks, <kbd>Shift</kbd> + <kbd>Enter</kbd> begins a new line. <kbd>Tab</kbd> reaches every citation;
<kbd>Enter</kbd> on one opens its source. <kbd>Esc</kbd> closes an article.</p>
<h2>Licences</h2>
<p>Code: MIT. The codex, an encyclopedia that ships with the project: CC BY 4.0. Pages of a wiki keep that wiki's
licence, which stands beside each quote. The models were trained on CC BY-SA, public-domain and other openly licensed
text.</p>
<p>The Witcher, its names and its stories belong to Andrzej Sapkowski, CD PROJEKT S.A. and Netflix. This is a fan
project without any tie to them.</p>
</article>
"""


def html(settings: Settings) -> str:
    """The page's text."""
    # The owner's own choice, so the reader is told.
    remote = "Drafts are written by another server, which is sent your question with the passages found for it."
    return _TEXT.replace("REMOTE", remote if settings.lm_url else "Your questions are sent to nobody else.")
