"""The tables of an archive, and the way from an older format to this one."""

from __future__ import annotations

APPLICATION_ID = 0x43495249  # "CIRI" in the file's header: tells our archives from other SQLite files
SCHEMA_VERSION = 2

# The trigger also fires for rows that ON DELETE CASCADE removes, so the full-text index cannot go stale.
SCHEMA = (
    """CREATE TABLE sources (
        id TEXT PRIMARY KEY, api TEXT NOT NULL DEFAULT '', site_name TEXT NOT NULL DEFAULT '',
        rights TEXT NOT NULL DEFAULT '', rights_url TEXT NOT NULL DEFAULT '', base_url TEXT NOT NULL DEFAULT '',
        generator TEXT NOT NULL DEFAULT '', last_run TEXT NOT NULL DEFAULT '')""",
    """CREATE TABLE pages (
        id INTEGER PRIMARY KEY, source TEXT NOT NULL REFERENCES sources(id) ON DELETE CASCADE,
        pageid INTEGER NOT NULL, title TEXT NOT NULL, display_title TEXT NOT NULL, revid INTEGER NOT NULL,
        url TEXT NOT NULL, fetched_at TEXT NOT NULL, sha TEXT NOT NULL, html BLOB NOT NULL,
        categories TEXT NOT NULL, canon TEXT NOT NULL, kind TEXT NOT NULL, revised_at TEXT NOT NULL DEFAULT '',
        UNIQUE (source, pageid))""",
    # Dates stand behind the raw text in a page's row: without an index, asking for the newest reads the whole file.
    "CREATE INDEX pages_revised ON pages (source, revised_at)",
    """CREATE TABLE aliases (
        page INTEGER NOT NULL REFERENCES pages(id) ON DELETE CASCADE, alias TEXT NOT NULL,
        redirect INTEGER NOT NULL, stated INTEGER NOT NULL, PRIMARY KEY (page, alias))""",
    """CREATE TABLE sections (
        page INTEGER NOT NULL REFERENCES pages(id) ON DELETE CASCADE, ordinal INTEGER NOT NULL,
        path TEXT NOT NULL, canon TEXT NOT NULL, text TEXT NOT NULL, "references" TEXT NOT NULL,
        PRIMARY KEY (page, ordinal))""",
    """CREATE TABLE facts (
        page INTEGER NOT NULL REFERENCES pages(id) ON DELETE CASCADE, ordinal INTEGER NOT NULL,
        key TEXT NOT NULL, label TEXT NOT NULL, "values" TEXT NOT NULL, canon TEXT NOT NULL,
        PRIMARY KEY (page, ordinal))""",
    """CREATE TABLE quotes (
        page INTEGER NOT NULL REFERENCES pages(id) ON DELETE CASCADE, section INTEGER NOT NULL,
        text TEXT NOT NULL, attribution TEXT NOT NULL)""",
    "CREATE INDEX quotes_page ON quotes (page)",
    """CREATE TABLE passages (
        id INTEGER PRIMARY KEY, page INTEGER NOT NULL REFERENCES pages(id) ON DELETE CASCADE,
        section INTEGER NOT NULL, start INTEGER NOT NULL, "end" INTEGER NOT NULL, heading TEXT NOT NULL,
        title TEXT NOT NULL, path TEXT NOT NULL, text TEXT NOT NULL, canon TEXT NOT NULL)""",
    "CREATE INDEX passages_page ON passages (page)",
    """CREATE VIRTUAL TABLE passages_fts USING fts5 (
        title, aliases, heading, body, tokenize = 'porter unicode61 remove_diacritics 2')""",
    """CREATE TRIGGER passages_gone AFTER DELETE ON passages BEGIN
        DELETE FROM passages_fts WHERE rowid = old.id; END""",
    """CREATE TABLE vectors (
        passage INTEGER NOT NULL REFERENCES passages(id) ON DELETE CASCADE, model TEXT NOT NULL,
        vector BLOB NOT NULL, PRIMARY KEY (passage, model))""",
    f"PRAGMA application_id = {APPLICATION_ID}",
    f"PRAGMA user_version = {SCHEMA_VERSION}",
)

# Statements that take an archive from the version named to the next one.
MIGRATIONS = {
    1: (
        "ALTER TABLE pages ADD COLUMN revised_at TEXT NOT NULL DEFAULT ''",
        "CREATE INDEX pages_revised ON pages (source, revised_at)",
    )
}
