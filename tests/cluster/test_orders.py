"""MissedOrders: when a node may have missed an order, and that it sees so before anything else is done."""

from __future__ import annotations

import pytest

from velocity_ws.backplane.memory import MemoryBackplane
from velocity_ws.cluster.options import ClusterOptions
from velocity_ws.cluster.orders import MissedOrders, missed_orders


class Node:
    """Whose clock is turned by hand; how often it may have missed an order."""

    def __init__(self) -> None:
        self.now = 0.0
        self.missed = 0
        self.orders = MissedOrders(5.0, lambda: self.now)
        self.orders.on_missed.append(self.count)

    def count(self) -> None:
        self.missed += 1


def test_each_connection_may_have_missed_one_until_something_arrives() -> None:
    node = Node()
    for connections in (1, 2):
        node.orders.connecting()
        node.orders.connecting()  # the first did not come about
        node.now += 0.5
        node.orders.look()
        assert node.missed == connections - 1
        for _ in range(2):
            node.orders.arriving()
            assert node.missed == connections


@pytest.mark.parametrize("by_what", ["arriving", "look"])
def test_a_node_that_stood_still_may_have_missed_one(by_what: str) -> None:
    node = Node()
    node.orders.arriving()
    for late, missed in ((5.0, 1), (5.1, 2), (0.5, 2)):
        node.now += late
        getattr(node.orders, by_what)()
        assert node.missed == missed


def test_where_the_order_across_topics_is_not_kept_it_may_stand_still_no_longer_than_others_wait() -> None:
    backplane, options = MemoryBackplane("memory://orders"), ClusterOptions("velocity", timeout=1.0, lease=10.0)
    assert missed_orders(backplane, options, float)._longest == 5.0
    vars(backplane)["is_ordered"] = False
    assert missed_orders(backplane, options, float)._longest == 1.0
