"""The house: what is public, which room may see which, and where each module is tested."""

from __future__ import annotations

import ast
import asyncio
import re
import shutil
import sys
from collections import Counter
from collections.abc import Collection, Iterator
from importlib import import_module
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PUBLIC = {
    "velocity_ws": {
        *("Accept", "Broker", "Client", "Emitter", "Message", "Server", "Settings", "Target"),
        *("WebSocketApp", "WebSocketMiddleware"),
        *("Close", "CloseCode", "EventRouter", "History", "Reject", "Rooms", "may_reconnect"),
        *("Entry", "Joined", "Sent"),
        *("ClusterStats", "Connections", "Members", "RoomMember", "Stats", "UserConnection"),
        *("BackplaneUnavailable", "BrokerError", "ClientError", "ClientGone", "ClientIdError", "ClientNotFound"),
        *("ClientTimeout", "EncodeError", "HookError", "InvalidCloseError", "InvalidNameError", "InvalidPathError"),
        *("InvalidExpiryError", "InvalidHeaderError", "LoginExpired", "HistoryError"),
        *("Stream", "StreamInfo", "StreamReader", "StreamState", "StreamWriter", "StreamsAPI"),
        *("StreamEnded", "StreamError", "StreamGone", "StreamNotFound", "StreamTooLarge"),
        *("ServerError", "SettingsError", "UpstreamError", "VelocityError", "WouldDeadlockError"),
        *("__version__", "browser_client_path"),
    },
    "velocity_ws.adapters.ai_sdk": {"UIMessageStreamResponse", "chunks", "resume"},
    "velocity_ws.adapters.langchain": {"items", "text", "ui_message_chunks"},
    "velocity_ws.adapters.openai": {"items", "text", "ui_message_chunks"},
    "velocity_ws.backplane": {"Backplane", "Lost", "Receive", "create_backplane"},
    "velocity_ws.testing": {"BackplaneContract", "HistoryContract", "Listener", "StreamContract"},
    "velocity_ws.uvicorn": {"HTTPProtocol", "WebSocketProtocol", "new_event_loop"},
}


@pytest.mark.parametrize("module", PUBLIC)
def test_what_is_public_is_there_and_nothing_else(module: str) -> None:
    public = import_module(module)
    assert set(public.__all__) == PUBLIC[module]
    assert all(hasattr(public, name) for name in PUBLIC[module])


async def lint_imports(folder: Path) -> tuple[int | None, str]:
    """Check the house as `make lint` does, in a folder with its sources; the exit code and what was said."""
    command = (
        "import sys; sys.path.insert(0, 'src'); from importlinter.cli import lint_imports; sys.exit(lint_imports())"
    )
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", command, cwd=folder, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    output, _ = await process.communicate()
    return process.returncode, output.decode()


