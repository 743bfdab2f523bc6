"""Executes a gunicorn configuration and prints what it sets, as JSON: run by path, in a process of its own.

Imports nothing of srvd, since the interpreter may be the application's: Python 3.9 and later. `sources.py` reads the
result. Arguments: FILE, the descriptor for the result, and a JSON object with `environ`, `unset`, `absent` and `cpus`.
"""

from __future__ import annotations

import importlib
import importlib.abc
import importlib.machinery
import json
import os
import runpy
import sys
import traceback
import types
from collections.abc import Sequence
from typing import Any

HOOK = "hook"


class Traced(dict[str, str]):
    """The environment, which notes the names that the configuration itself asks for, not its libraries."""

    def __init__(self, held: dict[str, str], file: str) -> None:
        super().__init__(held)
        self.file = file
        self.asked: dict[str, bool] = {}

    def note(self, name: str) -> None:
        frame: Any = sys._getframe(2)  # noqa: SLF001 - the only way to see the caller
        while frame is not None and frame.f_globals.get("__name__") == "os":
            frame = frame.f_back
        if frame is not None and frame.f_code.co_filename == self.file:
            self.asked.setdefault(name, dict.__contains__(self, name))

    def __getitem__(self, name: str) -> str:
        self.note(name)
        return super().__getitem__(name)

    def get(self, name: str, default: Any = None) -> Any:
        self.note(name)
        return super().get(name, default)

    def __contains__(self, name: object) -> bool:
        self.note(str(name))
        return super().__contains__(name)

    def copy(self) -> dict[str, str]:
        return dict(self)


def stand_in() -> None:
    """Puts a module in the place of gunicorn, if that is not installed."""
    try:
        importlib.import_module("gunicorn.glogging")
    except ImportError:
        for name in ("gunicorn", "gunicorn.glogging", "gunicorn.config"):
            module = sys.modules[name] = types.ModuleType(name)
            vars(module).update(Logger=type("Logger", (), {}), SERVER="gunicorn", SERVER_SOFTWARE="gunicorn")
            vars(module).update(version_info=(23, 0, 0), __version__="23.0.0")
        vars(sys.modules["gunicorn"])["glogging"] = sys.modules["gunicorn.glogging"]


class Absent:
    """What a module that is not installed here would have: something that can be called, and has anything."""

    def __init__(self, module: str, name: str) -> None:
        self.__module__, self.__qualname__ = module, name

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return Absent(self.__module__, self.__qualname__ + "." + name)

    def __call__(self, *given: Any, **named: Any) -> Any:
        return self


class Absentees(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Finds modules that are not installed here, and gives a stand-in for each."""

    def __init__(self, packages: Sequence[str]) -> None:
        self.packages = packages

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> Any:
        if name.partition(".")[0] not in self.packages:
            return None
        return importlib.machinery.ModuleSpec(name, self, is_package=True)

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> types.ModuleType:
        module = types.ModuleType(spec.name)

        def give(name: str) -> Absent:
            if name.startswith("__"):
                raise AttributeError(name)
            return Absent(spec.name, name)

        vars(module)["__getattr__"] = give
        return module

    def exec_module(self, module: types.ModuleType) -> None:
        """There is nothing to execute."""


def plain(value: Any) -> Any:
    """The value as JSON can hold it; a function or class by its names."""
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, (list, tuple, set, frozenset)):
        return [plain(item) for item in value]
    if isinstance(value, dict):
        return {str(name): plain(item) for name, item in value.items()}
    if callable(value):
        return {HOOK: [str(getattr(value, "__module__", "")), str(getattr(value, "__qualname__", ""))]}
    return repr(value)


def count_processors(cpus: int) -> list[bool]:
    """Gives the machine so many processors, as it seems. Returns a list that ends with True once they were counted."""
    asked = [False]

    def count(*_ignored: Any, **_named: Any) -> Any:
        asked.append(True)
        return cpus

    def affinity(*_ignored: Any) -> set[int]:
        asked.append(True)
        return set(range(cpus))

    vars(os).update(cpu_count=count, process_cpu_count=count, sched_getaffinity=affinity)
    return asked


def run(file: str, given: dict[str, Any]) -> dict[str, Any]:
    held = {name: text for name, text in os.environ.items() if name not in given["unset"]}
    held.update(given["environ"])
    os.environ.clear()
    os.environ.update(held)
    environ = Traced(held, file)
    vars(os)["environ"] = environ
    counted = count_processors(given["cpus"] or os.cpu_count() or 1)
    stand_in()
    sys.meta_path.append(Absentees(given["absent"]))
    sys.path.insert(0, os.getcwd())
    sys.argv[:] = ["gunicorn"]
    result: dict[str, Any] = {"missing": "", "absent": "", "error": "", "values": {}}
    try:
        names = runpy.run_path(file, run_name="__config__")
        result["values"] = {
            name: plain(value)
            for name, value in names.items()
            if not name.startswith("__") and not isinstance(value, types.ModuleType)
        }
    except KeyError as exc:
        name = exc.args[0] if exc.args else None
        result["missing"] = name if isinstance(name, str) and not environ.asked.get(name, True) else ""
        result["error"] = traceback.format_exc()
    except ModuleNotFoundError as exc:
        result["absent"] = (exc.name or "").partition(".")[0]
        result["error"] = traceback.format_exc()
    except BaseException:
        result["error"] = traceback.format_exc()
    return {**result, "asked": environ.asked, "counted": counted[-1]}


if __name__ == "__main__":
    name, descriptor, text = sys.argv[1:4]
    answer = json.dumps(run(os.path.abspath(name), json.loads(text)))
    with os.fdopen(int(descriptor), "w") as out:
        out.write(answer)
    sys.stdout.flush()
    os._exit(0)  # what the configuration started does not matter any more
