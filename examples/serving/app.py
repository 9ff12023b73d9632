"""Features over HTTP, read from an embedded replica: what a model server asks for before it predicts.

    python -m uvicorn app:app          one worker
    python -m gunicorn                 two workers on one mount, as gunicorn.conf.py says

Settings are the IKV_* variables of ClientOptions.from_env; README.md goes through them. Answers are JSON. Strings,
whole numbers, booleans and finite floats are themselves; what JSON cannot carry is an object that names its type, as
`ikv get` prints it: {"bytes": "<base64>"}, {"float64": "NaN"}. Every refusal is {"detail": "words"}.
"""

from __future__ import annotations

import base64
import math
import os
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict
from typing import Annotated, Any, Final, TypeAlias

from fastapi import Depends, FastAPI, HTTPException, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field

from ikvcore.clientoptions import ClientOptions
from ikvcore.errors import (
    IngestHaltedError,
    InvalidArgumentError,
    LifecycleError,
    ReplicaDamagedError,
    StorageError,
    TransportError,
    WaitTimeoutError,
)
from ikvcore.factory import create_new_reader
from ikvcore.fields import FieldType, Value

MAX_KEYS: Final = 1_000
MAX_FIELDS: Final = 100
MAX_VALUES: Final = 20_000
"""Of one request, keys times fields: what the event loop is held up for, some 20 ms."""

PATIENCE: Final = float(os.environ.get("SERVING_STARTUP_SECONDS", "5"))
"""How long a start may wait for the log's end; well under gunicorn's `timeout`."""

reader = create_new_reader(ClientOptions.from_env())
"""The reader of this worker. Making it opens nothing; `start` does, and must run in the worker itself."""


# -- life --------------------------------------------------------------------------------------


def start() -> None:
    """Open the replica. Usually it is fresh in no time; then this worker's first answer is as good as any other's.

    Where there is much to catch up with, or ingest has halted, go on after a while: the worker answers its probes, and
    readiness tells how far it is. A start that waits for longer would look to gunicorn like a worker that hangs.
    Starting again does nothing.
    """
    try:
        reader.startup(timeout=PATIENCE)
    except (WaitTimeoutError, IngestHaltedError, ReplicaDamagedError):
        reader.startup(allow_stale=True)


@asynccontextmanager
async def lifespan(_: FastAPI) -> AsyncIterator[None]:
    start()
    try:
        yield
    finally:
        reader.shutdown()  # no request is left by now; another worker of the mount ingests at once


async def name_worker(response: Response) -> None:
    """Say who answered, to whoever looks into a matter of one worker."""
    response.headers["X-Worker"] = str(os.getpid())


app = FastAPI(title="Features", lifespan=lifespan, dependencies=[Depends(name_worker)])


# -- health ------------------------------------------------------------------------------------


class Readiness(BaseModel):
    """The state of `IKVReader.health`."""

    state: str
    reason: str


class Gate:
    """Closed until this worker has seen what was in the log when it started.

    It stays open then. Whether a worker whose ingest halts later gets requests is the load balancer's to decide, by
    readiness: its values are right, of an earlier time, and perhaps better than none.
    """

    def __init__(self) -> None:
        self._open = False

    async def __call__(self) -> None:
        if self._open:
            return
        health = reader.health()
        if not health.ready:
            raise HTTPException(503, f"not ready ({health.state}): {health.reason}")
        self._open = True


@app.get("/health/live")
async def live() -> dict[str, int]:
    """200 as long as the process answers. Not more: starting it again would mend nothing that readiness tells of."""
    return {"pid": os.getpid()}


@app.get("/health/ready", responses={503: {"model": Readiness}})
async def ready(response: Response) -> Readiness:
    """200 if the replica is up to date and is kept so, else 503 with the reason."""
    health = reader.health()
    response.status_code = 200 if health.ready else 503
    return Readiness(state=health.state, reason=health.reason)


