"""The archive: one SQLite file that holds every stage of ingestion.

Tables are listed in ``docs/architecture.md``.  The rules that the rest of the project relies on:

* A page and everything that hangs on it (sections, facts, quotes, aliases, passages, FTS rows) change in one
  transaction; a kill or a full disk leaves the page as it was.
* Page and passage ids depend on content and place, not on the order of arrival.  A passage that a new revision
  did not touch therefore keeps its row and its vectors.
* WAL mode: readers see the last finished page while an ingest writes.
* ``Store`` may be shared between threads: each gets a connection of its own, opened at its first call.

Only SQLite files are supported (no ``:memory:``), since a second thread could not see such a database.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
import threading
import unicodedata
import weakref
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from sqlite_utils import Database

from corpus.errors import StoreError
from corpus.schema import APPLICATION_ID, MIGRATIONS, SCHEMA, SCHEMA_VERSION
from corpus.types import Article, Fact, Page, Passage, Quote, Section

BUSY_SECONDS = 30.0  # how long a statement waits for another writer
BATCH = 1000  # rows a streaming method holds in memory at a time

_STORED = """SELECT p.id, p.page, g.source, p.title, g.display_title, p.path, p.heading, p.text, p.start, p."end",
    p.section, p.canon, g.url, g.revid, s.rights, s.rights_url
    FROM passages p JOIN pages g ON g.id = p.page JOIN sources s ON s.id = g.source"""
_RAW = "SELECT g.*, s.rights, s.rights_url FROM pages g JOIN sources s ON s.id = g.source"

# Letters that Unicode does not decompose, so that unicode61's remove_diacritics leaves them alone; apostrophes and
# invisible characters vanish (Scoia'tael = Scoia’tael = Scoiatael).
_FOLD = str.maketrans(
    dict.fromkeys("'’‘ʼʻ`´′＇\u00ad\u200b\u200c\u200d\ufeff", "")
    | {"ł": "l", "Ł": "L", "đ": "d", "Đ": "D", "ð": "d", "Ð": "D", "ø": "o", "Ø": "O", "ħ": "h", "Ħ": "H"}
    | {"ß": "ss", "ẞ": "SS", "æ": "ae", "Æ": "AE", "œ": "oe", "Œ": "OE", "þ": "th", "Þ": "Th", "ı": "i"}
)


def fold(text: str) -> str:
    """Spell ``text`` the way the full-text index spells it; queries go through the same function.

    Case, accents and word endings are left to FTS5's own tokenizer (unicode61 and Porter).
    """
    return unicodedata.normalize("NFKC", text.translate(_FOLD))


def page_key(source: str, pageid: int) -> int:
    """Positive 63-bit id of a page: the same in every archive, whatever the order of arrival."""
    return int.from_bytes(hashlib.blake2b(f"{source}\x1f{pageid}".encode(), digest_size=8).digest(), "big") >> 1


@dataclass(frozen=True, slots=True)
class StoredPassage:
    """A passage as the archive holds it, with all that a citation needs."""

    id: int
    page: int  # pages.id
    source: str
    title: str
    display_title: str
    path: tuple[str, ...]
    heading: str
    text: str
    start: int  # offsets into the section's text, in characters
    end: int
    section: int  # ordinal of the section in its article
    canon: str
    url: str
    revid: int
    rights: str
    rights_url: str


@dataclass(frozen=True, slots=True)
class Source:
    """Where pages come from: the codex or one wiki."""

    id: str  # "codex" or the wiki's host
    api: str = ""
    site_name: str = ""
    rights: str = ""
    rights_url: str = ""
    base_url: str = ""
    generator: str = ""
    last_run: str = ""  # ISO 8601, UTC; end of the last complete ingest


class Store:
    """The archive at ``path``, created when missing.  Raises ``StoreError`` with a remedy on anything unusable."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._local = threading.local()
        self._open: weakref.WeakSet[Database] = weakref.WeakSet()
        self._closed = False
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StoreError(f"Cannot create the data folder {self.path.parent}: {error.strerror}.") from error
        try:
            with self._guard():
                self._prepare(self.db)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections of every thread."""
        self._closed = True
        for db in list(self._open):
            db.close()

    # -- connections, transactions and errors ------------------------------------------------------------------

    @property
    def db(self) -> Database:
        """This thread's connection, for reading SQL of one's own (full-text search)."""
        if self._closed:
            raise StoreError(f"The archive {self.path} was closed.")
        db: Database | None = getattr(self._local, "db", None)
        if db is None:
            # check_same_thread is off only so that close() may be called from any thread.
            conn = sqlite3.connect(self.path, timeout=BUSY_SECONDS, check_same_thread=False)
            db = self._local.db = Database(conn)
            self._open.add(db)
            db.execute("PRAGMA foreign_keys = ON")
            db.execute("PRAGMA synchronous = NORMAL")  # with WAL: safe against kill -9, never corrupt
        return db

    def _prepare(self, db: Database) -> None:
        """Check that the file is ours; make the tables when it is new, bring them up to date when they are old."""
        version, application = self._header(db)
        if application == APPLICATION_ID and version > SCHEMA_VERSION:
            raise StoreError(
                f"The archive {self.path} was written by a newer Cirilla (format {version}, this one reads "
                f"{SCHEMA_VERSION}): update Cirilla, or choose another folder with --data."
            )
        if application != APPLICATION_ID and (version or db.table_names()):
            raise StoreError(f"{self.path} is a database of another program: choose another folder with --data.")
        if db.journal_mode != "wal":
            db.enable_wal()
        if (version, application) == (SCHEMA_VERSION, APPLICATION_ID):
            return
        db.execute("BEGIN IMMEDIATE")
        try:
            version, application = self._header(db)  # another process may have been quicker while we waited
            statements = SCHEMA if not application else ()
            for old in range(version, SCHEMA_VERSION) if application else ():
                statements = (*statements, *MIGRATIONS[old], f"PRAGMA user_version = {old + 1}")
            for statement in statements:
                db.conn.execute(statement)
            db.commit()
        except BaseException:
            db.rollback()
            raise

    @staticmethod
    def _header(db: Database) -> tuple[int, int]:
        version = db.execute("PRAGMA user_version").fetchone()[0]
        return version, db.execute("PRAGMA application_id").fetchone()[0]

    @contextmanager
    def _guard(self) -> Iterator[None]:
        """Turn SQLite's errors about the file (not about our SQL) into one line with a remedy."""
        try:
            yield
        except sqlite3.OperationalError as error:
            said = str(error)
            if "is full" in said:
                line = f"The disk is full while writing {self.path}: nothing was lost; free some space and run again."
            elif "locked" in said or "busy" in said:
                line = f"The archive {self.path} is busy: another program is writing to it."
            elif "readonly" in said or "unable to open" in said or "disk I/O" in said:
                line = f"Cannot open or write {self.path} ({said}): check the folder, its permissions and the disk."
            else:
                raise
            raise StoreError(line) from error
        except sqlite3.DatabaseError as error:
            if type(error) is not sqlite3.DatabaseError:  # IntegrityError and the like are bugs of ours
                raise
            raise self._damaged(str(error)) from error

    def _damaged(self, what: str) -> StoreError:
        return StoreError(
            f"The archive {self.path} is damaged ({what}): delete it and run `python app.py --ingest` again."
        )

    @contextmanager
    def transaction(self) -> Iterator[Database]:
        """All or nothing; errors come out as ``StoreError`` and roll everything back."""
        with self._guard(), self.db.atomic() as db:
            yield db

    def rows(self, sql: str, parameters: Sequence[Any] | dict[str, Any] = ()) -> list[dict[str, Any]]:
        """Rows of a reading query as dictionaries, errors as ``StoreError``."""
        with self._guard():
            return list(self.db.query(sql, parameters))

    # -- sources -----------------------------------------------------------------------------------------------

    def set_source(self, source: Source) -> None:
        """Insert or overwrite one row of ``sources``."""
        with self.transaction() as db:
            row = {name: getattr(source, name) for name in Source.__dataclass_fields__}
            db.table("sources").upsert(row, pk="id")

    def sources(self) -> dict[str, Source]:
        return {row["id"]: Source(**row) for row in self.rows("SELECT * FROM sources ORDER BY id")}

    # -- writing pages -----------------------------------------------------------------------------------------

    def replace_page(self, page: Page, article: Article, passages: Sequence[Passage]) -> None:
        """Store one page in one transaction, in place of its earlier revision if there is one.

        A source that ``set_source`` has not seen is made from the page's own rights.
        """
        key = page_key(page.source, page.pageid)
        aliases = {
            alias: (alias in page.aliases, alias in article.aliases) for alias in (*page.aliases, *article.aliases)
        }
        ids = {passage.key(page.source, page.pageid): passage for passage in passages}
        with self.transaction() as db:
            db.table("sources").insert(
                {"id": page.source, "rights": page.rights, "rights_url": page.rights_url}, pk="id", ignore=True
            )
            db.table("pages").upsert(
                {
                    "id": key,
                    "source": page.source,
                    "pageid": page.pageid,
                    "title": page.title,
                    "display_title": page.display_title,
                    "revid": page.revid,
                    "url": page.url,
                    "fetched_at": page.fetched_at,
                    "sha": page.sha,
                    "html": zlib.compress(page.html.encode()),
                    "categories": _json(page.categories),
                    "canon": article.canon,
                    "kind": article.kind,
                    "revised_at": page.revised_at,
                },
                pk="id",
            )
            parts = list(enumerate(article.sections))
            for table, rows in (
                ("aliases", [(key, alias, *flags) for alias, flags in aliases.items()]),
                ("sections", [(key, n, _json(p.path), p.canon, p.text, _json(p.references)) for n, p in parts]),
                ("facts", [(key, n, f.key, f.label, _json(f.values), f.canon) for n, f in enumerate(article.facts)]),
                ("quotes", [(key, n, q.text, q.attribution) for n, p in parts for q in p.quotes]),
            ):
                db.execute(f"DELETE FROM {table} WHERE page = ?", [key])
                if rows:
                    db.conn.executemany(f"INSERT INTO {table} VALUES ({', '.join('?' * len(rows[0]))})", rows)
            self._replace_passages(db, key, page, ids, tuple(aliases))

    @staticmethod
    def _replace_passages(
        db: Database, page_id: int, page: Page, passages: dict[int, Passage], aliases: tuple[str, ...]
    ) -> None:
        """Write the passages and their FTS rows; rows of passages that stay are updated, so vectors stay too."""
        old = {row[0] for row in db.execute("SELECT id FROM passages WHERE page = ?", [page_id])}
        db.conn.executemany("DELETE FROM passages WHERE id = ?", [(gone,) for gone in old - passages.keys()])
        db.conn.executemany(
            """INSERT INTO passages VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
               ON CONFLICT (id) DO UPDATE SET "end" = excluded."end", path = excluded.path, canon = excluded.canon,
               title = excluded.title""",
            [
                (key, page_id, p.section, p.start, p.end, p.heading, p.title, _json(p.path), p.text, p.canon)
                for key, p in passages.items()
            ],
        )
        shown = page.title if page.display_title in ("", page.title) else f"{page.title} · {page.display_title}"
        db.conn.executemany(
            "INSERT OR REPLACE INTO passages_fts (rowid, title, aliases, heading, body) VALUES (?, ?, ?, ?, ?)",
            [
                (
                    key,
                    *map(fold, (shown, " · ".join(dict.fromkeys((*aliases, *p.aliases))), " · ".join(p.path), p.text)),
                )
                for key, p in passages.items()
            ],
        )

    def delete_page(self, source: str, pageid: int) -> bool:
        """Delete a page and all that hangs on it; whether there was one."""
        with self.transaction() as db:
            return db.execute("DELETE FROM pages WHERE id = ?", [page_key(source, pageid)]).rowcount > 0

    def date_revisions(self, source: str, dates: Mapping[tuple[int, int], str]) -> int:
        """Fill in when revisions were saved, {(page id on the wiki, revision id): ISO 8601}, where the archive does not
        know it yet; returns how many."""
        rows = self.rows("SELECT id, pageid, revid FROM pages WHERE source = ? AND revised_at = ''", [source])
        found = [(date, row["id"]) for row in rows if (date := dates.get((row["pageid"], row["revid"])))]
        with self.transaction() as db:
            db.conn.executemany("UPDATE pages SET revised_at = ? WHERE id = ?", found)
        return len(found)

    # -- reading pages -----------------------------------------------------------------------------------------

    def revisions(self, source: str) -> dict[int, int]:
        """Page id on the wiki → revision id that the archive holds."""
        return {
            row["pageid"]: row["revid"]
            for row in self.rows("SELECT pageid, revid FROM pages WHERE source = ?", [source])
        }

    def redirects(self, source: str) -> dict[int, set[str]]:
        """Page id on the wiki → titles that redirect to it (pages without any are left out)."""
        found: dict[int, set[str]] = {}
        for row in self.rows(
            "SELECT g.pageid, a.alias FROM aliases a JOIN pages g ON g.id = a.page WHERE g.source = ? AND a.redirect",
            [source],
        ):
            found.setdefault(row["pageid"], set()).add(row["alias"])
        return found

    def raw_page(self, page: int) -> Page | None:
        """The page as it was fetched; None when there is no such ``pages.id``."""
        rows = self.rows(f"{_RAW} WHERE g.id = ?", [page])
        if not rows:
            return None
        row = rows[0]
        aliases = self.rows("SELECT alias FROM aliases WHERE page = ? AND redirect ORDER BY rowid", [page])
        try:
            html = zlib.decompress(row["html"]).decode()
        except (zlib.error, UnicodeDecodeError) as error:
            raise self._damaged(f"text of “{row['title']}”") from error
        same = ("source", "pageid", "title", "revid", "url", "display_title", "revised_at", "fetched_at")
        return Page(
            **{name: row[name] for name in (*same, "rights", "rights_url")},
            html=html,
            categories=tuple(json.loads(row["categories"])),
            aliases=tuple(alias["alias"] for alias in aliases),
        )

    def iter_raw_pages(self, source: str | None = None) -> Iterator[Page]:
        """Every fetched page, one in memory at a time; pages may be replaced while iterating."""
        where, values = ("WHERE source = ?", [source]) if source is not None else ("", [])
        for row in self.rows(f"SELECT id FROM pages {where} ORDER BY source, pageid", values):
            page = self.raw_page(row["id"])
            if page is not None:
                yield page

    def article(self, page: int) -> Article | None:
        """The article of a ``pages.id`` as it was understood when stored."""
        rows = self.rows("SELECT title, categories, canon, kind FROM pages WHERE id = ?", [page])
        if not rows:
            return None
        facts = self.rows("SELECT * FROM facts WHERE page = ? ORDER BY ordinal", [page])
        aliases = self.rows("SELECT alias FROM aliases WHERE page = ? AND stated ORDER BY rowid", [page])
        return Article(
            title=rows[0]["title"],
            sections=tuple(self._sections(page)),
            facts=tuple(Fact(f["key"], f["label"], tuple(json.loads(f["values"])), f["canon"]) for f in facts),
            categories=tuple(json.loads(rows[0]["categories"])),
            aliases=tuple(row["alias"] for row in aliases),
            canon=rows[0]["canon"],
            kind=rows[0]["kind"],
        )

    def section(self, page: int, ordinal: int) -> Section | None:
        """One whole section, for showing a passage in its place."""
        return next(iter(self._sections(page, ordinal)), None)

    def _sections(self, page: int, ordinal: int | None = None) -> list[Section]:
        quotes: dict[int, list[Quote]] = {}
        for row in self.rows("SELECT section, text, attribution FROM quotes WHERE page = ? ORDER BY rowid", [page]):
            quotes.setdefault(row["section"], []).append(Quote(row["text"], row["attribution"]))
        rows = self.rows(
            "SELECT * FROM sections WHERE page = :page AND (:ordinal IS NULL OR ordinal = :ordinal) ORDER BY ordinal",
            {"page": page, "ordinal": ordinal},
        )
        return [
            Section(
                path=tuple(json.loads(row["path"])),
                text=row["text"],
                canon=row["canon"],
                quotes=tuple(quotes.get(row["ordinal"], ())),
                references=tuple(json.loads(row["references"])),
            )
            for row in rows
        ]

    def titles(self) -> list[str]:
        """Every page's title, sorted."""
        return [row["title"] for row in self.rows("SELECT DISTINCT title FROM pages ORDER BY title")]

    def aliases(self) -> dict[str, str]:
        """Other spelling → page title.  Where two pages claim one, redirects win, then the first title."""
        rows = self.rows(
            "SELECT a.alias, g.title FROM aliases a JOIN pages g ON g.id = a.page ORDER BY a.redirect, g.title DESC"
        )
        return {row["alias"]: row["title"] for row in rows}

    def counts(self) -> dict[str, int]:
        """Rows of every table that a user may ask about."""
        tables = ("sources", "pages", "aliases", "sections", "facts", "quotes", "passages", "vectors")
        return {table: self.rows(f"SELECT count(*) AS n FROM {table}")[0]["n"] for table in tables}

    # -- passages and vectors ----------------------------------------------------------------------------------

    def passage(self, id: int) -> StoredPassage | None:
        return next(iter(self.passages([id])), None)

    def passages(self, ids: Iterable[int]) -> list[StoredPassage]:
        """The passages with these ids, in this order; ids that no longer exist are left out."""
        wanted = [int(id) for id in ids]
        found: dict[int, StoredPassage] = {}
        for at in range(0, len(wanted), BATCH):
            part = wanted[at : at + BATCH]
            for row in self.rows(f"{_STORED} WHERE p.id IN ({','.join('?' * len(part))})", part):
                row["path"] = tuple(json.loads(row["path"]))
                found[row["id"]] = StoredPassage(**row)
        return [found[id] for id in wanted if id in found]

    def passages_without_vector(self, model: str) -> Iterator[tuple[int, str, str]]:
        """(id, heading, text) of every passage that ``model`` has not embedded yet; vectors may be added meanwhile."""
        last = -1
        while rows := self.rows(
            """SELECT id, heading, text FROM passages WHERE id > ? AND NOT EXISTS
               (SELECT 1 FROM vectors WHERE passage = passages.id AND model = ?) ORDER BY id LIMIT ?""",
            [last, model, BATCH],
        ):
            for row in rows:
                yield row["id"], row["heading"], row["text"]
            last = rows[-1]["id"]

    def add_vectors(self, model: str, ids: Sequence[int], vectors: np.ndarray) -> int:
        """Store one float16 row per id, in one transaction; ids of passages that are gone are passed over."""
        if len(ids) != len(vectors):
            raise ValueError(f"{len(ids)} ids for {len(vectors)} vectors")
        rows = np.ascontiguousarray(vectors, dtype=np.float16)  # (n, d)
        with self.transaction() as db:
            return db.conn.executemany(
                "INSERT OR REPLACE INTO vectors SELECT ?1, ?2, ?3 WHERE EXISTS (SELECT 1 FROM passages WHERE id = ?1)",
                [(int(id), model, row.tobytes()) for id, row in zip(ids, rows, strict=True)],
            ).rowcount

    def iter_vectors(self, model: str) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Batches of (int64 ids, float16 vectors of shape (n, d)), by id."""
        last = -1
        while rows := self.rows(
            "SELECT passage, vector FROM vectors WHERE model = ? AND passage > ? ORDER BY passage LIMIT ?",
            [model, last, BATCH],
        ):
            ids = np.array([row["passage"] for row in rows], dtype=np.int64)
            yield ids, np.frombuffer(b"".join(row["vector"] for row in rows), dtype=np.float16).reshape(len(ids), -1)
            last = rows[-1]["passage"]

    def drop_stale_vectors(self, model: str) -> int:
        """Drop the vectors of every other model; returns how many.  Those of deleted passages went with them."""
        with self.transaction() as db:
            return db.execute("DELETE FROM vectors WHERE model != ?", [model]).rowcount


def _json(values: Sequence[str]) -> str:
    return json.dumps(list(values), ensure_ascii=False)
