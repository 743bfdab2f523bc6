"""Prints the stacks of a dump: the calls of the application, without most of srvd's own.

The JSON has all frames.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import click

from srvd.ctl.render import escape, marked, put, seconds
from srvd.wire.stacks import threads_of

__all__ = ["show_dump", "stack_lines"]

Map = Mapping[str, Any]

_ZYGOTE = "zygote/main.py"  # in the stack of each main thread: shows where srvd is installed
_STARTS = ("run", "_bootstrap_inner", "_bootstrap")  # functions of threading.py at the bottom of each thread's stack


def show_dump(result: Map) -> None:
    for process in result["processes"]:
        _show_process(process)
    if not result["processes"]:
        put("no worker runs")
    if len(result["processes"]) < result["total"]:
        put(f"{len(result['processes'])} of {result['total']}; see more with --offset", err=True)


def _show_process(process: Map) -> None:
    what = f", {escape(process['process'])}" if process["process"] else ""
    head = f"{escape(process['kind'])} {escape(process['id'])}"
    put(f"{click.style(head, bold=True)}: {marked(process['state'])}, pid {process['pid']}{what}")
    for request in process["requests"]:
        put(f"  in {escape(request['line'])} for {seconds(request['age_s'])}")
    if process["problem"]:
        missing = "not all of its stacks" if process["threads"] else "no stacks"
        put(f"  {click.style(missing, fg='red')}: {escape(process['problem'])}")
    for line in _stacks(process["threads"]):
        put(f"  {line}")
    put()


def stack_lines(text: str) -> Iterator[str]:
    """Yields the lines to print for stacks as faulthandler wrote them."""
    return _stacks(threads_of(text))


def _stacks(threads: Sequence[Map]) -> Iterator[str]:
    """Yields the lines to print. Threads with the same stack are shown once; those outside of the application last."""
    home = _home(threads)
    alike: dict[tuple[str, ...], list[str]] = {}
    idle: dict[str, int] = {}
    for thread in threads:
        shown, hidden = _split(thread["frames"], home)
        if not shown:
            place = _frame(hidden[0]).removeprefix(home) if hidden else "nowhere"
            idle[place] = idle.get(place, 0) + 1
            continue
        lines = [f"  {_frame(frame)}" for frame in shown]
        lines += [f"  {len(hidden)} more, of srvd and of Python"] if hidden else []
        alike.setdefault(tuple(lines), []).append(_name(thread))
    for frames, names in alike.items():
        yield f"{_names(names)}, the innermost call first:"
        yield from frames
    if idle:
        places = ", ".join(f"{place} ({count})" if count > 1 else place for place, count in idle.items())
        yield click.style(f"outside of the application: {places}", dim=True)


def _home(threads: Sequence[Map]) -> str:
    """Returns the folder of srvd in the process's interpreter, with a slash at its end; "" if no frame shows it."""
    files = (str(frame["file"]) for thread in threads for frame in thread["frames"])
    return next((file.removesuffix(_ZYGOTE) for file in files if file.endswith(f"/srvd/{_ZYGOTE}")), "")


def _split(frames: Sequence[Map], home: str) -> tuple[Sequence[Map], Sequence[Map]]:
    """Returns the application's part of a stack, and the frames that called it."""
    end = len(frames)
    while end and _is_ours(frames[end - 1], home):
        end -= 1
    return frames[:end], frames[end:]


def _is_ours(frame: Map, home: str) -> bool:
    file = frame["file"]
    starts = file.endswith("/threading.py") and frame["function"] in _STARTS
    imports = file.startswith("<frozen importlib") or file.endswith("/importlib/__init__.py")
    return starts or imports or file == "<string>" or (home != "" and file.startswith(home))


def _name(thread: Map) -> str:
    if thread["id"] == "tasks":
        return f"task {thread['name']}"
    return f"{thread['id']} {thread['name']}".rstrip()


def _names(threads: Sequence[str]) -> str:
    if len(threads) == 1:
        return escape(threads[0]) if threads[0].startswith("task ") else f"thread {escape(threads[0])}"
    return f"{len(threads)} threads ({escape(', '.join(threads))})"


def _frame(frame: Map) -> str:
    if not frame["file"]:
        return escape(frame["function"])
    return f"{escape(frame['file'])}:{frame['line'] or '?'} in {escape(frame['function'])}"
