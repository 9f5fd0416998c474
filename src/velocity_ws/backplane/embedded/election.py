"""Who runs the embedded server: a lock, and a file that tells the others the way in.

Knows files and locks; knows nothing of what the server carries, nor of event loops.
"""

from __future__ import annotations

import atexit
import contextlib
import fcntl
import json
import os
import signal
import stat
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from typing import NamedTuple

from velocity_ws.backplane.embedded.process import USER, Child, url_of, write
from velocity_ws.logs import get_logger

__all__ = ["Host", "WayIn", "host_of"]

log = get_logger("velocity_ws.embedded")


class WayIn(NamedTuple):
    """How to get to a server, and how to know that it is the one."""

    url: str
    server_name: str


class Host:
    """The server of one name, as this process has it: its own, or somebody else's."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._users = 0
        self._mutex = threading.Lock()
        self._locks: list[int] = []
        self._child: Child | None = None
        self._port = 0
        self._directory: Path | None = None

    def join(self) -> None:
        """Somebody in this process may need it from now on."""
        with self._mutex:
            self._users += 1

    def leave(self) -> None:
        """Somebody who joined needs it no more; the last one ends it, where it is this process's."""
        with self._mutex:
            self._users -= 1
            if not self._users:
                self._stop()

    def way_in(self, may_run: bool = True) -> WayIn | None:
        """Where the server is. ``None`` where it is not there yet: ask again.

        Args:
            may_run: whether it is started here where nobody runs it.

        Raises:
            PermissionError: the directory of the files belongs to somebody else, or is open to others.
            ConnectionError: it was started here, and has ended.
        """
        with self._mutex:
            self._mend()
            if not may_run and not self._locks:
                return _found(self._name)
            directory = self._directory if self._locks and self._directory is not None else _directory()
            self._directory = directory
            told = directory / f"{self._name}.json"
            if not self._locks:
                self._locks = _try_lock(directory, self._name)
                if not self._locks:
                    return _read(told)
                self._take_over(told)
            try:
                child = self._running(directory, told)
            except OSError:
                self._unlock()  # another may be able to
                raise
            if not child.port and child.look():
                self._port = child.port
                write(told, json.dumps(_told(child)))
                log.info("started the embedded engine %s on 127.0.0.1:%d", self._name, child.port)
            return self._way_in(child) if child.port else None

    def check(self) -> None:
        """See that others still find what this process holds, as cleaners of temporary files remove what is in use.

        What they took is put back. Where another process has begun to run a server meanwhile, this one ends its own,
        and those who are connected to it go there. To be called every second or so.
        """
        with self._mutex:
            self._mend()

    def stop(self) -> None:
        """End the server, where it is this process's, and let others take over."""
        with self._mutex:
            self._stop()

    def forget(self) -> None:
        """This is a fork of the process that had it. The lock is shared with that one until it is closed here."""
        self._mutex = threading.Lock()
        self._users = 0
        self._unlock()
        if self._child is not None:
            self._child.disown()
            self._child = None

    def _mend(self) -> None:
        if not self._locks:
            return
        try:
            directory = _directory()
            told = directory / f"{self._name}.json"
            if not _is_at(self._locks[0], directory / f"{self._name}.lock"):
                locks = _try_lock(directory, self._name)
                self._unlock()
                self._locks, self._directory = locks, directory
                what = "put back" if locks else "another process's now, which this one joins"
                log.warning("the lock of the embedded engine %s was removed; it is %s", self._name, what)
            if not self._locks:
                self._stop()
            elif self._child is not None and self._child.port and _read(told) != self._way_in(self._child):
                write(told, json.dumps(_told(self._child)))
        except OSError as error:  # nobody else can have it either, as long as that lasts
            log.debug("the files of the embedded engine %s cannot be looked at: %s", self._name, error)

    def _take_over(self, told: Path) -> None:
        """What the one before told leads nowhere, or to whoever has its port by now: nobody is to read it any more."""
        before = _load(told)
        told.unlink(missing_ok=True)
        port, pid = before.get("port"), before.get("pid")
        self._port = port if isinstance(port, int) else 0
        if sys.platform != "linux" and isinstance(pid, int):
            _end_orphan(pid)

    def _running(self, directory: Path, told: Path) -> Child:
        """Its process; another one where that has ended."""
        child = self._child
        if child is not None and not child.is_running():
            self._child = None
            told.unlink(missing_ok=True)
            if child.port:
                log.warning("the embedded engine %s ended, and is started again", self._name)
            elif self._port:
                self._port = 0  # somebody else has it
            else:
                raise ConnectionError(f"the embedded engine {self._name} does not start; {child.log} says why")
        if self._child is None:
            self._child = Child(directory, self._name, self._port)
        return self._child

    def _way_in(self, child: Child) -> WayIn:
        return WayIn(url_of(child.port, child.password), child.server_name)

    def _stop(self) -> None:
        if self._child is not None:
            self._child.stop()
            self._child = None
        self._unlock()

    def _unlock(self) -> None:
        for descriptor in self._locks:
            os.close(descriptor)
        self._locks = []


