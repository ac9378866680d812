"""One ingest at a time: a lock on the data folder."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from corpus.errors import Locked, StoreError


@contextmanager
def ingest_lock(folder: str | Path) -> Iterator[None]:
    """Hold ``folder/ingest.lock`` while writing; raises ``Locked`` when another process holds it.

    ``flock`` belongs to the process: the system releases it however the process ends, kill -9 included, so a lock
    file that is merely lying about locks nobody out.
    """
    import fcntl  # here, because Windows has none and only ingestion needs it

    path = Path(folder) / "ingest.lock"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise StoreError(f"Cannot write to the data folder {folder}: {error.strerror}.") from error
    try:
        for patience in (*[0.05] * 5, None):  # s; somebody may only be looking whether it is free
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if patience is not None:
                    time.sleep(patience)
        else:
            pid = os.read(handle, 32).decode("ascii", "replace").strip() or "unknown"
            raise Locked(f"Another ingest (process {pid}) is writing to {folder}; wait until it is done.") from None
        os.ftruncate(handle, 0)
        os.write(handle, f"{os.getpid()}\n".encode())
        yield
    finally:
        os.close(handle)  # releases the lock; the file stays, since removing it would race with a third process


def is_locked(folder: str | Path) -> bool:
    """Whether a process holds ``ingest_lock`` of ``folder``, in this container or another one that shares it."""
    try:
        import fcntl
    except ImportError:  # then nobody can hold it
        return False
    try:
        handle = os.open(Path(folder) / "ingest.lock", os.O_RDONLY)
    except OSError:
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
        return False
    except BlockingIOError:
        return True
    finally:
        os.close(handle)
