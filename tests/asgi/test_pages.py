"""The path of a request, however servers and mounts write it; what a page says is tested where it is served."""

from __future__ import annotations

import pytest

from velocity_ws.asgi.pages import route_path


@pytest.mark.parametrize(
    ("path", "root", "route"),
    [
        ("/ws", "", "/ws"),
        ("/app/ws", "/app", "/ws"),
        ("/app/ws", "/app/", "/ws"),
        ("/app", "/app", ""),
        ("/ws", "/app", "/ws"),
        ("/application/ws", "/app", "/application/ws"),
    ],
)
def test_a_root_is_taken_off_where_the_server_left_it(path: str, root: str, route: str) -> None:
    assert route_path({"path": path, "root_path": root}) == route
