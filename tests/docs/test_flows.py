"""Claims about docs/flows.md: what runs in a flow is what is written there.

The processes are real: a daemon, its zygote and workers, srvctl. support/recorder/ notes in each what it calls.
"""

from __future__ import annotations

import ast
import contextlib
import os
import re
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.conftest import Starter
from tests.support.daemon import Srvd, ask, toml
from tests.support.recording import Call, Recording
from tests.support.waiting import wait_for

ROOT = Path(__file__).parents[2]
SOURCES = ROOT / "src" / "srvd"
FLOWS = ROOT / "docs" / "flows.md"

STEP = re.compile(r"`([\w/]+\.py):([\w.]+)`")
FILE = re.compile(r"`([\w/]+\.py)(?::[\w.]+)?`")

CONFIG = toml('workers = 2\nhealth = "/"\nwarm = ["/"]\nbake = "1s"')

APP = """
def app(environ, start_response):
    import colorsys  # after the load: the zygote has to learn it
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"Hello"]
"""

QUIET = 0.6
"""Seconds; the state is at most 0.5 s behind."""

Files = set[str]


class Page:
    """The sections of docs/flows.md by their headings."""

    def __init__(self) -> None:
        parts = re.split(r"^##+ (.+)$", FLOWS.read_text(), flags=re.MULTILINE)
        self._sections = dict(zip(parts[1::2], parts[2::2], strict=True))
        table = re.findall(r"^\| ([^|]+) \| (\d+) \| (\d+) \| (\d+) \|$", parts[0], re.MULTILINE)
        self.budgets = {flow: dict(zip(KINDS, map(int, budget), strict=True)) for flow, *budget in table}

    def flows(self) -> list[str]:
        """Headings of the flows: those before "Shared ways"."""
        headings = list(self._sections)
        return headings[: headings.index("Shared ways")]

    def links(self, heading: str) -> list[tuple[str, str]]:
        """Every `path:function` of the section."""
        return STEP.findall(self._sections[heading])

    def steps(self, flow: str) -> list[tuple[str, str]]:
        """Those that run: of the numbered steps and of the shared ways."""
        return STEP.findall("\n".join([self._numbered(flow), *self._shared(flow)]))

    def files(self, flow: str) -> Files:
        """All that run: those of the steps, those that run "too", those of the shared ways that it leads to."""
        section = self._sections[flow]
        too = re.search(r"^Runs, too:.*?\n\n", section, re.MULTILINE | re.DOTALL)
        return set(FILE.findall("\n".join([self._numbered(flow), too[0] if too else "", *self._shared(flow)])))

    def is_leaf(self, path: str) -> bool:
        named = re.findall(r"`([\w/]+(?:\.py|/))`", self._sections["Leaves"])
        return any(path == leaf or (leaf.endswith("/") and path.startswith(leaf)) for leaf in named)

    def _numbered(self, flow: str) -> str:
        return "".join(re.findall(r"^\d+\. .*\n(?:   .*\n)*", self._sections[flow], re.MULTILINE))

    def _shared(self, flow: str) -> list[str]:
        """The sections that a flow leads to."""
        return [self._sections[self._heading(slug)] for slug in re.findall(r"\]\(#([\w-]+)\)", self._sections[flow])]

    def _heading(self, slug: str) -> str:
        return next(head for head in self._sections if _slug(head) == slug)


KINDS = ("decide", "perform", "persist")

PAGE = Page()


def _slug(heading: str) -> str:
    return re.sub(r"[^a-z0-9 -]", "", heading.lower()).replace(" ", "-")


def names_in(path: Path) -> set[str]:
    """Functions, methods and classes of a file: "function", "Class", "Class.method"."""
    names = set()
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            names.add(node.name)
        if isinstance(node, ast.ClassDef):
            names |= {f"{node.name}.{inner.name}" for inner in node.body if isinstance(inner, ast.FunctionDef)}
    return names


@pytest.mark.parametrize("flow", PAGE.flows())
def test_every_step_of_a_flow_exists(flow: str) -> None:
    assert len(PAGE.steps(flow)) > 3
    for path, name in PAGE.links(flow):
        assert name in names_in(SOURCES / path), f"{flow}: {path}:{name}"


def test_every_flow_has_a_budget_and_is_run() -> None:
    assert set(PAGE.flows()) == set(PAGE.budgets) == set(RUNS)


# -- what runs ------------------------------------------------------------------------------------------------------


