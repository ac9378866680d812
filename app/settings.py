"""Everything about a run that a user may choose, in one place.

Values come from the command line, then ``CIRILLA_*`` environment variables, then a ``.env`` file in the working
folder, then the defaults here.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from app.errors import SettingsError

ROOT = Path(__file__).resolve().parent.parent


class Settings(BaseSettings):
    """Settings of one run; each can be set in the environment as ``CIRILLA_<NAME>``."""

    model_config = SettingsConfigDict(env_prefix="CIRILLA_", env_file=".env", extra="ignore")

    data: Path = Field(Path("data"), description="folder of everything that a run writes")
    codex: Path = Field(ROOT / "corpus" / "codex", description="folder of the codex's articles")
    encoder_weights: Path = Field(ROOT / "weights" / "encoder", description="folder of the encoder's weights")
    lm_weights: Path = Field(ROOT / "weights" / "cirilla", description="folder of the decoder's weights")

    wiki: str = Field("https://witcher.fandom.com", description="wiki that --ingest fetches unless --wiki names one")
    contact: str = Field("", description="e-mail or address that the wiki's owners can reach you at (User-Agent)")

    host: str = Field("127.0.0.1", description="address that the chat listens on")
    port: int = Field(7860, ge=1, le=65535, description="port that the chat listens on")

    generator: Literal["cirilla", "evidence"] = Field(
        "cirilla", description="who phrases answers; evidence: quotes only"
    )
    candidates: int = Field(12, ge=1, le=50, description="passages that a search brings in for a question")
    passages: int = Field(4, ge=1, le=10, description="passages that the decoder reads")
    max_new_tokens: int = Field(96, ge=8, le=512, description="length of the decoder's draft, in tokens")
    threshold: float = Field(0.4, ge=0.0, le=1.0, description="confidence under which the archives are called silent")
    question_limit: int = Field(2_000, ge=50, description="characters of a question that are read")

    @property
    def archive(self) -> Path:
        """The SQLite file."""
        return self.data / "archive.sqlite"

    @property
    def index(self) -> Path:
        """Folder of the FAISS file and its manifest."""
        return self.data / "index"


def load(**overrides: Any) -> Settings:
    """Settings with ``overrides`` on top; those that are None are left to the environment and the defaults.

    Raises:
        SettingsError: naming the first value that cannot be used.
    """
    given = {name: value for name, value in overrides.items() if value is not None}
    try:
        return Settings(**given)
    except ValidationError as error:
        first = error.errors()[0]
        name = str(first["loc"][0]) if first["loc"] else "?"
        where = f"--{name}" if name in given else f"CIRILLA_{name.upper()}"
        raise SettingsError(f"{where}: {first['msg']} (got {first['input']!r}).") from None
