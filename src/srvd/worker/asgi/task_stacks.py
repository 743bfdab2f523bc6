"""The stacks of asyncio's tasks, spelled like those of threads (wire/stacks.py): what each request waits for.

A task that waits has no stack of its own: its coroutines know what they wait for, one after the other. Tasks with the
same stack are told once, as there may be ten thousand. Ends no task.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from srvd.worker.asgi.cycles import Cycles

__all__ = ["tell_tasks"]

_MOST = 10_000  # tasks that are looked at: each takes some microseconds, in which the worker serves nobody
_DEEPEST = 60  # frames
_NAMED = 5  # tasks of one stack whose names are told
_RUNNING = "  <it runs: the rest of its stack is that of the thread>\n"
_LONGEST = 192 << 10  # characters


def tell_tasks(loop: asyncio.AbstractEventLoop, cycles: Cycles) -> str:
    """Returns the stacks of all tasks of the loop, those of the oldest requests first. Called between two bytecodes of
    any code, so it reads alone.
    """
    alike: dict[str, list[str]] = {}
    running = asyncio.current_task(loop)
    for number, (task, name) in enumerate(_named(loop, cycles, running)):
        if number == _MOST:
            alike.setdefault("  the rest is not told\n", []).append("more tasks")
            break
        stack = f"{_RUNNING}{_stack(task)}" if task is running else _stack(task)
        alike.setdefault(stack, []).append(name)
    pieces, room = [], _LONGEST
    for number, (stack, names) in enumerate(alike.items()):
        more = f", and {len(names) - _NAMED} more with this stack" if len(names) > _NAMED else ""
        piece = f"\nTask 0x{number:04x} [{', '.join(names[:_NAMED])}{more}] (most recent call first):\n{stack}"
        room -= len(piece)
        if room < 0:
            pieces.append(
                f"\nTask 0x{number:04x} [{len(alike) - number} more stacks] (most recent call first):\n  ...\n"
            )
            break
        pieces.append(piece)
    return "".join(pieces)


def _named(
    loop: asyncio.AbstractEventLoop, cycles: Cycles, running: asyncio.Task[Any] | None
) -> Iterator[tuple[asyncio.Task[Any], str]]:
    requests = sorted(cycles.tasks.copy(), key=lambda cycle: cycle.began)
    # A request that has no task is in the first step of it, which is eager: it is the one that runs.
    pairs = [(cycle.task or running, cycle.request.label) for cycle in requests]
    own = {task for task, _ in pairs}
    yield from ((task, label) for task, label in pairs if task is not None)
    yield from ((task, " ".join(task.get_name().split())) for task in asyncio.all_tasks(loop) if task not in own)


def _stack(task: asyncio.Task[Any]) -> str:
    """The frames of a task, the innermost first."""
    frames: list[str] = []
    waiting: Any = task.get_coro()
    while waiting is not None and len(frames) < _DEEPEST:
        # Coroutines, generators and asynchronous generators spell the same three facts in three ways.
        kind = next((kind for kind in ("cr", "gi", "ag") if hasattr(waiting, f"{kind}_frame")), "")
        frame = getattr(waiting, f"{kind}_frame", None)
        if frame is None:
            break
        frames.append(f'  File "{frame.f_code.co_filename}", line {frame.f_lineno} in {frame.f_code.co_name}\n')
        waiting = getattr(waiting, "gi_yieldfrom" if kind == "gi" else f"{kind}_await", None)
    return "".join(reversed(frames)) or "  <no Python frame>\n"
