"""Marks are never given twice, however they are drawn, and by whatever process."""

from __future__ import annotations

import os
import sys
import threading

import pytest

from velocity_ws.history.marks import DRAWN, new_mark
from velocity_ws.history.positions import MARK_SIZE


def test_no_mark_is_given_twice() -> None:
    marks = [new_mark() for _ in range(3 * DRAWN)]
    assert len(set(marks)) == len(marks)
    assert {len(mark) for mark in marks} == {MARK_SIZE}


def test_threads_are_given_different_ones() -> None:
    given: list[bytes] = []

    def take() -> None:
        given.extend(new_mark() for _ in range(10 * DRAWN))

    threads = [threading.Thread(target=take) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(given)) == 40 * DRAWN


@pytest.mark.skipif(sys.platform == "win32", reason="there is no fork")
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_a_fork_is_given_others() -> None:
    new_mark()  # so that some are drawn
    read, write = os.pipe()
    child = os.fork()
    if not child:
        os.write(write, b"".join(new_mark() for _ in range(10)))
        os._exit(0)
    os.waitpid(child, 0)
    data = os.read(read, 10 * MARK_SIZE)
    os.close(read)
    os.close(write)
    theirs = {data[at : at + MARK_SIZE] for at in range(0, len(data), MARK_SIZE)}
    assert len(theirs) == 10
    assert theirs.isdisjoint(new_mark() for _ in range(2 * DRAWN))
