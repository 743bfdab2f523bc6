"""Claims about the source tree: imports go as docs/explain/architecture.md says, and pure folders are pure."""

from __future__ import annotations

import ast
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.support.source_tree import FILES, ROOT, SOURCE, imports_of, name_of

IMPURE = {
    "asyncio", "fcntl", "logging", "mmap", "multiprocessing", "os", "pathlib", "random", "secrets", "select",
    "selectors", "shutil", "signal", "socket", "ssl", "subprocess", "tempfile", "threading",
}  # fmt: skip

CLOCKS = {f"{name}{unit}" for name in ("time", "monotonic", "perf_counter", "process_time") for unit in ("", "_ns")} | {
    "sleep", "localtime",
}  # fmt: skip
"""What a pure folder may not take from `time`; spelling a given time is pure."""

LATE = {
    ("__main__.py", "srvd.linux.interpreter"),  # only a start begins with an interpreter
    ("__main__.py", "srvd.cli.fast"),  # after that: it boots while this is imported
    (
        "cli/start.py",
        "srvd.daemon.entry.start",
    ),  # what makes a start slow; bad news on the command line must not wait for it
    ("cli/start.py", "srvd.cli.develop"),  # only for a pool under development
    ("zygote/loading.py", "srvd.worker.develop.loading"),  # the same
    ("worker/main.py", "srvd.worker.develop.holding"),  # the same
    ("worker/main.py", "srvd.worker.develop.terminal"),  # the same
    ("worker/main.py", "srvd.worker.develop.loading"),  # the same
    ("log.py", "json"),  # 2 to 10 ms, only for a JSON log of an application that writes JSON
    ("cli/fast.py", "srvd.cli.saying"),  # the same
    ("cli/fast.py", "srvd.cli.app"),  # click costs 18 ms, which a plain start does not wait for
    ("cli/app.py", "srvd.daemon.entry.file_check"),  # with the next one
    ("cli/app.py", "srvd.daemon.entry.load_check"),  # only `srvd check` starts processes
    ("cli/app.py", "srvd.daemon.entry.self_check"),  # it imports everything
    ("usage.py", "srvd.manual"),  # only `help TOPIC` needs the declarations of all settings
    ("daemon/listeners.py", "srvd.linux.holders"),  # only when an address is in use
    ("daemon/dispatch/tracing.py", "srvd.core.trace"),  # only with log_level = "debug"
    ("daemon/foundation.py", "traceback"),  # 3 ms; the rest of the daemon imports it while the first zygotes load
    ("daemon/entry/start.py", "srvd.daemon.recovery.recover"),  # daemons seldom die, and every start would wait for it
    ("daemon/entry/live.py", "srvd.daemon.entry.succeed"),  # the same
    ("daemon/entry/live.py", "srvd.daemon.assembly"),  # the first zygotes load meanwhile
    ("_zygote_entry.py", "srvd.zygote.main"),  # without the collector
    ("zygote/becoming.py", "srvd.linux.processes.prctl"),  # a Python may lack ctypes, few pools change their user
    ("linux/processes/tether.py", "srvd.linux.processes.prctl"),  # a Python may lack ctypes
    ("worker/main.py", "site"),  # only where it was left out before
    ("zygote/departures.py", "site"),  # the same
    ("linux/processes/deadman.py", "ctypes"),  # a Python may be built without it
    ("daemon/watch/headroom.py", "psutil"),  # only when somebody asks for figures; it costs 10 ms
    ("zygote/fronting.py", "srvd.worker.net.front"),  # only for listeners with PROXY, TLS or trusted proxies
    ("worker/net/front.py", "srvd.worker.net.tls"),  # ssl costs 11 ms and 3 MB: only for listeners that speak TLS
    ("config/spelling/target.py", "ast"),  # 4 ms, only for a factory with arguments
    ("worker/conventions.py", "srvd.worker.gevent.serving"),  # where the package is not always installed
    ("worker/main.py", "srvd.worker.gevent.serving"),
    ("zygote/loading.py", "srvd.zygote.patching"),
    ("zygote/patching.py", "gevent"),
    ("zygote/patching.py", "srvd.worker.gevent.serving"),  # only before the patch, so that they have the originals
    ("zygote/patching.py", "srvd.worker.net.tls"),
    ("worker/conventions.py", "srvd.worker.asgi.serving"),  # asyncio costs 45 ms, and a pool of WSGI does without
    ("config/values.py", "ipaddress"),  # 2 ms, only when a configuration names networks
    ("config/check.py", "srvd.tls.context"),  # ssl costs 11 ms, and is needed only when certificates are named
    ("config/load.py", "srvd.config.toml"),  # tomllib costs 4 to 15 ms, and a start by flags has no file
}
"""Imports inside of functions, and why."""


class Row(NamedTuple):
    pure: bool
    own: frozenset[str]
    outside: frozenset[str]


def table() -> dict[str, Row]:
    """The rows of the table in docs/explain/architecture.md, by the part of the tree: "core", "cli"."""
    rows = {}
    for line in (ROOT / "docs" / "explain" / "architecture.md").read_text().splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if len(cells) == 4 and cells[0].startswith("`"):
            part = cells[0].strip("`").removesuffix("/").removesuffix(".py")
            own, outside = (frozenset(cell.replace("–", "").replace(" ", "").split(",")) - {""} for cell in cells[2:])
            rows[part] = Row(cells[1].startswith("PURE"), own, outside)
    return rows


TABLE = table()


def part_of(path: Path) -> str:
    return path.relative_to(SOURCE).parts[0].removesuffix(".py")