class Recorded:
    """A daemon whose calls are noted."""

    def __init__(self, starter: Starter) -> None:
        self.recording = Recording(starter.folder / "recording")
        self.srvd = starter.new(config=CONFIG, code=APP, env=self.recording.env).start()

    def take(self, flow: str) -> list[Call]:
        """Goes through the flow; the calls of the processes that take a step, once all that is written has run."""
        wait_for(self.srvd.is_ready, within=30)
        run = RUNS[flow](self.srvd)
        next(run)
        self.be_quiet()
        with self.recording.window():
            next(run, None)
            try:
                wait_for(lambda: not self.missing(flow), within=30)
            except AssertionError:
                msg = f"{flow}: written in docs/flows.md and did not run: {self.missing(flow)}"
                raise AssertionError(msg) from None
        assert list(run) == []
        return self.calls(flow)

    def be_quiet(self) -> None:
        """The daemon has no client any more, and has saved its state: no turn and no write for a while."""
        wait_for(lambda: Path("/proc/net/unix").read_text().count(f" {self.srvd.socket}\n") == 1, within=30)

        wait_for(self._is_quiet, within=30)

    def _is_quiet(self) -> bool:
        with self.recording.window():
            time.sleep(QUIET)
        return not any(call.path.startswith(("core/", "daemon/recovery/")) for call in self.recording.calls())

    def calls(self, flow: str) -> list[Call]:
        calls, steps = self.recording.calls(), set(PAGE.steps(flow))
        pids = {call.pid for call in calls if (call.path, call.function) in steps}
        return [call for call in calls if call.pid in pids]

    def missing(self, flow: str) -> list[str]:
        """Steps and files that are written and did not run."""
        calls = self.calls(flow)
        steps = set(PAGE.steps(flow)) - {(call.path, call.function) for call in calls}
        return sorted(":".join(step) for step in steps) + sorted(PAGE.files(flow) - {call.path for call in calls})


@pytest.fixture(scope="module")
def recorded(module_starter: Starter) -> Recorded:
    return Recorded(module_starter)


# Each goes up to where the flow begins, then through it, then cleans up.


def _request(srvd: Srvd) -> Iterator[None]:
    with contextlib.closing(srvd.connect()) as connection:
        connection.request("HEAD", "/")  # the worker has the connection, and has made no response like the next one
        connection.getresponse().read()
        yield
        ask(connection, f"/{time.monotonic_ns()}")  # a head that was not seen before
        yield


def _scale(srvd: Srvd) -> Iterator[None]:
    srvd.call("scale", pool="web", size=2)
    yield
    assert srvd.ctl("scale", "8").returncode == 0


def _death(srvd: Srvd) -> Iterator[None]:
    (victim, *_) = srvd.serving()
    yield
    os.kill(victim["pid"], signal.SIGKILL)


def _command(*words: str) -> Callable[[Srvd], Iterator[None]]:
    def run(srvd: Srvd) -> Iterator[None]:
        yield
        done = srvd.ctl(*words)
        assert done.returncode == 0, done.stderr

    return run


def _start(srvd: Srvd) -> Iterator[None]:
    yield
    srvd.die()
    srvd.start(ready=False)


RUNS = {
    "A request": _request,
    "An order: scale 8": _scale,
    "A worker's death": _death,
    "A dump": _command("dump"),
    "A reload": _command("reload"),
    "An upgrade": _command("upgrade"),
    "A start after a daemon that died": _start,
}


@pytest.mark.parametrize("flow", RUNS)
def test_what_runs_in_a_flow_is_what_is_written(flow: str, recorded: Recorded) -> None:
    """A timer that passes meanwhile runs its files in one recording; what the flow takes is in each of them."""
    kinds = kinds_of(recorded.take(flow))
    for _ in range(2):
        if _unwritten(flow, kinds) or _over_budget(flow, kinds):
            again = kinds_of(recorded.take(flow))
            kinds = {path: kind for path, kind in kinds.items() if path in again}
    assert not _unwritten(flow, kinds), f"{flow}: these ran, and docs/flows.md does not name them"
    assert not _over_budget(flow, kinds), f"{flow}: more files ran than its budget allows"


def _unwritten(flow: str, kinds: dict[str, str]) -> list[str]:
    return sorted(path for path in kinds if not PAGE.is_leaf(path) and path not in PAGE.files(flow))


def _over_budget(flow: str, kinds: dict[str, str]) -> dict[str, list[str]]:
    ran: dict[str, list[str]] = {kind: [] for kind in PAGE.budgets[flow]}
    for path, kind in sorted(kinds.items()):
        if kind in ran and not PAGE.is_leaf(path):
            ran[kind].append(path)
    return {kind: files for kind, files in ran.items() if len(files) > PAGE.budgets[flow][kind]}


def test_the_steps_of_a_request_are_taken_in_their_order(recorded: Recorded) -> None:
    """Up to the application; the turn of the loop in which the request comes has begun before it."""
    called = [(call.path, call.function) for call in recorded.take("A request")]
    steps = PAGE.steps("A request")
    before = steps[1 : steps.index(("worker/wsgi/exchange.py", "Exchange.start")) + 1]
    assert len(before) > 5
    assert [call for call in called if call in before] == before


def kinds_of(calls: list[Call]) -> dict[str, str]:
    """Each file that ran, with what it does in the flow."""
    other = {call.path for call in calls if not call.saves}
    return {
        call.path: "persist" if call.path not in other else "decide" if call.path.startswith("core/") else "perform"
        for call in calls
    }