# -- features ----------------------------------------------------------------------------------
#
# These handlers are `async def` although they await nothing. A read takes microseconds and never waits for a network or
# a lock, so it can run in the event loop. With `def`, each request would go through a pool of threads, which costs more
# than the read itself.

Feature: TypeAlias = bool | int | float | str | dict[str, str] | None


class Question(BaseModel):
    """Which fields of which documents."""

    model_config = ConfigDict(extra="forbid")  # a misspelt name is better refused than passed over

    keys: list[str] = Field(min_length=1, max_length=MAX_KEYS)
    fields: list[str] = Field(min_length=1, max_length=MAX_FIELDS)


class Answer(BaseModel):
    """One row for each key asked, in that order; null for a document that is not there."""

    fields: list[str]
    rows: list[list[Feature] | None]
    """Values in the order of `fields`, null for one that is not there."""


gate = Gate()


@app.post("/features", dependencies=[Depends(gate)])
async def features(question: Question) -> Answer:
    """Fields of many documents, all of one state of the replica."""
    asked = len(question.keys) * len(question.fields)
    if asked > MAX_VALUES:
        raise HTTPException(422, f"keys times fields are {asked:,}, and may be {MAX_VALUES:,}; ask in parts")
    rows = reader.get_rows(question.keys, question.fields)
    return Answer(fields=question.fields, rows=[None if row is None else values(row[1], row[2]) for row in rows])


@app.get("/features/{key:path}", dependencies=[Depends(gate)])
async def document(
    key: str, fields: Annotated[list[str] | None, Query(min_length=1, max_length=MAX_FIELDS)] = None
) -> dict[str, Feature]:
    """One document: `?fields=a&fields=b` of its fields, null for one that is not there; without it, all it has."""
    (row,) = reader.get_rows([key], fields)
    if row is None:
        raise HTTPException(404, f"there is no document {key!r}")
    return dict(zip(row[0], values(row[1], row[2]), strict=True))


@app.get("/stats")
def stats() -> dict[str, Any]:
    """Figures of the replica. It asks the log, perhaps over a network, and so is a `def`, with a thread to wait in."""
    return {"pid": os.getpid(), **asdict(reader.stats())}


def values(types: Sequence[FieldType | None], found: Sequence[Value | None]) -> list[Feature]:
    """A row as JSON has it."""
    return [
        plain(field_type, value) if isinstance(value, (bytes, float)) else value
        for field_type, value in zip(types, found, strict=True)
    ]


def plain(field_type: FieldType | None, value: bytes | float) -> Feature:
    """Bytes and floats: JSON has neither bytes nor NaN, and a null in their place would say that they are missing."""
    if isinstance(value, bytes):
        return {"bytes": base64.b64encode(value).decode()}
    if math.isfinite(value) or field_type is None:
        return value
    return {field_type.name.lower(): {math.inf: "Infinity", -math.inf: "-Infinity"}.get(value, "NaN")}


# -- refusals ----------------------------------------------------------------------------------


@app.exception_handler(RequestValidationError)
async def not_understood(_: Request, exc: RequestValidationError) -> JSONResponse:
    """What the models refuse, in words and without the input, which may be long and may be no text."""
    words = [f"{'.'.join(map(str, error['loc']))}: {error['msg']}" for error in exc.errors()[:5]]
    return refused(422, "; ".join(words))


@app.exception_handler(InvalidArgumentError)
async def not_possible(_: Request, exc: InvalidArgumentError) -> JSONResponse:
    """Keys and field names that no document can have."""
    return refused(422, str(exc))


@app.exception_handler(LifecycleError)
@app.exception_handler(StorageError)
@app.exception_handler(TransportError)
async def not_now(_: Request, exc: Exception) -> JSONResponse:
    """A reader that is shut down; a replica that is being rebuilt; figures of a log that cannot be asked."""
    return refused(503, str(exc))


def refused(status: int, words: str) -> JSONResponse:
    return JSONResponse({"detail": words.encode(errors="backslashreplace").decode()}, status)
