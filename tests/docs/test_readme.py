"""README.md's program does what README.md says."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path


def test_program(root: Path, carry_out_document: Callable[[str, str], None]) -> None:
    """The commands and programs run, and print what is printed there."""
    carry_out_document("README.md", (root / "README.md").read_text(encoding="utf-8"))


def test_test_command(root: Path) -> None:
    """The test command that it names is a target of the Makefile."""
    assert "\nmake test\n" in (root / "README.md").read_text(encoding="utf-8")
    assert "\ntest:" in (root / "Makefile").read_text(encoding="utf-8")
