"""``python -m examples.collab``: serve it at ``WS_HOST`` and ``WS_PORT``. Several workers: ``velocity-ws run``."""

from examples.collab.app import app
from examples.collab.realtime import broker
from velocity_ws import Server

if __name__ == "__main__":
    print(f"collab: http://{broker.settings.host}:{broker.settings.port}/ (log in as ann, bob or cat)", flush=True)
    Server(broker, app).run()
