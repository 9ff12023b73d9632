"""Certifying a plugin: tiers of tests, a verdict that means something, and a report.

With no file: `ikv conformance backend NAME`, `ikv conformance transport NAME`. Or as a test file of the author's:

    from ikvcore.testing.conformance import BackendConformance

    class TestMine(BackendConformance):
        name = "mine"

pytest then runs the tests of the class's tiers, the core tier by default, and fails unless the verdict is clean. What a
verdict counts is in verdict.py, what a tier is made of in tiers.py.
"""

from __future__ import annotations

from ikvcore.testing.conformance._classes import BackendConformance, TransportConformance
from ikvcore.testing.conformance.tiers import TIERS

__all__ = ["TIERS", "BackendConformance", "TransportConformance"]
