"""A backend for a later plugin API."""

import dataclasses

from ikv_backends import memory
from ikvcore.hookspecs import hookimpl


@hookimpl
def ikv_backend_info():
    return dataclasses.replace(memory.ikv_backend_info(), api_version=2)


@hookimpl
def ikv_open_backend(context, budget):
    raise NotImplementedError