@pytest.mark.parametrize(
    ("module", "line", "broken"),
    [
        ("sessions/session.py", "from velocity_ws.asgi.app import WebSocketApp", "Rooms"),
        ("new_room/__init__.py", "", "Rooms"),
        ("concurrency/eager.py", "from velocity_ws.concurrency.portal import Portal", None),
        ("cluster/link.py", "import uvicorn", "uvicorn is known"),
        ("messages/scan.py", "import asyncio", "Pure rooms"),
    ],
)
async def test_an_arrow_that_points_upward_fails_the_check(
    tmp_path: Path, module: str, line: str, broken: str | None
) -> None:
    shutil.copytree(ROOT / "src", tmp_path / "src", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    path = tmp_path / "src/velocity_ws" / module
    path.parent.mkdir(exist_ok=True)
    with path.open("a") as file:
        file.write(f"\n{line}\n")
    code, said = await lint_imports(tmp_path)
    failed = [line for line in said.splitlines() if line.endswith("BROKEN") or " BROKEN (" in line]
    if broken is None:
        assert (code, failed) == (0, []), said
    else:
        assert code, said
        assert any(line.startswith(broken) for line in failed), said


# --- every module has its tests

SERVED = "it is nothing without a server and its connections"
CLUSTER = "it is nothing without other nodes"
ENGINE = "it is nothing without an engine"
DECLARES = "it declares what others do"
USED = "tests are made of it, and fail with it"

ELSEWHERE: dict[str, tuple[str, dict[str, str]]] = {
    # A module without tests of its own: why, and what tests it, each with a word that stands there and in the module.
    "adapters/langchain_values": ("it is what an adapter reads by", {"adapters/test_langchain": "plain"}),
    "adapters/openai_messages": ("it is what an adapter reads by", {"adapters/test_openai": "reasoning_content"}),
    "adapters/upstream": ("each adapter reads by it", {"adapters/test_openai": "upstream"}),
    "broker/history_api": (SERVED, {"e2e/cluster/test_history": "clear_history"}),
    "backplane/redis_primary": (ENGINE, {"backplane/test_redis_sentinel": "primary"}),
    "broker/wiring": (SERVED, {"e2e/cluster/test_history": "history"}),
    "history/appending": (SERVED, {"e2e/cluster/test_history": "dedupe"}),
    "history/beyond": (SERVED, {"e2e/test_history_limits": "missed"}),
    "history/envelopes": (SERVED, {"history/test_feed": "open_envelope"}),
    "history/hearing": (SERVED, {"history/test_feed": "Opened"}),
    "history/place": (SERVED, {"history/test_feed": "position"}),
    "sessions/groups": (SERVED, {"sessions/test_hub": "join"}),
    "sessions/working": (SERVED, {"e2e/test_concurrent_handlers": "concurrent"}),
    "asgi/app": (SERVED, {"e2e/test_connections": "WebSocketApp", "e2e/test_mounting": "WebSocketApp"}),
    "asgi/middleware": (SERVED, {"e2e/test_mounting": "WebSocketMiddleware"}),
    "asgi/stream_access": (SERVED, {"e2e/test_streams_over_http": "x-api-key"}),
    "asgi/stream_answers": (SERVED, {"e2e/test_streams_over_http": "stream-next-offset"}),
    "asgi/stream_endpoint": (SERVED, {"e2e/test_streams_over_http": "access-control-allow-origin"}),
    "asgi/stream_reading": (SERVED, {"e2e/test_streams_over_http": "stream-cursor"}),
    "asgi/stream_writing": (SERVED, {"e2e/test_streams_over_http": "WS_MAX_MESSAGE_SIZE"}),
    "asgi/proxies": (SERVED, {"e2e/test_addresses": "X-Forwarded-For"}),
    "backplane/nats_client": (ENGINE, {"backplane/test_private_names": "_io_writer"}),
    "backplane/__init__": ("it makes an engine of any kind", {"backplane/test_urls": "create_backplane"}),
    "backplane/base": (DECLARES, {"backplane/test_contract": "Backplane"}),
    "backplane/embedded/process": (ENGINE, {"backplane/embedded/test_backplane": "nats-server"}),
    "backplane/loading": ("it makes an engine of any kind", {"backplane/test_urls": "SettingsError"}),
    "backplane/redis_connection": (ENGINE, {"backplane/test_redis": "RedisConnection"}),
    "backplane/redis_pool": (ENGINE, {"backplane/test_redis": "pool_of"}),
    "broker/authorization": (SERVED, {"e2e/test_authorization": "reauthorize"}),
    "broker/broker": (SERVED, {"e2e/test_life_cycle": "Broker", "e2e/test_sending": "get_client"}),
    "broker/decorators": (SERVED, {"e2e/test_dispatch": "on_message", "e2e/test_connections": "on_connect"}),
    "broker/emitter": (CLUSTER, {"e2e/cluster/test_emitter": "Emitter"}),
    "broker/joining": (SERVED, {"e2e/test_rooms": "TOO_MANY_ROOMS"}),
    "broker/lifecycle": (SERVED, {"e2e/test_life_cycle": "stop", "hostile/test_hurried": "hurried"}),
    "broker/members": (DECLARES, {"e2e/cluster/test_members": "missing"}),
    "broker/node_messages": (CLUSTER, {"e2e/cluster/test_between_nodes": "MAX_RUNNING"}),
    "broker/node": (SERVED, {"e2e/test_life_cycle": "connected_clients", "e2e/test_settings_apply": "drain_timeout"}),
    "broker/outgoing": (SERVED, {"e2e/test_names_of_rooms": "InvalidNameError"}),
    "broker/presence": (CLUSTER, {"e2e/cluster/test_presence": "presence"}),
    "broker/presence_exchange": (CLUSTER, {"e2e/cluster/test_presence": "presence_versions"}),
    "broker/presence_info": (SERVED, {"e2e/cluster/test_presence_info": "MAX_INFO"}),
    "broker/presence_outgoing": (CLUSTER, {"e2e/cluster/test_presence": "publisher"}),
    "broker/presence_parts": (DECLARES, {"broker/test_presence_wire": "ComingParts"}),
    "broker/presence_reminders": (CLUSTER, {"e2e/cluster/test_presence": "STEPS"}),
    "broker/presence_policy": (DECLARES, {"e2e/cluster/test_presence_info": "presence_info"}),
    "broker/presence_telling": (SERVED, {"e2e/cluster/test_presence": "DELIVERIES"}),
    "broker/procedures": (CLUSTER, {"e2e/cluster/test_foreign_envelopes": "disconnect_user"}),
    "broker/revocation": (CLUSTER, {"e2e/test_authorization": "reauthorize"}),
    "broker/sending": (SERVED, {"e2e/test_sending": "broadcast_bytes"}),
    "broker/rooms": ("it registers", {"hooks/test_kinds": "authorize"}),
    "broker/server_api": (SERVED, {"e2e/cluster/test_members": "members"}),
    "broker/user_directory": (CLUSTER, {"e2e/cluster/test_user_connections": "is_online"}),
    "broker/users": (CLUSTER, {"e2e/cluster/test_changing_users": "set_user"}),
    "cli/supervision": ("it is about whole processes", {"cli/test_serving": "SIGTERM"}),
    "cluster/cluster": (CLUSTER, {"e2e/cluster/test_foreign_envelopes": "Cluster"}),
    "cluster/notes": (CLUSTER, {"e2e/cluster/test_presence": "notify"}),
    "cluster/options": (DECLARES, {"cluster/test_subscriptions": "linger"}),
    "delivery/bounded_outbox": ("it is what both kinds have in common", {"delivery/test_contract": "put"}),
    "delivery/outbox": (DECLARES, {"delivery/test_contract": "offer"}),
    "history/base": (DECLARES, {"history/test_contract": "HistoryStore"}),
    "history/asking": ("it is what a link is made of", {"history/test_link": "removed"}),
    "history/embedded_store": (ENGINE, {"history/test_embedded": "PermissionError"}),
    "history/items": (DECLARES, {"history/test_memory": "KEY_TTL"}),
    "history/jetstream": (ENGINE, {"history/test_nats": "JetStream"}),
    "history/nats_appending": (ENGINE, {"history/test_nats": "append"}),
    "history/nats_head": (ENGINE, {"history/test_nats": "TABLE"}),
    "history/nats_clock": (ENGINE, {"history/test_nats": "CLOCK_INTERVAL"}),
    "history/nats_logs": (ENGINE, {"history/test_nats": "now"}),
    "history/nats_messages": (ENGINE, {"history/test_nats": "WrongSequence"}),
    "history/nats_reading": (ENGINE, {"history/test_nats": "Query"}),
    "history/nats_removals": (ENGINE, {"history/test_nats": "MAX_REMOVED"}),
    "history/nats_revising": (ENGINE, {"history/test_nats": "clear"}),
    "history/nats_store": (ENGINE, {"history/test_nats_replicas": "replicas"}),
    "history/nats_stream": (ENGINE, {"history/test_nats": "Names"}),
    "history/outcomes": ("it is what a link is made of", {"history/test_link": "BackplaneUnavailable"}),
    "history/redis_scripts": (ENGINE, {"history/test_redis": "MAX_REMOVED"}),
    "history/redis_servers": (ENGINE, {"history/test_redis": "_undone"}),
    "history/memory_log": ("it is what a store is made of", {"history/test_memory": "LEAST_PAUSE"}),
    "hooks/injected": (DECLARES, {"e2e/test_depends": "Client"}),
    "hooks/inputs": ("it is what dependencies ask for", {"hooks/test_dependencies": "presence_info"}),
    "hooks/scope": ("it is what a hook's dependencies have", {"hooks/test_dependencies": "Scope"}),
    "hooks/validation": ("it is what a hook raises", {"hooks/test_hook": "InvalidDataError"}),
    "messages/address": (DECLARES, {"sessions/test_hub": "Address", "broker/test_target": "Address"}),
    "process/descriptors": ("it is about all of a process", {"hostile/test_descriptors": "no further connection"}),
    "process/listening": ("it is about all of a process", {"hostile/test_descriptors": "descriptors"}),
    "process/signals": ("it is about all of a process", {"hostile/test_hurried": "SIGTERM"}),
    "quantities": ("the settings are written so", {"test_settings": "1m30s"}),
    "sessions/addressable": (SERVED, {"e2e/test_sending": "rooms", "e2e/test_waiting_for_room": "outbox"}),
    "sessions/calls": (SERVED, {"e2e/test_hostile_hooks": "MAX_THREADS"}),
    "sessions/asks": (SERVED, {"e2e/test_asking": "MAX_OPEN"}),
    "sessions/buffer": (SERVED, {"e2e/test_leaks": "is_full"}),
    "sessions/client": (SERVED, {"e2e/test_waiting_for_room": "drained", "e2e/test_sending": "send_bytes"}),
    "sessions/client_info": (SERVED, {"e2e/test_connections": "set_data"}),
    "sessions/client_session": (SERVED, {"e2e/cluster/test_changing_users": "set_user"}),
    "sessions/concurrent": (SERVED, {"e2e/test_concurrent_handlers": "MAX_RUNNING"}),
    "sessions/context": (DECLARES, {"sessions/test_hub": "set_user"}),
    "sessions/dispatch": (SERVED, {"e2e/test_connections": "on_disconnect"}),
    "sessions/ending": (SERVED, {"e2e/test_connections": "HANDLER_GRACE"}),
    "sessions/failures": (SERVED, {"e2e/test_dispatch": "INTERNAL_ERROR", "e2e/test_hostile_hooks": "on_error"}),
    "sessions/hints": (SERVED, {"e2e/test_first_day": "MAX_NAMED", "e2e/test_endurance": "MAX_NAMED"}),
    "sessions/inbound_limits": (SERVED, {"e2e/test_dispatch": "rate_bytes"}),
    "sessions/inbox": (SERVED, {"sessions/test_pacing": "SECONDS_PER_TURN"}),
    "sessions/inbox_owner": (DECLARES, {"sessions/test_session": "close"}),
    "sessions/message_handling": (SERVED, {"e2e/test_dispatch": "UNKNOWN_EVENT"}),
    "sessions/moves": (SERVED, {"e2e/cluster/test_coming_and_going": "MAX_WAITING"}),
    "sessions/permission": (SERVED, {"e2e/test_authorization": "AUTHORIZE_TIMEOUT"}),
    "sessions/refused": (SERVED, {"e2e/test_dispatch": "REFUSALS_AT_ONCE"}),
    "sessions/room_messages": (SERVED, {"e2e/test_rooms": "handler"}),
    "sessions/state": (DECLARES, {"sessions/test_session": "OPEN"}),
    "sessions/web_errors": (SERVED, {"e2e/test_web_errors": "HTTPException"}),
    "testing/appending": (USED, {"history/test_contract": "contract"}),
    "testing/backplanes": (USED, {"backplane/test_contract": "BackplaneContract"}),
    "testing/carrying": (USED, {"backplane/test_contract": "contract"}),
    "testing/endings": (USED, {"backplane/test_contract": "contract"}),
    "testing/engine": (USED, {"backplane/test_contract": "BackplaneContract"}),
    "testing/histories": (USED, {"history/test_contract": "HistoryContract"}),
    "testing/history_engine": (USED, {"history/test_memory": "Keeper"}),
    "testing/listener": (USED, {"backplane/test_nats": "listening"}),
    "testing/losing": (USED, {"history/test_contract": "contract"}),
    "broker/stream_events": (SERVED, {"e2e/cluster/test_streams": "stream_read"}),
    "broker/streams_api": (SERVED, {"e2e/cluster/test_streams": "is_new"}),
    "stream_errors": (DECLARES, {"test_errors": "StreamGone"}),
    "streams/announcing": (SERVED, {"e2e/test_reading_streams": "resume"}),
    "streams/asking": (CLUSTER, {"e2e/cluster/test_streams": "StreamNotFound", "streams/test_calls": "Asking"}),
    "streams/factory": ("it makes a store of any kind", {"e2e/cluster/test_streams": "create_streams"}),
    "streams/learning": (CLUSTER, {"streams/test_room_streams": "listed"}),
    "streams/sources": (SERVED, {"e2e/test_reading_streams": "on_error"}),
    "streams/streams": (SERVED, {"e2e/cluster/test_streams": "is_awake"}),
    "streams/watching": (CLUSTER, {"e2e/cluster/test_streams": "lease"}),
    "streams/base": (DECLARES, {"streams/test_contract": "StreamStore"}),
    "streams/items": (DECLARES, {"streams/test_memory": "Times"}),
    "streams/redis_claims": (ENGINE, {"streams/test_redis": "topics_of"}),
    "streams/redis_forms": (ENGINE, {"streams/test_redis": "Claim"}),
    "history/redis_store": (ENGINE, {"streams/test_redis": "alter"}),
    "streams/memory_stream": ("it is what a store is made of", {"streams/test_memory": "payloads"}),
    "streams/nats_appending": (ENGINE, {"streams/test_nats": "append"}),
    "streams/nats_beginning": (ENGINE, {"streams/test_nats": "Begin"}),
    "streams/nats_connection": (ENGINE, {"streams/test_nats": "FILTERS"}),
    "streams/nats_ending": (ENGINE, {"streams/test_nats": "renew"}),
    "streams/nats_engine": (ENGINE, {"streams/test_nats": "HINTS"}),
    "streams/nats_names": (ENGINE, {"streams/test_nats": "Names"}),
    "streams/nats_reading": (ENGINE, {"streams/test_nats": "HOPS"}),
    "streams/nats_state": (ENGINE, {"streams/test_nats": "STRIDE"}),
    "streams/nats_sweeping": (ENGINE, {"streams/test_nats": "sweep"}),
    "streams/nats_work": (ENGINE, {"streams/test_nats": "streams"}),
    "testing/stream_deleting": (USED, {"streams/test_contract": "contract"}),
    "testing/stream_ending": (USED, {"streams/test_contract": "contract"}),
    "testing/stream_engine": (USED, {"streams/test_contract": "StreamContract"}),
    "testing/stream_losing": (USED, {"streams/test_contract": "contract"}),
    "testing/stream_pen": (USED, {"streams/test_redis": "Pen"}),
    "testing/stream_racing": (USED, {"streams/test_contract": "contract"}),
    "testing/stream_reading": (USED, {"streams/test_contract": "contract"}),
    "testing/stream_writing": (USED, {"streams/test_contract": "contract"}),
    "testing/streams": (USED, {"streams/test_contract": "StreamContract"}),
    "testing/reading": (USED, {"history/test_contract": "contract"}),
    "uvicorn/console": (SERVED, {"test_logs": "terminal"}),
    "uvicorn/events": (SERVED, {"e2e/test_protocol_class": "ClientDisconnected"}),
    "uvicorn/http": (SERVED, {"e2e/test_http_protocol": "H11Protocol"}),
    "uvicorn/http_guard": (SERVED, {"e2e/test_http_protocol": "HTTPGuard"}),
    "uvicorn/http_tools": (SERVED, {"e2e/test_http_protocol": "HttpToolsProtocol"}),
    "uvicorn/http_upgrade": (SERVED, {"e2e/test_http_protocol": "upgrade"}),
    "uvicorn/late_connections": (SERVED, {"hostile/test_late_connections": "SIGHUP"}),
    "uvicorn/loop": (SERVED, {"hostile/test_tls": "bounding"}),
    "uvicorn/proxies": (SERVED, {"e2e/test_addresses": "forwarded"}),
    "uvicorn/runner": (SERVED, {"e2e/test_life_cycle": "lifespan", "hostile/test_hurried": "startup"}),
    "uvicorn/server": (SERVED, {"e2e/test_life_cycle": "Server", "hostile/test_shutdown": "Server"}),
    "uvicorn/session_transport": (SERVED, {"e2e/test_leaks": "TransportOutbox", "e2e/test_back_pressure": "_writer"}),
    "uvicorn/state": (SERVED, {"e2e/test_http_protocol": "refuse_handshakes", "e2e/test_unfinished": "WebSocketState"}),
    "uvicorn/tls": (SERVED, {"hostile/test_tls": "handshake_timeout"}),
    "uvicorn/websocket": (SERVED, {"e2e/test_protocol_class": "WebSocketProtocol"}),
    "websocket/connection": (SERVED, {"e2e/test_protocol_class": "CONTROL_FRAMES_AT_ONCE"}),
    "websocket/handshake": (SERVED, {"e2e/test_protocol_class": "server_no_context_takeover"}),
    "websocket/parser_adapter": ("the library judges behind it", {"websocket/test_reader": "fragmented"}),
    "websocket/peer": (SERVED, {"e2e/test_gone_peers": "INTERVAL"}),
    "websocket/unfinished": (SERVED, {"e2e/test_unfinished": "UnfinishedMessages"}),
    "websocket/writer": (SERVED, {"e2e/test_back_pressure": "CLOSE_TIMEOUT"}),
}
BESIDE = {
    # Tests in a room that are of none of its modules: what they are about.
    "backplane/test_contract": "every engine does what the contract says",
    "backplane/test_contract_by_any_node": "so does a cluster of Redis, whichever node is asked",
    "backplane/test_private_names": "every private name that is used of a library is there in the installed version",
    "backplane/test_servers": "what is common to the engines that are servers",
    "history/test_contract": "every store does what the contract says",
    "streams/test_contract": "every store of streams does what the contract says",
    "streams/test_jetstream_contract": "JetStream does what the contract says, on disk and in memory",
    "streams/test_jetstream_replicas": "streams that several servers keep lose nothing with one of them",
    "history/test_nats_contract": "JetStream does what the contract says, on disk and in memory",
    "history/test_nats_replicas": "a stream that several servers keep loses nothing with one of them",
    "history/test_model": "a log keeps what is promised, whatever happens, and engines do alike",
    "delivery/test_contract": "both kinds of outbox do what the contract says",
    "hooks/test_late_annotations": "what is imported for type checkers alone may be named in every hook",
}
SOURCES, TESTS = ROOT / "src/velocity_ws", ROOT / "tests"
ROOMS = {path.parent.relative_to(SOURCES) for path in SOURCES.glob("*/**/*.py")}


def does_something(path: Path) -> bool:
    """Whether a module defines anything; else it only names, or calls, what others define."""
    body = ast.parse(path.read_text()).body
    return any(isinstance(each, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) for each in body)


def test_every_module_has_its_tests_or_stands_in_the_table() -> None:
    modules = {str(path.relative_to(SOURCES))[:-3] for path in SOURCES.rglob("*.py") if does_something(path)}
    tests = {module: str(Path(module).with_name(f"test_{Path(module).name}.py")) for module in modules}
    own = {module for module, test in tests.items() if (TESTS / test).exists()}
    wrong = [
        f"{module} has no tests: write tests/{tests[module]}, or add to ELSEWHERE why there are none and what tests "
        f'it: "{module}": (SERVED, {{"e2e/test_…": "a word that stands in both"}}),'
        for module in sorted(modules - own - ELSEWHERE.keys())
    ]
    wrong += [f"{module} has tests of its own: take it out of ELSEWHERE" for module in sorted(own & ELSEWHERE.keys())]
    wrong += [
        f"{module} does nothing or is not there: take it out of ELSEWHERE, or rename it there"
        for module in sorted(ELSEWHERE.keys() - modules)
    ]
    assert not wrong, "\n".join(wrong)


def test_what_tests_a_module_elsewhere_is_there_and_names_something_of_it() -> None:
    wrong = []
    for module, (why, tests) in ELSEWHERE.items():
        assert why, module
        assert tests, module
        for test, word in tests.items():
            for path in (SOURCES / f"{module}.py", TESTS / f"{test}.py"):
                if not path.exists():
                    wrong.append(f"{module}: {path} is not there; change ELSEWHERE")
                elif not re.search(rf"(?<!\w){re.escape(word)}(?!\w)", path.read_text()):
                    wrong.append(f"{module}: {word!r} does not stand in {path}; give ELSEWHERE another word, or test")
    assert not wrong, "\n".join(wrong)


def test_every_test_in_a_room_is_of_one_of_its_modules() -> None:
    tests = {str(path.relative_to(TESTS))[:-3] for room in ROOMS for path in (TESTS / room).glob("test_*.py")}
    strange = {test for test in tests if not (SOURCES / f"{test.replace('/test_', '/')}.py").exists()}
    wrong = [
        f"tests/{test}.py is of no module: name it after one, move it to tests/e2e, or say in BESIDE what it is about"
        for test in sorted(strange - BESIDE.keys())
    ]
    wrong += [f"{test} is of a module or not there: take it out of BESIDE" for test in sorted(BESIDE.keys() - strange)]
    assert not wrong, "\n".join(wrong)


def test_what_is_of_no_module_has_a_name_of_its_own() -> None:
    found = sorted(TESTS.rglob("test_*.py"))
    counts = Counter(path.name for path in found)
    wrong = [
        f"tests/{path.relative_to(TESTS)} is of no module, and another test has its name: rename it"
        for path in found
        if counts[path.name] > 1 and path.name != "test_contract.py"
        if not (SOURCES / path.parent.relative_to(TESTS) / path.name.removeprefix("test_")).exists()
    ]
    assert not wrong, "\n".join(wrong)


def test_what_tests_share_is_in_support() -> None:
    wrong = [
        f"{path.relative_to(ROOT)} imports from {found}: move what both need to tests/support"
        for path in sorted(TESTS.rglob("*.py"))
        for found in re.findall(r"^from (tests\.\S*\b(?:test_\w+|conftest)) import", path.read_text(), re.MULTILINE)
    ]
    assert not wrong, "\n".join(wrong)


# --- what the code says of itself

SAID_SO = re.compile(r"(?:``[^`]+``|velocity-ws|[A-Z][\w, -]*): \S.*\.")
BANNED = re.compile(r"\b(?:whoever|whomever|See the module|so many)\b", re.IGNORECASE)
FEW_WORDS = 4


def docstrings_in(tree: ast.Module | ast.ClassDef) -> Iterator[tuple[str, str]]:
    """The name and the docstring of every public class and function."""
    for node in tree.body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and not node.name.startswith("_"):
            if (text := ast.get_docstring(node)) is not None:
                yield node.name, text
            if isinstance(node, ast.ClassDef):
                yield from docstrings_in(node)


def faults_of_prose(source: str, rooms: Collection[str]) -> list[str]:
    """What the house does not allow in the prose and the loggers of a module, given the names of its rooms."""
    tree = ast.parse(source)
    head = ast.get_docstring(tree, clean=False) or ""
    faults = []
    if not SAID_SO.match(head.split("\n\n")[0]):
        faults.append('it opens with "Name: its job. What it must not know.", on one line')
    faults += [f"it says {found!r}: say it in plain words" for found in BANNED.findall(source)]
    faults += [
        f"the docstring of {name} is {text!r}: say what it does, in a sentence"
        for name, text in docstrings_in(tree)
        if len(text.split()) < FEW_WORDS and "`" not in text
    ]
    loggers = re.findall(r'get_logger\("velocity_ws\.([^"]*)"\)', source)
    faults += [f"its logger {name!r} is not named after its room" for name in loggers if name not in rooms]
    return faults


@pytest.mark.parametrize(
    ("source", "faults"),
    [
        ('"""Hub: who is here. Knows no socket."""\n\nlog = get_logger("velocity_ws.sessions")', 0),
        ('"""``memory://name``: a bus within one process. Knows no network."""', 0),
        ('"""What is in here."""', 1),
        ("", 1),
        ('"""Hub: clients."""\n\ndef stop():\n    """End it."""', 1),
        ('"""Hub: clients."""\n\ndef _stop():\n    """End it."""', 0),
        ('"""Hub: clients."""\n\nclass _Hub:\n    def stop(self):\n        """End it."""', 0),
        ('"""Hub: clients."""\n\ndef stop():\n    """Blocking `Hub.stop`."""', 0),
        ('"""Hub: clients."""\n\nclass Hub:\n    """See the module. On one loop."""', 1),
        ('"""Hub: clients."""\n\nlog = get_logger("velocity_ws.hub")', 1),
    ],
)
def test_prose_that_the_house_does_not_allow_is_found(source: str, faults: int) -> None:
    assert len(faults_of_prose(source, {"sessions"})) == faults


def test_every_module_says_in_plain_words_what_it_does() -> None:
    wrong = []
    for path in SOURCES.rglob("*.py"):
        module = str(path.relative_to(SOURCES))[:-3]
        faults = faults_of_prose(path.read_text(), path.relative_to(SOURCES).parts[:-1])
        wrong += [f"{module}: {fault}" for fault in faults]
    assert not wrong, "\n".join(sorted(wrong))
