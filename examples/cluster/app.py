"""The chat as an application that any number of workers can serve."""

from __future__ import annotations

from examples.chat.app import app, broker

__all__ = ["app"]

broker.attach(app)
