"""Every small example runs on a real server, the README's first one is the file itself, and links lead somewhere."""

from __future__ import annotations

import asyncio
import inspect
import os
import re
import shutil
import sys
import threading
from collections.abc import AsyncIterator, Callable
from concurrent.futures import Future
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, ClassVar

import httpx2 as httpx
import pytest
from asgiref.sync import async_to_sync

from examples import auth, minimal, notifications
from examples.chat import app as chat
from examples.chat import tokens
from examples.cluster.__main__ import STORES
from examples.llm import app as llm
from examples.llm import model
from tests.support import DEADLINE, Address, Peer, eventually, serve
from tests.support.command import kept_port
from velocity_ws import Broker, WebSocketMiddleware

ROOT = Path(__file__).parent.parent
ADA = "/ws?token=token-of-ada"
BOB = "/ws?token=token-of-bob"


DOCUMENTS = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").glob("*.md"))]


def text_of(document: Path) -> str:
    """What it says outside of its blocks of code."""
    return re.sub(r"^```.*?^```$", "", document.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)


def anchors(document: Path) -> set[str]:
    """What a link can name in it, made of its headings as GitHub does."""
    headings = re.findall(r"^#+ (.*)$", text_of(document), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


async def in_plain_thread(function: Callable[[], Any]) -> Any:
    """Run a function in a thread that has no event loop, and none of asyncio's or anyio's thread context."""
    future: Future[Any] = Future()

    def run() -> None:
        try:
            future.set_result(function())
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    async with asyncio.timeout(DEADLINE):
        return await asyncio.wrap_future(future)


async def in_room(broker: Broker, room: str, count: int) -> None:
    await eventually(lambda: len(broker.get_room_clients(room)) == count)


class TestMinimal:
    @pytest.fixture
    async def server(self) -> AsyncIterator[Address]:
        async with serve(minimal.app) as address:
            yield address

    async def test_message_reaches_the_room_and_nobody_else(self, server: Address) -> None:
        message = {"author": "ada", "text": "hello"}
        async with (
            server.connect("/ws?room=tea") as ada,
            server.connect("/ws?room=tea") as bob,
            server.connect() as stranger,
        ):
            await in_room(minimal.broker, "tea", 2)
            await in_room(minimal.broker, "lobby", 1)
            await ada.send("chat_message", message)
            assert await ada.expect("chat_message") == message
            assert await bob.expect("chat_message") == message
            await minimal.broker.broadcast("next")
            await stranger.expect("next")

    async def test_data_of_another_form_is_refused(self, server: Address) -> None:
        async with server.connect() as peer:
            answer = await peer.request("chat_message", {"author": "ada"})
            assert (answer["event"], answer["data"]["code"]) == ("error", "INVALID_DATA")
            assert answer["data"]["details"][0]["loc"] == ["text"]

    async def test_route_reaches_everyone(self, server: Address) -> None:
        async with (
            server.connect("/ws?room=tea") as one,
            server.connect() as two,
            httpx.AsyncClient(base_url=server.http) as http,
        ):
            await eventually(lambda: len(minimal.broker.get_clients()) == 2)
            answer = await http.post("/announce", params={"text": "closing soon"})
            assert (answer.status_code, answer.json()) == (200, 2)
            assert await one.expect("announcement") == "closing soon"
            assert await two.expect("announcement") == "closing soon"

    def test_it_fits_in_thirty_lines(self) -> None:
        assert len((ROOT / "examples/minimal.py").read_text().splitlines()) <= 30

    def test_readme_shows_this_very_file(self) -> None:
        source = (ROOT / "examples/minimal.py").read_text()
        blocks: list[str] = re.findall(
            r"^```python\n(.*?)^```$", (ROOT / "README.md").read_text(), re.MULTILINE | re.DOTALL
        )
        shown = [block for block in blocks if block.startswith("# examples/minimal.py")]
        assert shown == [source]


class TestChat:
    """What its page does is tested in a browser; this is what the page does not do."""

    @pytest.fixture
    async def server(self) -> AsyncIterator[Address]:
        async with serve(WebSocketMiddleware(chat.app, chat.broker)) as address:
            yield address

    def path_of(self, name: str) -> str:
        return f"/ws?token={tokens.issue(name)}"

    async def test_somebody_with_two_tabs_comes_and_goes_once(self, server: Address) -> None:
        async with server.connect(self.path_of("Ada")) as ada:
            await self.join(ada, "chat:tea/green")
            assert await self.told(ada, "came") == [("came", "Ada")]
            async with server.connect(self.path_of("Bob")) as bob, server.connect(self.path_of("Bob")) as tab:
                for peer in (bob, tab):
                    await self.join(peer, "chat:tea/green")
                await bob.send("leave", {"room": "chat:tea/green"}, id=1)
                await eventually(lambda: len(chat.broker.get_room_clients("chat:tea/green")) == 2)
                assert await self.told(ada, "came") == [("came", "Bob")]
            assert await self.told(ada, "went") == [("went", "Bob")]

    async def join(self, peer: Peer, room: str) -> None:
        await peer.send("join", {"room": room}, id=1)

    async def told(self, peer: Peer, last: str) -> list[tuple[str, str]]:
        """Who came and went, up to the next event of that name."""
        found: list[tuple[str, str]] = []
        while not found or found[-1][0] != last:
            message = await peer.receive()
            if message["event"] in ("came", "went"):
                found.append((message["event"], message["data"]["name"]))
        return found

    async def test_a_line_that_is_sent_again_under_its_id_is_there_once(self, server: Address) -> None:
        async with server.connect(self.path_of("Ada")) as ada:
            await self.join(ada, "chat:again")
            for number in (2, 3):
                await ada.send("chat", {"text": "hello", "id": "1"}, room="chat:again", id=number)
            while (message := await ada.receive()).get("id") != 3:
                pass
            assert message["event"] == "reply"
            await ada.send("earlier", room="chat:again", id=4)
            (line,) = await ada.expect("reply")
            assert (line["name"], line["text"]) == ("Ada", "hello")

    @pytest.mark.parametrize("room", ["chat: tea", "chat:", "chat:" + "x" * 25, "stats", "tea"])
    async def test_a_room_has_a_name_as_the_page_makes_it(self, server: Address, room: str) -> None:
        async with server.connect(self.path_of("Ada")) as ada:
            await self.join(ada, room)
            while (message := await ada.receive())["event"] != "error":
                pass
            assert message["data"]["code"] == "FORBIDDEN"


class TestDocuments:
    @pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
    def test_every_link_leads_to_a_file_and_a_heading_of_it(self, path: Path) -> None:
        for link in re.findall(r"\]\(([^)\s]+)\)", text_of(path)):
            if link.startswith("https://"):
                continue
            name, _, anchor = link.partition("#")
            target = (path.parent / name) if name else path
            assert target.exists(), link
            assert not anchor or anchor in anchors(target), link


class TestNotifications:
    @pytest.fixture
    async def server(self) -> AsyncIterator[Address]:
        async with serve(notifications.app) as address:
            yield address

    @pytest.fixture
    async def http(self, server: Address) -> AsyncIterator[httpx.AsyncClient]:
        async with httpx.AsyncClient(base_url=server.http, timeout=DEADLINE) as client:
            yield client

    @pytest.fixture
    async def ada(self, server: Address) -> AsyncIterator[Peer]:
        async with server.connect(ADA) as peer:
            await in_room(notifications.broker, "user:ada", 1)
            yield peer

    async def test_async_route_reaches_every_device_of_one_user(
        self, server: Address, http: httpx.AsyncClient, ada: Peer
    ) -> None:
        header = {"Authorization": "Bearer token-of-ada"}
        async with server.connect(additional_headers=header) as phone, server.connect(BOB) as bob:
            await in_room(notifications.broker, "user:ada", 2)
            await in_room(notifications.broker, "user:bob", 1)
            answer = await http.post("/users/ada/notifications", json={"title": "Lunch"})
            assert (answer.status_code, answer.json()) == (200, 2)
            assert await ada.expect("notification") == {"title": "Lunch", "body": ""}
            assert await phone.expect("notification") == {"title": "Lunch", "body": ""}
            await notifications.broker.broadcast("next")
            await bob.expect("next")

    async def test_plain_route_reaches_everyone(self, server: Address, http: httpx.AsyncClient, ada: Peer) -> None:
        async with server.connect(BOB) as bob:
            await in_room(notifications.broker, "user:bob", 1)
            answer = await http.post("/notifications", json={"title": "Fire drill", "body": "At noon"})
            assert (answer.status_code, answer.json()) == (200, 2)
            assert await ada.expect("notification") == {"title": "Fire drill", "body": "At noon"}
            assert await bob.expect("notification") == {"title": "Fire drill", "body": "At noon"}

    async def test_thread_tells_when_its_work_is_done(self, http: httpx.AsyncClient, ada: Peer) -> None:
        answer = await http.post("/users/ada/reports")
        assert answer.status_code == 202
        assert (await ada.expect("notification"))["title"] == "Report ready"

    async def test_nobody_there_is_no_error(self, http: httpx.AsyncClient, ada: Peer) -> None:
        assert (await http.post("/users/nobody/notifications", json={"title": "?"})).json() == 0

    async def test_stats(self, http: httpx.AsyncClient, ada: Peer) -> None:
        before = (await http.get("/stats")).json()
        await http.post("/users/ada/notifications", json={"title": "Lunch"})
        await ada.expect("notification")
        after = (await http.get("/stats")).json()
        assert (after["connected_clients"], after["rooms"]) == (1, 1)
        assert after["messages_sent"] == before["messages_sent"] + 1
        assert after["bytes_sent"] == before["bytes_sent"] + len(
            '{"event":"notification","data":{"title":"Lunch","body":""}}'
        )

    @pytest.mark.parametrize("query", ["", "?token=", "?token=token-of-eve"])
    async def test_unknown_token_is_refused(self, server: Address, query: str) -> None:
        async with server.connect("/ws" + query) as peer:
            assert await peer.closed() == (4401, "unknown token")


class TestAuth:
    @pytest.fixture
    async def server(self) -> AsyncIterator[Address]:
        async with serve(auth.app) as address:
            yield address

    async def test_token_in_the_url(self, server: Address) -> None:
        async with server.connect(ADA) as peer:
            assert await peer.request("whoami") == {"event": "reply", "id": 1, "data": "ada"}

    @pytest.mark.parametrize("query", ["", "?token=token-of-eve"])
    async def test_bad_token_in_the_url(self, server: Address, query: str) -> None:
        async with server.connect("/ws" + query) as peer:
            assert await peer.closed() == (4401, "unknown token")

    async def test_first_message(self, server: Address) -> None:
        async with server.connect("/ws/login") as peer:
            refused = await peer.request("whoami")
            assert (refused["event"], refused["data"]["code"]) == ("error", "UNAUTHORIZED")
            refused = await peer.request("auth", {"token": "token-of-eve"}, id=2)
            assert (refused["event"], refused["data"]["code"]) == ("error", "UNAUTHORIZED")
            await peer.send("auth", {"token": "token-of-bob"}, id=3)
            assert 890 < (await peer.expect("session"))["expires_in"] <= 900
            assert await peer.receive() == {"event": "reply", "id": 3, "data": "bob"}
            assert await peer.request("whoami", id=4) == {"event": "reply", "id": 4, "data": "bob"}
            await auth.by_message.to_user("bob").send("mail", 1)
            assert await peer.expect("mail") == 1
            await auth.by_message.to_room("users").send("news", 1)
            assert await peer.expect("news") == 1

    async def test_a_login_is_renewed_and_ended(self, server: Address) -> None:
        async with server.connect("/ws/login") as peer:
            await peer.send("auth", {"token": "token-of-ada"})
            await peer.expect("session")
            await peer.send("refresh", {"token": "token-of-ada"}, id=1)
            told = await peer.expect("session")
            assert await peer.receive() == {"event": "reply", "id": 1, "data": told}
            for token, code in (("token-of-bob", "FORBIDDEN"), ("token-of-eve", "UNAUTHORIZED")):
                assert (await peer.request("refresh", {"token": token}))["data"]["code"] == code
            await peer.send("log_out", id=2)
            assert await peer.expect("session") == {}
            assert (await peer.receive())["event"] == "reply"
            assert (await peer.request("whoami"))["data"]["code"] == "UNAUTHORIZED"
            assert auth.by_message.get_rooms() == []
            (client,) = auth.by_message.get_clients()
            assert not client.get_data("timer").done()  # as of one who has just come

    async def test_who_does_not_log_in_is_disconnected(self, server: Address, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(auth, "LOGIN_SECONDS", 0.05)
        async with server.connect("/ws/login") as peer:
            assert await peer.closed() == (4401, "not authenticated in time")

    async def test_who_logs_in_stays_and_no_timer_is_left(self, server: Address) -> None:
        async with server.connect("/ws/login") as peer, server.connect("/ws/login"):
            await eventually(lambda: len(auth.by_message.get_clients()) == 2)
            clients = auth.by_message.get_clients()
            timers: list[asyncio.Task[None]] = [client.get_data("timer") for client in clients]
            await peer.send("auth", {"token": "token-of-ada"})
            await eventually(lambda: sum(timer.cancelled() for timer in timers) == 1)
            assert [client.user for client in clients if client.get_data("timer").cancelled()] == ["ada"]
        await eventually(lambda: all(timer.cancelled() for timer in timers))


class TestThreads:
    """The ways in from outside the event loop."""

    @pytest.fixture
    async def peer(self) -> AsyncIterator[Peer]:
        async with serve(minimal.app) as address, address.connect() as peer:
            await in_room(minimal.broker, "lobby", 1)
            yield peer

    async def test_async_to_sync(self, peer: Peer) -> None:
        broadcast = async_to_sync(minimal.broker.broadcast)
        assert await in_plain_thread(lambda: broadcast("news", {"n": 1})) == 1
        assert await peer.expect("news") == {"n": 1}

    async def test_event_loop_of_another_thread(self, peer: Peer) -> None:
        async def notify() -> int:
            return await minimal.broker.to_room("lobby").send("news", {"n": 2})

        assert await in_plain_thread(lambda: asyncio.run(notify())) == 1
        assert await peer.expect("news") == {"n": 2}

    async def test_sync_from_a_plain_thread(self, peer: Peer) -> None:
        assert await in_plain_thread(lambda: minimal.broker.sync.broadcast("news", {"n": 3})) == 1
        assert await peer.expect("news") == {"n": 3}


class TestCluster:
    async def test_four_workers_serve_one_chat(self, tmp_path: Path) -> None:
        port = kept_port()
        store = STORES / f"cluster-{port}"
        environment = {**os.environ, "WS_PORT": str(port), "XDG_RUNTIME_DIR": str(tmp_path)}
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "examples.cluster", cwd=ROOT, env=environment, stdout=asyncio.subprocess.DEVNULL
        )
        try:
            address = Address(port)
            async with httpx.AsyncClient(base_url=address.http) as http, asyncio.timeout(60):
                while True:
                    try:
                        if (await http.get("/ws/health")).status_code == 200:
                            break
                    except httpx.TransportError:
                        await asyncio.sleep(0.05)  # nobody listens yet
                nodes: dict[str, Peer] = {}
                async with AsyncExitStack() as stack:
                    while len(nodes) < 2:  # on whichever worker takes them
                        token = (await http.post("/login", json={"name": f"Person {len(nodes)}"})).json()["token"]
                        peer = await stack.enter_async_context(address.connect(f"/ws?token={token}"))
                        await peer.expect("rooms")
                        node = await peer.expect("node")
                        assert node["is_clustered"]
                        nodes.setdefault(node["id"], peer)
                    for number, peer in enumerate(nodes.values()):
                        await peer.send("join", {"room": "chat:engines"}, id=number)
                        while (message := await peer.receive()).get("id") != number:
                            assert message["event"] in ("came", "people", "room")
                            if message["event"] == "people":
                                people = message["data"]["people"]
                        assert message["event"] == "reply"
                    assert {node for person in people for node in person["nodes"]} == set(nodes)
        finally:
            process.terminate()
            async with asyncio.timeout(30):
                assert await process.wait() == 0
            assert store.is_dir()
            shutil.rmtree(store)


class TestLlm:
    """What its page does is tested in a browser; this is what the page does not do."""

    ROOM = "chat:tea"
    QUESTION: ClassVar = {"id": "0123456789abcdef", "text": "Why tea?"}

    @pytest.fixture
    async def server(self, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Address]:
        monkeypatch.setattr(model, "TOKENS_PER_SECOND", 100_000.0)
        async with serve(llm.app) as address:
            yield address

    @pytest.fixture
    async def peer(self, server: Address) -> AsyncIterator[Peer]:
        async with server.connect() as peer:
            assert await peer.expect("worker") == os.getpid()
            assert (await peer.request("join", {"room": self.ROOM}))["event"] == "reply"
            yield peer

    async def ask(self, peer: Peer, **data: Any) -> Any:
        """What a question is answered."""
        await peer.send("ask", self.QUESTION | data, room=self.ROOM, id=2)
        while (message := await peer.receive()).get("id") != 2:
            pass
        return message

    async def test_a_question_that_is_sent_again_under_its_id_is_asked_once(self, peer: Peer) -> None:
        for _ in range(2):
            assert (await self.ask(peer))["event"] == "reply"
        (stream,) = await llm.broker.streams.list(self.ROOM)
        assert await llm.broker.streams.wait(stream.id) == "done"
        assert (await llm.broker.streams.read(stream.id)).text == model.text_of("Why tea?")
        await peer.send("earlier", room=self.ROOM, id=3)
        while (message := await peer.receive()).get("id") != 3:
            pass
        assert message["data"] == [{**self.QUESTION, "to": None}]

    async def test_who_asks_without_end_is_slowed_down(self, peer: Peer) -> None:
        for number in range(30):
            answer = await self.ask(peer, id=f"{number:016}")
            if answer["event"] != "reply":
                break
        assert number >= 5
        assert answer["event"] == "rate_limit_exceeded"

    @pytest.mark.parametrize("wrong", [{"id": "short"}, {"id": "x" * 65}, {"text": "  "}, {"text": "x" * 4001}])
    async def test_a_question_of_another_form_is_refused(self, peer: Peer, wrong: dict[str, str]) -> None:
        assert (await self.ask(peer, **wrong))["data"]["code"] == "INVALID_DATA"

    @pytest.mark.parametrize("room", ["chat:", "chat:a b", "chat:" + "x" * 41, "tea"])
    async def test_a_chat_has_a_name_as_the_page_makes_it(self, server: Address, room: str) -> None:
        async with server.connect() as peer:
            await peer.expect("worker")
            assert (await peer.request("join", {"room": room}))["data"]["code"] == "FORBIDDEN"

    async def test_the_model_says_the_same_to_the_same_prompt(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(model, "TOKENS_PER_SECOND", 100_000.0)
        said = [[token async for token in model.answer(prompt)] for prompt in ("Why?", "Why?", "Why not?")]
        assert said[0] == said[1] != said[2]
        assert "".join(said[0]) == model.text_of("Why?")
        assert len(said[0]) > 150
        with pytest.raises(RuntimeError, match="asked to fail"):
            _ = [token async for token in model.answer("Fail!")]

    def test_streams_take_twelve_lines_of_the_server_and_five_of_the_page(self) -> None:
        _, _, section = (ROOT / "examples/llm/chat.py").read_text().partition("# --- the answers")
        lines = f"{section.partition(chr(10))[2]}\n{inspect.getsource(model.answer)}".splitlines()
        documented = len((model.answer.__doc__ or "").splitlines())
        code = [line for line in lines if line.strip() and not line.lstrip().startswith("#")]
        assert len(code) - documented <= 12
        page = (ROOT / "examples/llm/static/llm.js").read_text().splitlines()
        uses = re.compile(r'ws\.streams?\(|\.onChange\(|\.cancel\(|"stream"')
        assert len([line for line in page if uses.search(line) and not line.startswith("//")]) == 5
