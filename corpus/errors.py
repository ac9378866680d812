"""Errors that a user can cause or meet, each said in one clear line.

``app`` prints the message to standard error and exits with a non-zero status; anything that is not a
``CirillaError`` is a bug and shows its traceback.  The message therefore says what happened and what to do.
"""

from __future__ import annotations


class CirillaError(Exception):
    """Base of every error whose message is meant for the user: one line, no traceback needed."""


class CorpusError(CirillaError):
    """Base of the errors of this room: the wiki, the codex or the archive."""


class WikiUnreachable(CorpusError):
    """No answer: the host does not exist, refuses connections, or kept timing out."""


class NotAWiki(CorpusError):
    """The address answers, but no MediaWiki API was found there."""


class WikiRefused(CorpusError):
    """The wiki does not want us: HTTP 401/403, a private wiki, or robots.txt."""


class WikiBroken(CorpusError):
    """The wiki answers, but not sensibly: 5xx after every retry, malformed JSON, an API error."""


class StoreError(CorpusError):
    """The archive (SQLite file) cannot be opened, read or written."""


class Locked(CorpusError):
    """Another process is writing to the same data folder."""