def may_import(part: str, row: Row, module: str) -> bool:
    steps = module.split(".")
    if steps[0] != "srvd":
        return steps[0] in sys.stdlib_module_names or steps[0] in row.outside
    if len(steps) == 1 or module == "srvd.__version__" or steps[1] == part:
        return True
    return bool({steps[1], ".".join(steps[1:3])} & row.own)


def test_every_part_of_the_tree_has_its_row() -> None:
    parts = {part_of(path) for path in FILES} - {"__init__"}
    assert parts == set(TABLE)


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_imports_go_the_way_the_table_says(path: Path) -> None:
    part = part_of(path)
    row = TABLE.get(part, Row(False, frozenset(), frozenset()))
    found = [
        f"{path}:{one.line} imports {one.module}" for one in imports_of(path) if not may_import(part, row, one.module)
    ]
    assert found == []


def narrow_parts() -> dict[str, frozenset[str]]:
    """The second table: what a part of a folder may import of the program, by its path."""
    rows = {}
    for line in (ROOT / "docs" / "explain" / "architecture.md").read_text().splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if len(cells) == 3 and cells[0].startswith("`") and "/" in cells[0].strip("`/"):
            rows[cells[0].strip("`/")] = frozenset(cells[2].replace(" ", "").split(","))
    return rows


@pytest.mark.parametrize(("part", "allowed"), narrow_parts().items())
def test_parts_of_a_folder_import_only_what_they_may(part: str, allowed: frozenset[str]) -> None:
    files = [path for path in FILES if path.is_relative_to(SOURCE / part)]
    assert files
    found = [
        f"{path}:{one.line} imports {one.module}"
        for path in files
        for one in imports_of(path)
        for steps in [one.module.split(".")]
        if steps[0] == "srvd" and not {steps[1], ".".join(steps[1:3])} & allowed
    ]
    assert found == []


def test_connections_commands_and_http_are_narrow_parts() -> None:
    """Neither a connection nor a command knows a calling convention: `worker/wsgi/` is above them."""
    for part in ("worker/net", "worker/supervision"):
        assert not {"worker", "worker.wsgi"} & narrow_parts()[part]
    assert not {"worker"} & TABLE["http"].own


@pytest.mark.parametrize("part", [part for part, row in TABLE.items() if row.pure])
def test_pure_folders_touch_nothing(part: str) -> None:
    found = [
        f"{path}:{one.line} imports {one.module}"
        for path in FILES
        if part_of(path) == part
        for one in imports_of(path)
        if one.module.split(".")[0] in IMPURE
    ]
    assert found == []


@pytest.mark.parametrize("part", [part for part, row in TABLE.items() if row.pure])
def test_pure_folders_read_no_clock(part: str) -> None:
    for path in FILES:
        for node in ast.walk(ast.parse(path.read_text())) if part_of(path) == part else ():
            names: set[str] = set()
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "time":
                names = {node.attr}
            elif isinstance(node, ast.ImportFrom) and node.module == "time":
                names = {alias.name for alias in node.names}
            assert not names & CLOCKS, f"{path} reads a clock"


def test_imports_inside_of_functions_are_the_few_with_a_reason() -> None:
    found = {(str(path.relative_to(SOURCE)), one.module) for path in FILES for one in imports_of(path) if one.late}
    assert found == LATE


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_every_module_says_what_it_is_and_what_it_is_not(path: Path) -> None:
    text = path.read_text()
    docstring = ast.get_docstring(ast.parse(text))
    assert not text or docstring
    if docstring and path.name != "__init__.py":
        assert len(docstring.splitlines()) >= 2, "line one says what it is, the next paragraph what it is not"


def test_records_are_defined_where_annotations_are_strings() -> None:
    """Python 3.14 would not give them to a class body otherwise."""
    users = [path for path in FILES if "import Record" in path.read_text() and path.name != "record.py"]
    assert users
    assert [str(path) for path in users if "from __future__ import annotations\n" not in path.read_text()] == []


def test_a_start_defines_no_named_tuples_of_the_slow_kind() -> None:
    """Workers make theirs for each request, and the tables of settings need their annotations evaluated."""
    allowed = {"record.py", "config/settings.py", "config/pool_settings.py"}
    slow = {
        str(path.relative_to(SOURCE))
        for path in FILES
        if "NamedTuple" in path.read_text() and part_of(path) not in ("worker", "http")
    }
    assert slow - allowed == set(), "use srvd.record.Record"


def test_no_file_imports_itself_over_others() -> None:
    """A cycle is two files that can only be understood together; imports for types alone count."""
    modules = {name_of(path): path for path in FILES}
    imports = {name: {one.module for one in imports_of(path)} & set(modules) for name, path in modules.items()}
    while free := {name for name, needed in imports.items() if not needed & set(imports) - {name}}:
        imports = {name: needed for name, needed in imports.items() if name not in free}
    assert imports == {}


MAGIC = {
    ("linux/originals.py", "setattr"),  # gives srvd's modules what gevent replaces, in one place
    ("worker/forked.py", "setattr"),  # bars all methods at once, in a forked child that is about to end
}


def test_no_dispatch_by_magic() -> None:
    for path in FILES:
        for node in ast.walk(ast.parse(path.read_text())):
            if (
                isinstance(node, ast.Call)
                and isinstance(node.func, ast.Name)
                and node.func.id in {"eval", "exec", "setattr"}
                and (str(path.relative_to(SOURCE)), node.func.id) not in MAGIC
            ):
                raise AssertionError(f"{path}:{node.lineno} calls {node.func.id}")
