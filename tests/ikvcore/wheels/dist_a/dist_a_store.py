"""A backend whose name another distribution claims too."""

import dataclasses

from ikv_backends import memory
from ikvcore.hookspecs import hookimpl


@hookimpl
def ikv_backend_info():
    return dataclasses.replace(memory.ikv_backend_info(), name="same", summary=f"the one of {__name__}")


@hookimpl
def ikv_open_backend(context):
    return memory.ikv_open_backend(context)
