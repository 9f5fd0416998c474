"""``python -m velocity_ws``: the command."""

from velocity_ws.cli import main

main(prog_name="velocity-ws")