_hosts: dict[str, Host] = {}


def host_of(name: str) -> Host:
    """The one of that name in this process."""
    return _hosts.setdefault(name, Host(name))


@atexit.register
def _stop_all() -> None:
    for host in list(_hosts.values()):
        host.stop()


def _forget_all() -> None:
    for host in _hosts.values():
        host.forget()


os.register_at_fork(after_in_child=_forget_all)


def _directory() -> Path:
    """Where the files are: only this user can look into it."""
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    if runtime and Path(runtime).is_dir():
        path = Path(runtime, "velocity-ws")
    else:
        path = Path(tempfile.gettempdir(), f"velocity-ws-{os.getuid()}")
    with contextlib.suppress(FileExistsError):
        path.mkdir(0o700)
    found = path.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o077:
        raise PermissionError(f"{path} must be a directory of this user's that nobody else can enter; remove it")
    return path


def _try_lock(directory: Path, name: str) -> list[int]:
    """The descriptors that hold the lock, until they are closed or this process ends; none where another holds it."""
    path = directory / f"{name}.lock"
    lock = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(lock)
        if isinstance(error, BlockingIOError):
            return []
        raise
    if not _is_at(lock, path):  # it was removed before it was locked
        os.close(lock)
        return []
    # While the directory is locked too, systemd's cleaning of old temporary files leaves it alone.
    guard = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    with contextlib.suppress(BlockingIOError):
        fcntl.flock(guard, fcntl.LOCK_SH | fcntl.LOCK_NB)
    return [lock, guard]


def _is_at(descriptor: int, path: Path) -> bool:
    """Whether a file that is open is the one of that name."""
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False


def _load(path: Path) -> dict[str, object]:
    try:
        found = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _told(child: Child) -> dict[str, object]:
    name, password = child.server_name, child.password
    return {"port": child.port, "user": USER, "password": password, "server_name": name, "pid": child.pid}


def _read(told: Path) -> WayIn | None:
    found = _load(told)
    port, password, name = found.get("port"), found.get("password"), found.get("server_name")
    if isinstance(port, int) and isinstance(password, str) and isinstance(name, str):
        return WayIn(url_of(port, password), name)
    return None


def _found(name: str) -> WayIn | None:
    """The way in that another process told, whose environment may have had it put its files elsewhere."""
    for directory in _places():
        if directory.is_dir() and directory.stat().st_uid == os.getuid():
            way_in = _read(directory / f"{name}.json")
            if way_in is not None and not _is_free(directory / f"{name}.lock"):
                return way_in
    return None


def _is_free(path: Path) -> bool:
    """Whether nobody holds a lock: what its holder told leads nowhere."""
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


def _places() -> list[Path]:
    """Where the files may be: of a session, or without one."""
    runtime = os.environ.get("XDG_RUNTIME_DIR") or f"/run/user/{os.getuid()}"
    return [Path(runtime, "velocity-ws"), Path(tempfile.gettempdir(), f"velocity-ws-{os.getuid()}")]


def _end_orphan(pid: int) -> None:
    """End a server whose owner died, where the system does not do that by itself."""
    command = ["ps", "-o", "comm=", "-p", str(pid)]
    name = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - nothing from outside
    if "nats-server" in name.stdout:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
