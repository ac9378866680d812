"""A real MediaWiki for tests: Debian's package, installed into a temporary folder and served by PHP itself.

Import the ``mediawiki`` fixture (session-scoped) into a test module.  Needs ``apt-get install mediawiki php-cli
php-sqlite3 php-intl php-mbstring php-xml``; without them the tests are skipped and say so, or fail if
``CIRILLA_REQUIRE_MEDIAWIKI`` is set.  Installing takes about ten seconds, an edit about half a second.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

PACKAGE = Path("/usr/share/mediawiki")
PHP_MODULES = ("intl", "mbstring", "sqlite3", "xml", "pdo_sqlite")
EXTENSIONS = ("Cite",)  # footnotes; the other extensions stay behind, which halves the copy
SETTINGS = """
$wgRightsText = 'Creative Commons Attribution-ShareAlike 3.0';
$wgRightsUrl = 'https://creativecommons.org/licenses/by-sa/3.0/';
$wgCacheDirectory = __DIR__ . '/cache';
$wgMainCacheType = CACHE_NONE;
$wgJobRunRate = 0;
if ( ( $_GET['action'] ?? '' ) === 'parse' ) {
    usleep( (int)@file_get_contents( __DIR__ . '/pause' ) );
}
"""


def missing() -> str:
    """What a real MediaWiki lacks on this machine; empty when everything is there."""
    if not shutil.which("php"):
        return "php is not installed"
    if not (PACKAGE / "includes").is_dir():
        return f"no MediaWiki under {PACKAGE}"
    modules = subprocess.run(["php", "-m"], capture_output=True, text=True, check=True).stdout.lower().split()
    lacking = [module for module in PHP_MODULES if module not in modules]
    return f"php lacks the modules {', '.join(lacking)}" if lacking else ""


class MediaWikiServer:
    """A wiki of its own in ``folder``; pages are changed through MediaWiki's maintenance scripts."""

    def __init__(self, folder: Path) -> None:
        self.root = folder / "wiki"
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self._log = folder / "server.log"
        self._server: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Copy, install, serve."""
        # Debian's tree is full of links, some of them dangling (LocalSettings.php): copy what they point to.
        shutil.copytree(
            PACKAGE,
            self.root,
            ignore_dangling_symlinks=True,
            ignore=lambda folder, names: (
                {"LocalSettings.php", "extensions", "extensions-core", "images", "config"} & set(names)
                if Path(folder) == PACKAGE
                else set()
            ),
        )
        for name in EXTENSIONS:
            shutil.copytree(PACKAGE / "extensions" / name, self.root / "extensions" / name)
        for name in ("cache", "images", "data"):
            (self.root / name).mkdir()
        install = ["--dbtype", "sqlite", "--dbpath", str(self.root / "data"), "--server", self.url, "--scriptpath", ""]
        self._run("install.php", *install, "--pass", "long-enough-for-a-test", "Test Wiki", "Keeper")
        with open(self.root / "LocalSettings.php", "a") as settings:
            settings.write(SETTINGS + "".join(f"wfLoadExtension( '{name}' );\n" for name in EXTENSIONS))
        with open(self._log, "wb") as log:
            self._server = subprocess.Popen(
                ["php", "-S", f"127.0.0.1:{self.port}", "-t", str(self.root)],
                cwd=self.root,
                stdout=log,
                stderr=log,
                env={**os.environ, "PHP_CLI_SERVER_WORKERS": "2"},
                start_new_session=True,  # so that the workers can be stopped with it
            )
        self._await()

    def stop(self) -> None:
        if self._server:
            os.killpg(self._server.pid, 15)
            self._server.wait(timeout=10)
            self._server = None

    def edit(self, title: str, text: str) -> None:
        """Create a page or save a new revision of it."""
        self._run("edit.php", "--user", "Keeper", "--summary", "test", title, stdin=text)

    def edit_many(self, pages: Mapping[str, str]) -> None:
        """Like ``edit`` for many pages (plain titles only), with one start of PHP."""
        with tempfile.TemporaryDirectory() as folder:
            for title, text in pages.items():
                (Path(folder) / title).write_text(text)
            names = [str(Path(folder) / title) for title in pages]
            self._run("importTextFiles.php", "--user", "Keeper", "--overwrite", *names)

    def redirect(self, title: str, target: str) -> None:
        """Make ``title`` redirect to ``target``."""
        self.edit(title, f"#REDIRECT [[{target}]]")

    def delete(self, title: str) -> None:
        with tempfile.NamedTemporaryFile("w", suffix=".txt") as listing:
            listing.write(title + "\n")
            listing.flush()
            self._run("deleteBatch.php", "-u", "Keeper", listing.name)

    def pause(self, seconds: float) -> None:
        """Let each rendering take so much longer, for tests that must see a crawl on its way."""
        (self.root / "pause").write_text(f"{seconds * 1e6:.0f}")

    def served(self) -> list[str]:
        """Request lines that the server has logged so far."""
        return [line for line in self._log.read_text(errors="replace").splitlines() if "GET /" in line]

    def _run(self, script: str, *arguments: str, stdin: str = "") -> str:
        done = subprocess.run(
            ["php", f"maintenance/{script}", *arguments],
            cwd=self.root,
            input=stdin,
            capture_output=True,
            text=True,
            timeout=300,
        )
        if done.returncode:
            raise RuntimeError(f"{script} failed: {done.stdout[-1000:]} {done.stderr[-1000:]}")
        return done.stdout

    def _await(self) -> None:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            try:
                with urllib.request.urlopen(f"{self.url}/api.php?action=query&meta=siteinfo&format=json", timeout=30):
                    return
            except urllib.error.HTTPError as error:
                raise RuntimeError(f"MediaWiki does not work: {error.read()[:2000]!r}") from error
            except OSError:
                time.sleep(0.1)
        raise RuntimeError(f"MediaWiki did not start: {self._log.read_text()[-2000:]}")


@pytest.fixture(scope="session")
def mediawiki(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MediaWikiServer]:
    """A running, empty wiki (but for its main page), shared by the session's tests."""
    if reason := missing():
        if os.environ.get("CIRILLA_REQUIRE_MEDIAWIKI"):
            pytest.fail(f"a real MediaWiki is required here, but {reason}")
        pytest.skip(f"THE REAL MEDIAWIKI TESTS DID NOT RUN: {reason}")
    folder = tmp_path_factory.mktemp("mediawiki")
    server = MediaWikiServer(folder)
    try:
        server.start()
        yield server
    finally:
        server.stop()
        shutil.rmtree(folder, ignore_errors=True)  # a hundred megabytes a run
