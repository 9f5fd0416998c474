"""`python -m examples.chat`: serve the chat at WS_HOST and WS_PORT until SIGINT or SIGTERM."""

from __future__ import annotations

import logging
import sys

from examples.chat.app import app, broker
from velocity_ws import Server


def main() -> None:
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    # The access log has the query of plain requests, and here a query holds the token.
    logging.getLogger("uvicorn").setLevel(logging.WARNING)
    host, port = broker.settings.host, broker.settings.port
    print(f"velocity-ws chat: http://{host}:{port}/  (Ctrl+C stops it)", flush=True)
    try:
        Server(broker, app).run()
    except OSError as error:
        sys.exit(f"cannot listen on {host}:{port}: {error.strerror}. WS_PORT sets another port.")


if __name__ == "__main__":
    main()
