"""What the fake model draws its answers from."""

OPENINGS = [
    "Good question.",
    "Let us look at that without haste.",
    "I have thought about it for as long as a random generator can.",
    "Here is what I would tell a colleague.",
]

SUMMARIES = [
    """I am not a model: I draw these sentences from a small list, at forty tokens a second. What you can try with me is
all that happens *around* a model, which is where answers get lost.""",
    """Nothing here was understood, but all of it was delivered. The same prompt gives the same text, so you can compare
what two devices show, character by character.""",
    """Take this text for whatever a real model would say. It is as long, it comes as slowly, and it survives the same
accidents.""",
]

POINTS = [
    ("Refresh this page", "the text so far is there at once, and the rest follows as it comes."),
    ("Open it on another device", "both show the same, however late the second one came."),
    ("Close the page", "I go on writing. I belong to the server, and not to your connection."),
    ("Press Stop", "it works from *any* device, whichever worker I run on."),
    ("Switch off the network", "what you have missed comes when it is back, once and in order."),
    ("Kill my worker", "what I have said so far stays, and you are told that the rest is lost."),
    ("Ask something else meanwhile", "answers do not wait for each other."),
]

STEPS = [
    "The question gets an id before it is sent, so that sending it twice asks once.",
    "The server starts a stream under that id, and goes on with other things.",
    "Everybody in the room reads it: `ws.stream(id)` has all that was said, and then what comes.",
    "When it ends, the end is a part of it: done, stopped, failed or lost.",
    "Another attempt is another id, so no answer is ever mixed with a second one.",
]

PROGRAMS = [
    """async def answer(prompt):
    async for token in model(prompt):
        yield token  # <b>never</b> read as HTML

await broker.streams.start("answer-42", room="chat:7", source=answer("why?"))
""",
    """def backwards(words):
    return " ".join(reversed(words.split()))

assert backwards("lost is nothing") == "nothing is lost"
""",
    """state = await broker.streams.read("answer-42")
if state.end == "lost":
    print("the worker died after:", state.text[-40:])
""",
]

CLOSINGS = [
    "That is all. Ask me again, and I will say it in the same words.",
    "I could go on, but I have come to the end of my list.",
    "If this reached you in one piece, then it worked.",
]
