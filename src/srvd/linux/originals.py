"""The functions of the standard library that srvd needs as they are, although gevent replaces them for an application.

One place: `keep` gives each module of srvd the modules of before the replacement. Replaces nothing itself.
"""

from __future__ import annotations

import importlib.util
import os
import select
import socket
import sys
import time
from types import ModuleType

__all__ = ["keep", "replaced_by"]

_replacement = ""


def replaced_by() -> str:
    """Returns the name of the package that has replaced functions because the pool's `engine` says so, or ""."""
    return _replacement


def keep(name: str) -> None:
    """Makes all modules of srvd that are imported use the present functions from now on. To be called once, just
    before the package `name` replaces them.
    """
    global _replacement  # noqa: PLW0603  # the process is changed as a whole, too
    _replacement = name
    # Python's accept() makes a `socket.socket` by the global name, so a copy of the names does not do: a module anew.
    kept = {id(socket): _anew(socket)} | {id(module): _copy(module) for module in (os, select, time)}
    for module in [module for name, module in sys.modules.items() if name.partition(".")[0] == "srvd"]:
        for attribute, value in list(vars(module).items()):
            if isinstance(value, ModuleType) and id(value) in kept:
                setattr(module, attribute, kept[id(value)])


def _copy(module: ModuleType) -> ModuleType:
    copy = ModuleType(module.__name__)
    vars(copy).update(vars(module))
    return copy


def _anew(module: ModuleType) -> ModuleType:
    assert module.__spec__ is not None
    assert module.__spec__.loader is not None
    made = importlib.util.module_from_spec(module.__spec__)
    sys.modules[module.__name__] = made  # `enum` enters constants into the module of this name
    try:
        module.__spec__.loader.exec_module(made)
    finally:
        sys.modules[module.__name__] = module
    return made
