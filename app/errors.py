"""Errors that belong to the app itself; the other rooms bring their own."""

from __future__ import annotations

from corpus.errors import CirillaError


class AppError(CirillaError):
    """Base of this room's errors, each one line that a user can act on."""


class SettingsError(AppError):
    """A setting or option has a value that cannot be used."""


class PortInUse(AppError):
    """Another program listens where the chat should."""


class BadQuestionFile(AppError):
    """A file of questions cannot be read; the message names the line."""


class NothingIndexed(AppError):
    """The data folder holds no passages to search."""
