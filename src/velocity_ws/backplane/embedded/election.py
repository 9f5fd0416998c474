"""Election: which process runs the embedded server of a name: the one that has its lock; the others read its address.

Knows nothing of what the server carries, nor of event loops.
"""

from __future__ import annotations

import atexit
import os
import sys
import threading
from pathlib import Path

from velocity_ws.backplane.embedded.files import (
    ServerAddress,
    address_of,
    engine_directory,
    find_address,
    is_at,
    load,
    read_address,
    try_lock,
    write_address,
)
from velocity_ws.backplane.embedded.process import EngineProcess, end_orphan
from velocity_ws.logs import get_logger

__all__ = ["Election", "election_of"]

log = get_logger("velocity_ws.backplane")


class Election:
    """The server of one name, as this process sees it: its own, or another process's. From any thread."""

    def __init__(self, name: str) -> None:
        """
        Args:
            name: the server's; what the names of its files begin with.
        """
        self._name = name
        self._holders = 0
        self._store: str | None = None
        self._mutex = threading.Lock()
        self._locks: list[int] = []
        self._process: EngineProcess | None = None
        self._port = 0
        self._directory: Path | None = None

    def hold(self, store: str | None = "") -> None:
        """Need the server from now on, until `release`.

        Args:
            store: the directory in which it shall keep what it stores; empty for memory, ``None`` for any.

        Raises:
            ConnectionError: this process needs it with another one.
        """
        with self._mutex:
            if store is not None and self._store not in (None, store):
                raise self._conflict(self._store or "", store)
            self._store = self._store if store is None else store
            self._holders += 1

    def release(self) -> None:
        """Give the server back. The last one in this process that does so ends it, where this process runs it."""
        with self._mutex:
            self._holders -= 1
            if not self._holders:
                self._stop()
                self._store = None

    def address(self, may_run: bool = True) -> ServerAddress | None:
        """Where the server is, which is started here where no process runs it. ``None`` while it starts: ask again.

        Args:
            may_run: whether it may be started here.

        Raises:
            PermissionError: the directory of the files, or of the store, belongs to another user, or is open to others.
            ConnectionError: it was started here, and has ended; or it keeps what it stores in another directory.
        """
        with self._mutex:
            self._mend()
            if not may_run and not self._locks:
                return self._agreed(find_address(self._name))
            directory = self._directory if self._locks and self._directory is not None else engine_directory()
            self._directory = directory
            told = directory / f"{self._name}.json"
            if not self._locks:
                self._locks = try_lock(directory, self._name)
                if not self._locks:
                    return self._agreed(read_address(told))
                self._take_over(told)
            try:
                process = self._running(directory, told)
            except OSError:
                self._unlock()  # another process may be able to
                raise
            if not process.port and process.look():
                self._port = process.port
                _tell(told, process)
                log.info("started the embedded engine %s on 127.0.0.1:%d", self._name, process.port)
            return _address_of(process) if process.port else None

    def check(self) -> None:
        """Check that others still find this process's server, as cleaners of temporary files remove what is in use.

        What they took is put back. Where another process has begun to run a server meanwhile, this one ends its own,
        and the connections to it go there. To be called every second or so.
        """
        with self._mutex:
            self._mend()

    def stop(self) -> None:
        """End the server, where this process runs it, and let another process take over."""
        with self._mutex:
            self._stop()

    def forget(self) -> None:
        """Let go of everything, in a fork of the process that had it: the lock is shared until it is closed here."""
        self._mutex = threading.Lock()
        self._holders = 0
        self._store = None
        self._unlock()
        if self._process is not None:
            self._process.disown()
            self._process = None

    def _agreed(self, address: ServerAddress | None) -> ServerAddress | None:
        """The address of another process's server; it must be one that this process would run itself."""
        if address is not None and self._store not in (None, address.store):
            raise self._conflict(address.store, self._store or "")
        return address

    def _conflict(self, found: str, wanted: str) -> ConnectionError:
        there, here = (f"keeps its logs in {each}" if each else "has no store" for each in (found, wanted))
        return ConnectionError(
            f"embedded://{self._name} on this machine {there}, and that of this URL {here}; "
            "give all of its processes the same URL, or this one another name"
        )

    def _mend(self) -> None:
        if not self._locks:
            return
        try:
            directory = engine_directory()
            told = directory / f"{self._name}.json"
            if not is_at(self._locks[0], directory / f"{self._name}.lock"):
                locks = try_lock(directory, self._name)
                self._unlock()
                self._locks, self._directory = locks, directory
                what = "put back" if locks else "another process's now, which this one joins"
                log.warning("the lock of the embedded engine %s was removed; it is %s", self._name, what)
            if not self._locks:
                self._stop()
            elif self._process is not None and self._process.port and read_address(told) != _address_of(self._process):
                _tell(told, self._process)
        except OSError as error:  # no other process can have it either, as long as that lasts
            log.debug("the files of the embedded engine %s cannot be looked at: %s", self._name, error)

    def _take_over(self, told: Path) -> None:
        """Remove what the process before wrote: it leads nowhere, or to another server that has the port by now."""
        before = load(told)
        told.unlink(missing_ok=True)
        port, pid = before.get("port"), before.get("pid")
        self._port = port if isinstance(port, int) else 0
        if sys.platform != "linux" and isinstance(pid, int):
            end_orphan(pid)

    def _running(self, directory: Path, told: Path) -> EngineProcess:
        """The process of the server; a new one where that has ended."""
        process = self._process
        if process is not None and not process.is_running():
            self._process = None
            told.unlink(missing_ok=True)
            if process.port:
                log.warning("the embedded engine %s ended, and is started again", self._name)
            elif self._port:
                self._port = 0  # another program has it
            else:
                raise ConnectionError(f"the embedded engine {self._name} does not start; {process.log} says why")
        if self._process is None:
            self._process = EngineProcess(directory, self._name, self._port, self._store or "")
        return self._process

    def _stop(self) -> None:
        if self._process is not None:
            self._process.stop()
            self._process = None
        self._unlock()

    def _unlock(self) -> None:
        for descriptor in self._locks:
            os.close(descriptor)
        self._locks = []


_elections: dict[str, Election] = {}


def election_of(name: str) -> Election:
    """The election of a name in this process."""
    return _elections.setdefault(name, Election(name))


@atexit.register
def _stop_all() -> None:
    for election in list(_elections.values()):
        election.stop()


def _forget_all() -> None:
    for election in _elections.values():
        election.forget()


os.register_at_fork(after_in_child=_forget_all)


def _tell(path: Path, process: EngineProcess) -> None:
    write_address(path, process.port, process.password, process.server_name, process.pid, process.store)


def _address_of(process: EngineProcess) -> ServerAddress:
    return address_of(process.port, process.password, process.server_name, process.store)
