"""The protocol classes for uvicorn, in parts; `velocity_ws.uvicorn` is where they are imported from."""
