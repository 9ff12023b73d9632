"""A badge whose words are computed from what was verified alone, as JSON that shields.io's endpoint badge takes.

Format: https://shields.io/badges/endpoint-badge. Nothing here uses the network.
"""

from __future__ import annotations

from typing import Any

from ikvcore.testing.conformance.tiers import TIERS
from ikvcore.testing.conformance.verdict import Verdict

__all__ = ["badge", "level", "message"]


def level(verdict: Verdict) -> str:
    """failed, none, core, or complete: all tiers are verified but those that only measure."""
    if not verdict.clean:
        return "failed"
    if "core" not in verdict.verified:
        return "none"
    wanted = {tier.name for tier in TIERS if not tier.measures}
    return "complete" if wanted <= set(verdict.verified) else "core"


def message(verdict: Verdict) -> str:
    """The badge's words: the tiers that are verified, and how many deviations were stated."""
    deviating = sum(state == "known deviation" for state in verdict.states.values())
    more = ", ".join(name for name in verdict.verified if name != "core")
    words = {
        "failed": "failed",
        "none": "not certified",
        "core": f"core, {more}" if more else "core",
        "complete": "complete",
    }[level(verdict)]
    if deviating:
        words += f"; {deviating} known deviation{'' if deviating == 1 else 's'}"
    return words


def badge(verdict: Verdict) -> dict[str, Any]:
    """The content of badge.json."""
    colors = {"failed": "red", "none": "lightgrey", "core": "green", "complete": "brightgreen"}
    return {
        "schemaVersion": 1,
        "label": "ikvcore conformance",
        "message": message(verdict),
        "color": colors[level(verdict)],
    }
