"""Files: how the processes of one user on one machine find the embedded server: a lock, and a file with its address.

Knows files and locks, and neither the server's process nor event loops. Two releases may meet here: the names of the
files and the fields in them stay.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import stat
import tempfile
from pathlib import Path
from typing import NamedTuple

__all__ = [
    "USER",
    "ServerAddress",
    "address_of",
    "engine_directory",
    "find_address",
    "is_at",
    "load",
    "lock_store",
    "read_address",
    "replace_file",
    "try_lock",
    "write_address",
]

USER = "velocity"
"""The server's only user."""


class ServerAddress(NamedTuple):
    """How to connect to a server, and how to know that it is the one.

    Attributes:
        url: with user and password.
        server_name: what the server calls itself, which tells it from others that may get its port.
        store: the directory in which it keeps what it stores; empty where that is memory.
    """

    url: str
    server_name: str
    store: str = ""


def engine_directory() -> Path:
    """The directory of the files, made where it is missing; only this user can look into it.

    Raises:
        PermissionError: it belongs to another user, or is open to others.
    """
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    if runtime and Path(runtime).is_dir():
        path = Path(runtime, "velocity-ws")
    else:
        path = Path(tempfile.gettempdir(), f"velocity-ws-{os.getuid()}")
    _make_private(path)
    return path


def _make_private(path: Path) -> None:
    """Make a directory that only this user can enter, or check that one that is there is so.

    Raises:
        PermissionError: it belongs to another user, or is open to others.
    """
    with contextlib.suppress(FileExistsError):
        path.mkdir(0o700)
    found = path.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o077:
        raise PermissionError(f"{path} must be a directory of this user's that nobody else can enter (mode 0700)")


def replace_file(path: Path, text: str) -> None:
    """Replace a file at once, with one that only this user can read."""
    new = path.with_name(f"{path.name}.{os.getpid()}")
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
    new.replace(path)


# --- the lock


def try_lock(directory: Path, name: str) -> list[int]:
    """Try to take the lock of a name.

    Returns:
        The descriptors that hold it, until they are closed or this process ends; none where another process holds it.
    """
    path = directory / f"{name}.lock"
    lock = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(lock)
        if isinstance(error, BlockingIOError):
            return []
        raise
    if not is_at(lock, path):  # it was removed before it was locked
        os.close(lock)
        return []
    # While the directory is locked too, systemd's cleaning of old temporary files leaves it alone.
    guard = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    with contextlib.suppress(BlockingIOError):
        fcntl.flock(guard, fcntl.LOCK_SH | fcntl.LOCK_NB)
    return [lock, guard]


def lock_store(path: Path) -> int:
    """Lock the directory in which a server keeps what it stores; made where it is missing, but not those above it.

    Returns:
        The descriptor that holds the lock. The server inherits it, so that it is locked until that server has ended,
        whatever becomes of the process that started it.

    Raises:
        PermissionError: it belongs to another user, or is open to others.
        ConnectionError: another server has it, which may be about to end.
    """
    _make_private(path)
    lock = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        raise ConnectionError(f"another embedded engine keeps its logs in {path}; each needs its own") from None
    except OSError:
        os.close(lock)
        raise
    return lock


def is_at(descriptor: int, path: Path) -> bool:
    """Whether a file that is open is the one at a path, and not one that was removed there."""
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False


def _is_free(path: Path) -> bool:
    """Whether no process holds a lock, so that what its last holder wrote leads nowhere."""
    try:
        lock = os.open(path, os.O_RDWR)
    except OSError:
        return True
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    finally:
        os.close(lock)
    return True


# --- the address


def write_address(path: Path, port: int, password: str, server_name: str, pid: int, store: str = "") -> None:
    """Write the file that tells others how to connect to the server."""
    fields = {"port": port, "user": USER, "password": password, "server_name": server_name, "pid": pid}
    if store:
        fields["store"] = store
    replace_file(path, json.dumps(fields))


def read_address(path: Path) -> ServerAddress | None:
    """Read the file that tells how to connect; ``None`` where there is none, or not all of it."""
    found = load(path)
    port, password, name = found.get("port"), found.get("password"), found.get("server_name")
    if isinstance(port, int) and isinstance(password, str) and isinstance(name, str):
        return address_of(port, password, name, str(found.get("store", "")))
    return None


def address_of(port: int, password: str, server_name: str, store: str = "") -> ServerAddress:
    """The address of a server on this machine."""
    return ServerAddress(f"nats://{USER}:{password}@127.0.0.1:{port}", server_name, store)


def find_address(name: str) -> ServerAddress | None:
    """The address that another process has written, whose environment may have had it put its files elsewhere."""
    for directory in _places():
        if directory.is_dir() and directory.stat().st_uid == os.getuid():
            address = read_address(directory / f"{name}.json")
            if address is not None and not _is_free(directory / f"{name}.lock"):
                return address
    return None


def load(path: Path) -> dict[str, object]:
    """The fields of a JSON file; none where it cannot be read."""
    try:
        found = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _places() -> list[Path]:
    """Where the files may be: of a login session, or without one."""
    runtime = os.environ.get("XDG_RUNTIME_DIR") or f"/run/user/{os.getuid()}"
    return [Path(runtime, "velocity-ws"), Path(tempfile.gettempdir(), f"velocity-ws-{os.getuid()}")]
