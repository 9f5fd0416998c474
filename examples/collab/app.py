"""Comments on documents: FastAPI, SQLAlchemy on SQLite, logins in a cookie, and a WebSocket at ``/ws``.

Start it with ``python -m examples.collab``, or several workers with ``COLLAB_SECRET=… velocity-ws run
examples.collab.app:app --workers 4``. It has three people, whose passwords are their names: ann, bob and cat.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

from fastapi import FastAPI
from fastapi.responses import FileResponse
from fastapi.staticfiles import StaticFiles
from sqlalchemy import select
from sqlalchemy.exc import IntegrityError, OperationalError

from examples.collab.database import Base, Document, Membership, Role, User, engine, new_session
from examples.collab.realtime import broker
from examples.collab.routes import api
from examples.collab.security import hash_password

HERE = Path(__file__).parent


async def fill() -> None:
    """Tables, three people and a document, so that there is something to look at. The passwords are their names."""
    async with engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
    async with new_session() as db:
        if await db.scalar(select(User)) is not None:
            return
        people = [("ann", "#c2410c", True), ("bob", "#1d4ed8", False), ("cat", "#15803d", False)]
        for name, color, is_admin in people:
            db.add(User(name=name, color=color, password_hash=hash_password(name), is_admin=is_admin))
        db.add(Document(id=1, title="The plan"))
        for user_id, role in enumerate((Role.OWNER, Role.EDITOR, Role.VIEWER), 1):
            db.add(Membership(document_id=1, user_id=user_id, role=role))
        await db.commit()


@asynccontextmanager
async def lifespan(_: FastAPI) -> AsyncIterator[None]:
    with suppress(IntegrityError, OperationalError):  # of several workers one is first
        await fill()
    yield
    await engine.dispose()


app = FastAPI(title="Collab", lifespan=lifespan)
app.include_router(api)
app.mount("/static", StaticFiles(directory=HERE / "static"))
broker.attach(app)


@app.get("/", include_in_schema=False)
async def page() -> FileResponse:
    return FileResponse(
        HERE / "page.html", headers={"content-security-policy": "default-src 'self'; img-src 'self' data:"}
    )
