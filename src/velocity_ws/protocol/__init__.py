"""The uvicorn protocol classes, from inside; `velocity_ws.uvicorn` has their public names."""
