"""Everything about a run that a user may choose, in one place.

Values come from the command line, then ``CIRILLA_*`` environment variables, then a ``.env`` file in the working
folder, then the defaults here.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from app.errors import SettingsError

ROOT = Path(__file__).resolve().parent.parent


class Settings(BaseSettings):
    """Settings of one run; each can be set in the environment as ``CIRILLA_<NAME>``."""

    model_config = SettingsConfigDict(env_prefix="CIRILLA_", env_file=".env", extra="ignore")

    data: Path = Field(Path("data"), description="folder of everything that a run writes")
    codex: Path = Field(ROOT / "corpus" / "codex", description="folder of the codex's articles")
    encoder_weights: Path = Field(ROOT / "weights" / "encoder", description="folder of the encoder's weights")
    reranker_weights: Path = Field(ROOT / "weights" / "reranker", description="folder of the second stage's weights")
    second_stage: bool = Field(True, description="whether a second stage reads the passages that the search brings")
    lm_weights: Path = Field(ROOT / "weights" / "cirilla", description="folder of the decoder's weights")

    wiki: str = Field("https://witcher.fandom.com", description="wiki that --ingest fetches unless --wiki names one")
    contact: str = Field("", description="e-mail or address that the wiki's owners can reach you at (User-Agent)")

    host: str = Field("127.0.0.1", description="address that the chat listens on")
    port: int = Field(7860, ge=1, le=65535, description="port that the chat listens on")

    generator: Literal["cirilla", "evidence"] = Field(
        "cirilla", description="who phrases answers; evidence: quotes only"
    )
    candidates: int = Field(20, ge=1, le=50, description="passages that a search brings in for a question")
    passages: int = Field(
        1, ge=1, le=10, description="passages that the decoder reads: what the released one reads best"
    )
    max_new_tokens: int = Field(96, ge=8, le=512, description="length of the decoder's draft, in tokens")
    threshold: float = Field(0.25, ge=0.0, le=1.0, description="confidence under which the archives are called silent")
    question_limit: int = Field(2_000, ge=50, description="characters of a question that are read")

    lm_url: str = Field(
        "",
        pattern=r"^(https?://\S+)?$",
        description="OpenAI-compatible server that phrases the drafts instead of Cirilla",
    )
    lm_model: str = Field(
        "cirilla", description="name of the model on that server; with “cirilla” in it, it gets Cirilla's own prompt"
    )
    lm_key: SecretStr = Field(SecretStr(""), description="its key, sent as a bearer token; never shown")
    lm_timeout: float = Field(60.0, gt=0, le=600, description="seconds that one draft of that server may take")

    workers: int = Field(1, ge=1, le=16, description="questions answered at a time; more pay with CIRILLA_LM_URL only")
    waiting: int = Field(64, ge=1, le=1_000, description="questions that may wait; whoever comes later is told so")
    rate_limit: int = Field(30, ge=0, description="questions a minute from one client; 0: no limit")
    trusted_proxy: bool = Field(False, description="believe X-Forwarded-For: only behind a proxy that sets it itself")
    request_limit: int = Field(2_000_000, ge=10_000, description="bytes of one HTTP request")
    history_limit: int = Field(50_000, ge=0, description="characters of earlier turns in one call of the API")
    cached_answers: int = Field(256, ge=0, description="answers kept in memory, for questions that come again")

    @property
    def behind_proxy(self) -> bool:
        """Whether X-Forwarded-For tells who asks: on a Hugging Face Space, whose proxy sets it, or when told so."""
        return self.trusted_proxy or on_a_space()

    @property
    def archive(self) -> Path:
        """The SQLite file."""
        return self.data / "archive.sqlite"

    @property
    def index(self) -> Path:
        """Folder of the FAISS file and its manifest."""
        return self.data / "index"


def on_a_space() -> bool:
    """Whether this process runs on Hugging Face Spaces."""
    return bool(os.environ.get("SPACE_ID"))


def load(**overrides: Any) -> Settings:
    """Settings with ``overrides`` on top; those that are None are left to the environment and the defaults.

    Gradio's own ``GRADIO_SERVER_NAME`` and ``GRADIO_SERVER_PORT`` count where ours say nothing, and a Space listens on
    every address, for its proxy is another machine.

    Raises:
        SettingsError: naming the first value that cannot be used.
    """
    given = {name: value for name, value in overrides.items() if value is not None}
    try:
        chosen = Settings(**given)
        elsewhere = {"host": os.environ.get("GRADIO_SERVER_NAME") or ("0.0.0.0" if on_a_space() else None)}
        elsewhere["port"] = os.environ.get("GRADIO_SERVER_PORT")
        more = {name: value for name, value in elsewhere.items() if value and name not in chosen.model_fields_set}
        return Settings(**given | more) if more else chosen
    except ValidationError as error:
        first = error.errors()[0]
        name = str(first["loc"][0]) if first["loc"] else "?"
        where = f"--{name}" if name in given else f"CIRILLA_{name.upper()}"
        raise SettingsError(f"{where}: {first['msg']} (got {first['input']!r}).") from None
