"""``embedded://name``: a NATS server for all processes of a user on one machine, with nothing to install or run.

Knows when to ask for a server and when to give it back, and not which process runs it. The process that holds the lock
of the name runs the server; the others find it by a file that only their user can read. When that process dies, the
server dies too and the lock is free: the next process that connects takes it and starts another.
"""

from __future__ import annotations

import asyncio
import os.path

from velocity_ws.backplane.base import Lost, Receive
from velocity_ws.backplane.embedded.election import Election, election_of
from velocity_ws.backplane.embedded.files import ServerAddress
from velocity_ws.backplane.embedded.process import program
from velocity_ws.backplane.nats import NatsBackplane
from velocity_ws.backplane.urls import options_of
from velocity_ws.errors import SettingsError

__all__ = ["EmbeddedBackplane"]

START_TIMEOUT = 5.0
"""Seconds that the server may take to be there, in whichever process it starts."""
LOOK_INTERVAL = 0.01
"""Seconds between two looks whether it is there."""
GRACE = 1.0
"""Seconds after which the log tells that the server is gone: it ends with the process that runs it, which may be one of
several that are being stopped."""
CHECK_INTERVAL = 1.0
"""Seconds between two checks that others find the server, where this process runs it."""


class EmbeddedBackplane(NatsBackplane):
    """A connection to the server of a name, which this process may be the one to run. On the broker's loop only.

    The server ends with the process that runs it, and when that process gives it back by `release`. The connections
    that are left are lost then; the first process to connect again starts another, within a fraction of a second.

    Attributes:
        grace: seconds after which the log tells that the server is gone; `GRACE`.
    """

    grace = GRACE

    def __init__(self, url: str, *, may_run: bool = True) -> None:
        """
        Args:
            url: ``embedded://``, or with a name, where several applications of one user shall be apart; with
                ``?store=`` and a directory, where the server shall keep on disk what it stores.
            may_run: whether this process may run the server; else it only looks for one that does.

        Raises:
            SettingsError: nats-server is not installed.
        """
        if program() is None:
            problem = "nats-server is not installed; pip install 'velocity-ws[embedded]'"
            raise SettingsError({"WS_BACKPLANE_URL": problem})
        super().__init__("nats://")
        self._may_run = may_run
        base, options = options_of(url)
        self._name = base.partition("://")[2] or "default"
        self._store = os.path.normpath(options["store"]) if "store" in options else "" if may_run else None
        self._election: Election | None = None
        self._check: asyncio.TimerHandle | None = None

    async def connect(self, receive: Receive, lost: Lost) -> None:
        """See `Backplane.connect`. Starts the server where no process runs one, and waits until it is there.

        On Linux the server is killed when the thread that runs this loop ends, for the system takes that for the
        process; it is started again by the next `connect` then.

        Raises:
            PermissionError: the directory of the files, or of the store, belongs to another user, or is open to others.
            ConnectionError: the server cannot be started, or keeps what it stores in another directory.
        """
        address = await self.find()
        self.servers = [address.url]
        await super().connect(receive, lost)
        if self.server_name != address.server_name:
            await self.close()
            raise ConnectionError("another server has the port of the embedded engine")
        self._check_later()

    async def find(self) -> ServerAddress:
        """Find the server, which is needed from then on, until `release`; see `connect`."""
        if self._election is None:
            election = election_of(self._name)
            election.hold(self._store)
            self._election = election
        deadline = asyncio.get_running_loop().time() + START_TIMEOUT
        while (address := self._election.address(self._may_run)) is None:
            if not self._may_run:
                raise ConnectionError(f"no process of this user runs embedded://{self._name} on this machine")
            if asyncio.get_running_loop().time() > deadline:
                raise TimeoutError(f"the embedded engine was not there within {START_TIMEOUT:g} s")
            await asyncio.sleep(LOOK_INTERVAL)
        return address

    def _check_later(self) -> None:
        self._check = asyncio.get_running_loop().call_later(CHECK_INTERVAL, self._check_now)

    def _check_now(self) -> None:
        if self._election is not None:
            self._check_later()
            self._election.check()

    async def close(self) -> None:
        """See `Backplane.close`."""
        if self._check is not None:
            self._check.cancel()
            self._check = None
        await super().close()

    def release(self) -> None:
        """See `Backplane.release`. The last one in this process ends the server, where this process runs it."""
        election, self._election = self._election, None
        if election is not None:
            election.release()
