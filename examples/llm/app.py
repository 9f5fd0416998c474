"""The web application: FastAPI, which serves the page and the chat. Any number of workers can serve it."""

from __future__ import annotations

from pathlib import Path

from fastapi import FastAPI
from fastapi.responses import FileResponse
from fastapi.staticfiles import StaticFiles

from examples.llm.chat import broker

__all__ = ["app", "broker"]

HERE = Path(__file__).parent

app = FastAPI(title="Answers that survive")
app.mount("/static", StaticFiles(directory=HERE / "static"))
broker.attach(app)


@app.get("/", include_in_schema=False)
async def page() -> FileResponse:
    return FileResponse(HERE / "page.html", headers={"content-security-policy": "default-src 'self'"})
