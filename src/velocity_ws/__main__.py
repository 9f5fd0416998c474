"""``python -m velocity_ws``: runs the command ``velocity-ws``."""

from velocity_ws.cli import main

main(prog_name="velocity-ws")
