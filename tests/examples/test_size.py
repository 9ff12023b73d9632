"""The plugins of examples/ are what an author can read in one sitting."""

from __future__ import annotations

from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"
MODULES = sorted(EXAMPLES.glob("ikv-*/*.py"))


def test_there_are_plugins() -> None:
    assert {"ikv_backend_plyvel.py", "ikv_transport_redis.py"} <= {path.name for path in MODULES}


@pytest.mark.parametrize("module", MODULES, ids=lambda path: path.stem)
def test_a_plugin_is_one_module_of_less_than_200_lines(module: Path) -> None:
    """On public modules of ikvcore alone."""
    lines = module.read_text("utf-8").splitlines()
    assert len(lines) < 200
    assert [line for line in lines if "ikvcore._" in line or "import _" in line] == []
    assert len(list(module.parent.glob("*.py"))) == 1
