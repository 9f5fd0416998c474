"""What holds for every test."""

from __future__ import annotations

import hypothesis

from tests.support.say import say

__all__ = ["say"]

# A deadline for one example says more of what else the machine does than of the code; pytest has one for the test.
hypothesis.settings.register_profile("no deadline", deadline=None)
hypothesis.settings.load_profile("no deadline")
