"""A web application for gunicorn: opens its clients where IKV_FAULTS_OPEN says, and works with them at each request."""

from __future__ import annotations

import itertools
import json
import os
from collections.abc import Callable, Iterable
from typing import Any

from ikvcore.errors import ForkedError
from ikvcore.testing.faults import offspring
from ikvcore.testing.faults.target import Target
from ikvcore.testing.faults.workload import Workload

__all__ = ["application", "post_fork"]

_given = json.loads(os.environ["IKV_FAULTS_CONFIG"])
_target, _workload = Target.from_json(_given["target"]), Workload(**_given["workload"])
_requests = itertools.count()

if os.environ["IKV_FAULTS_OPEN"] == "import":
    offspring.open_here(_target)


def post_fork(server: Any, worker: Any) -> None:
    """gunicorn's hook."""
    if os.environ["IKV_FAULTS_OPEN"] == "post_fork":
        offspring.open_here(_target)


def application(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    """Answers with what became of a few writes and reads."""
    writer, reader = offspring.CLIENTS
    try:
        said = offspring.work_with(writer, reader, _target, _workload, os.getpid(), 3 * next(_requests))
    except ForkedError:
        said = "ForkedError"
    except Exception as exc:
        said = f"{type(exc).__name__}: {exc}"
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(said.encode())))])
    return [said.encode()]
