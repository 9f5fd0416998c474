"""What type checkers have to refuse: each line that ends with a mark, and no other."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

from velocity_ws import Accept, Broker, Client, EventRouter, History, Message


class User: ...


class Other: ...


broker = Broker[User]()
chats = broker.rooms("chat:{chat_id}")


async def user(client: Client[User]) -> None:
    await of_text(client.user)  # wrong
    client.user = User()  # wrong
    await client.set_user(Other())  # wrong
    await client.set_user(Accept(Other()))  # wrong
    await client.set_user(User(), "soon")  # wrong
    client.expires_at = None  # wrong


async def of_message(message: Message) -> None: ...
async def of_text(text: str) -> None: ...
async def of_number(number: int) -> None: ...
async def without_name(client: Client[User]) -> None: ...
def generator(client: Client[User]) -> Iterator[int]:
    yield 1


async def async_generator(client: Client[User]) -> AsyncIterator[int]:
    yield 1


async def says_nothing(client: Client[User]) -> None: ...
def answers(client: Client[User]) -> int:
    return 1


async def other(request: object) -> Other:
    return Other()


async def accepts_other(client: Client[User], data: str) -> Accept[Other]:
    return Accept(Other())


def other_in_thread(request: object) -> int:
    return 1


def info_of_other(user: Other) -> dict[str, int]:
    return {}


def no_info(user: User) -> int:
    return 1


broker.authenticate(other)  # wrong
broker.authenticate(other_in_thread)  # wrong
broker.authenticate(accepts_other)  # wrong
broker.authenticate()  # wrong
broker.refresh(other)  # wrong
broker.refresh(other_in_thread)  # wrong
broker.refresh(accepts_other)  # wrong
EventRouter[User]().authenticate(other)  # wrong
Broker[User | None]().authenticate(other)  # wrong
chats.presence_info(info_of_other)  # wrong
chats.presence_info(no_info)  # wrong
Broker[User | None]().rooms("a").presence_info(info_of_other)  # wrong
broker.on_connect(of_message)  # wrong
broker.on_connect(generator)  # wrong
broker.on_connect(async_generator)  # wrong
broker.on_connect(answers)  # wrong
broker.on_connect(5)  # wrong
broker.on_disconnect(of_message)  # wrong
broker.on_message(of_text)  # wrong
broker.on_binary(of_text)  # wrong
broker.on_join(of_number)  # wrong
broker.on_leave(of_number)  # wrong
broker.on_error(of_text)  # wrong
broker.on(without_name)  # wrong
broker.on("said", rate="5")  # wrong
broker.on("said", often=True)  # wrong
broker.on("said")(5)  # wrong
chats.authorize(says_nothing)  # wrong
chats.on_join(of_number)  # wrong
broker.rooms(5)  # wrong
broker.rooms("d", history=100)  # wrong
History(mode="newest")  # wrong
broker.to_room("d").send("said", dedupe=5)  # wrong
broker.to_room("d").send("said", None, False)  # wrong
broker.broadcast("said", dedupe="x")  # wrong
broker.history("d", since=5)  # wrong
broker.join_room("x", "d", since=1.5)  # wrong
broker.join_room("x", "d", "at")  # wrong
broker.include(broker)  # wrong
broker.include(EventRouter[Other]())  # wrong
of: Client[Other] | None = broker.get_client("x")  # wrong
