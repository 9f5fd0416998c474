"""Hints: what the log says once about how a broker is used. Knows no connection."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence

from velocity_ws.backplane.urls import ALONE
from velocity_ws.hooks.hook import Hook
from velocity_ws.logs import CountedWarnings, get_logger, hint, printable, quote
from velocity_ws.messages.outbound import PreparedMessage, event_of
from velocity_ws.process.siblings import count_workers
from velocity_ws.settings import Settings

__all__ = ["Hints"]

log = get_logger("velocity_ws.sessions")

MAX_LARGE = 100
"""Events of which it is logged that their messages are large: names may come from strangers."""
MAX_NAMED = 20
"""Events without a handler that are named."""
MAX_LISTED = 20
"""Events with one that are listed beside."""
_alone = 0  # the process that has said so

_said_faster_way = 0  # the same
_misspelled: set[tuple[int, str]] = set()  # the processes that have said so, and of what


class Hints:
    """The hints of one broker: each is logged the first time that it is given. On the broker's loop only."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._has_subprotocols = False
        self._large: set[str] = set()
        self._unhandled: set[str] = set()
        self._invalid: set[str] = set()
        self._closed_kinds: set[str] = set()
        self._unknown_rooms: set[str] = set()
        self._nameless: set[str] = set()
        self._has_binary = False
        self._limits = CountedWarnings(log)

    def faster_way(self) -> None:
        """There is a cheaper way to be served; once for a process."""
        global _said_faster_way  # noqa: PLW0603 - as with `alone`
        if _said_faster_way != os.getpid():
            _said_faster_way = os.getpid()
            hint(
                log,
                "this server carries messages one by one; `velocity-ws run` or `velocity-ws dev` (or `uvicorn --ws "
                "velocity_ws.uvicorn:WebSocketProtocol --http velocity_ws.uvicorn:HTTPProtocol`) halves the CPU of a "
                "message, and adds pings and a clean stop",
            )

    def no_subprotocol_fits(self) -> None:
        """Clients offer subprotocols that are not known; not said is which, as they may be tokens."""
        if not self._has_subprotocols:
            self._has_subprotocols = True
            log.warning(
                "a client offered subprotocols of which WS_SUBPROTOCOLS has none (it is %r), so none was selected: a "
                "browser gives such a connection up (1006), and reads no close code; name the one to select there",
                ",".join(self._settings.subprotocols),
            )

    def no_handler(
        self, event: str, events: Callable[[], list[str]], in_rooms: Sequence[str] = (), *, is_seen: bool
    ) -> None:
        """A message came whose event has no handler; once for each event, up to `MAX_NAMED`.

        Args:
            event: its name.
            events: tells those that have one.
            in_rooms: the patterns of rooms where it has one, if the message has named no room.
            is_seen: whether ``on_message`` hooks get it nevertheless, which may be meant.
        """
        if event in self._unhandled or len(self._unhandled) > MAX_NAMED:
            return
        self._unhandled.add(event)
        known = events()
        if is_seen and not known and not in_rooms:  # then on_message is how events are handled
            return
        if len(self._unhandled) > MAX_NAMED:
            log.warning("more than %d events have come that have no handler; further ones are not named", MAX_NAMED)
            return
        if in_rooms:
            kinds = ", ".join(map(_name, in_rooms[:MAX_LISTED])) + (", …" if len(in_rooms) > MAX_LISTED else "")
            log.warning(
                'no handler for event %s without a room, only in rooms %s: a message for them names its "room"',
                quote(event),
                kinds,
            )
            return
        there_are = ", ".join(map(_name, known[:MAX_LISTED])) + (", …" if len(known) > MAX_LISTED else "")
        if is_seen:
            hint(log, "no handler for event %s, only on_message hooks (there are: %s)", quote(event), there_are)
        else:
            log.warning("no handler for event %s (there are: %s)", quote(event), there_are or "none")

    def cannot_join(self, room: str, pattern: str | None) -> None:
        """A client asks to join a room that none can join by itself; once for each kind, up to `MAX_NAMED` others.

        Args:
            room: the room.
            pattern: of its kind, which has no ``authorize``; ``None`` where it is of no kind.
        """
        if pattern is not None:
            if pattern not in self._closed_kinds:
                self._closed_kinds.add(pattern)
                log.warning(
                    "a client asked to join %s, and is FORBIDDEN, as %s has no authorize: give the kind one "
                    "(@kind.authorize), or handle the event join yourself",
                    *(quote(room), f"broker.rooms({pattern!r})"),
                )
            return
        if room in self._unknown_rooms or len(self._unknown_rooms) > MAX_NAMED:
            return
        self._unknown_rooms.add(room)
        if len(self._unknown_rooms) > MAX_NAMED:
            log.warning("clients asked to join more than %d rooms of no kind; further ones are not named", MAX_NAMED)
            return
        log.warning(
            "a client asked to join %s, and is FORBIDDEN, as no kind of rooms has a pattern for it: add one by "
            "broker.rooms, with an authorize (@kind.authorize), or handle the event join yourself",
            quote(room),
        )

    def no_binary_hook(self) -> None:
        """A binary message came, and nothing takes it."""
        if not self._has_binary:
            self._has_binary = True
            log.warning("no on_binary hook for the binary messages that clients send")

    def invalid_data(self, event: str, handler: str, describe: Callable[[], str]) -> None:
        """A message's data was refused by the annotation of its handler; once for each event."""
        if event not in self._invalid:
            self._invalid.add(event)
            log.warning("the data of event %s does not fit its handler %s: %s", quote(event), handler, describe())

    def no_user_id(self, kind: type) -> None:
        """A user has none of the attributes that name one; once for each type."""
        name = kind.__qualname__
        if name not in self._nameless and len(self._nameless) < MAX_NAMED:
            self._nameless.add(name)
            log.warning(
                "the user of a client, of type %s, has no id, user_id or sub: client.user_id is None, and to_user "
                "and presence do not know it; Broker(user_id=...) takes a function that says what a user is called",
                name,
            )

    def large(self, message: PreparedMessage) -> None:
        """An event's message is larger than what some clients take; once for each event."""
        event = event_of(message)
        if event in self._large or len(self._large) >= MAX_LARGE:
            return
        self._large.add(event)
        log.warning(
            "a message of event %r has %d bytes, more than WS_WARN_MESSAGE_SIZE (%d): clients have limits of their "
            "own, such as 1 MiB, and close the connection over them; send it in parts, or say where it can be fetched",
            event,
            message.size,
            self._settings.warn_message_size,
        )

    def misspelled(self) -> None:
        """Variables that are no settings; once for a process."""
        for name, meant in self._settings.misspelled.items():
            if (os.getpid(), name) not in _misspelled:
                _misspelled.add((os.getpid(), name))
                log.warning("%s is no setting; did you mean %s?", printable(name), meant)

    # --- limits that were reached

    def slow_client(self, client_id: str) -> None:
        """A client was closed, or not sent something, as it does not read."""
        name, limit = "WS_SEND_QUEUE_SIZE", self._settings.send_queue_size
        if self._settings.slow_client == "drop":
            what = "client %s reads too slowly: what does not fit into %s (%d bytes) is dropped, and it is told later"
        else:
            what = "client %s reads too slowly, and was closed (1013): what waits for it is over %s (%d bytes)"
        self._limits.warn(name, what, client_id, name, limit)

    def too_big(self, client_id: str) -> None:
        """A client was closed for a message."""
        name = "WS_MAX_MESSAGE_SIZE"
        what = "client %s was closed (1009) for a message over %s (%d bytes)"
        self._limits.warn(name, what, client_id, name, self._settings.max_message_size)

    def too_many(self, client_id: str, why: str, hook: Hook | None, *, is_closed: bool) -> None:
        """A client's message was refused, or it was closed for those that were.

        Args:
            client_id: the id of the client.
            why: which limit it is.
            hook: the handler whose own limit it is; ``None`` if it is of the settings.
            is_closed: whether it was closed.
        """
        what = "was closed (1008), as it went on" if is_closed else "has a message refused"
        settings = self._settings
        limits = f"WS_RATE_LIMIT={settings.rate_limit:g}, WS_RATE_BURST={settings.rate_burst}, "
        limits += f"WS_RATE_BYTES={settings.rate_bytes}"
        if hook is not None:
            limits = f"{hook.name} has rate={hook.options.rate:g}, burst={hook.options.burst}"
        self._limits.warn(f"{why} {is_closed}", "client %s %s: %s (%s)", client_id, what, why, limits)

    def full(self, setting: str, who: str, extra: Mapping[str, object]) -> None:
        """A handshake was refused because of one of the limits of connections."""
        limit = getattr(self._settings, setting.removeprefix("WS_").lower())
        self._limits.warn(
            setting, "handshake of %s refused (503): %s (%d) is reached", who, setting, limit, extra=extra
        )

    def alone(self) -> None:
        """Processes side by side do not reach each other's clients; once for a process."""
        global _alone  # noqa: PLW0603 - there is one for the process, and one that was forked is another
        url = self._settings.backplane_url
        if url.startswith(ALONE) and _alone != os.getpid() and (count := count_workers()) > 1:
            _alone = os.getpid()
            log.warning(
                "each of %d worker processes has its own clients, as WS_BACKPLANE_URL is %s; embedded:// lets them "
                "reach each other's, as redis:// and nats:// do",
                count,
                url,
            )


def _name(event: str) -> str:
    return event if event.isprintable() else repr(event)
