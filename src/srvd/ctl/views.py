"""Prints each result for people. All texts of the daemon are escaped (render.py).

Asks nothing and decides no exit code: `commands.py` does.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import click

from srvd.config import values
from srvd.ctl.render import ago, clock, date, escape, instance, marked, number, put, seconds, size, table
from srvd.ctl.stacks import show_dump, stack_lines

__all__ = ["VIEWS", "show_event", "show_operation", "summary"]

Map = Mapping[str, Any]

_NAMED = 8
"""Most workers that are named in a line about several that left in the same way; the others are counted."""


def _show_ping(result: Map) -> None:
    up = seconds(result["uptime_s"])
    put(f"{instance(result['name'])} {escape(result['version'])} answers: pid {result['pid']}, up {up}")


def _show_status(result: Map) -> None:
    daemon = result["daemon"]
    put(
        f"{instance(daemon['name'])} {escape(daemon['version'])}: {marked(daemon['state'])}, pid {daemon['pid']}, "
        f"up {seconds(daemon['uptime_s'])}"
    )
    for listener in result["listeners"]:
        put(f"listener {escape(listener['name'])}: {escape(listener['address'])}{_tls(listener)}{_trouble(listener)}")
    put()
    heads = ["POOL", "KIND", "STATE", "WORKERS", "BUSY", "REQUESTS", "RSS", "GENERATION", "RESTARTS"]
    table(heads, [_pool_row(pool) for pool in result["pools"]], "BUSY REQUESTS RSS GENERATION RESTARTS")
    for pool in result["pools"]:
        for note in pool.get("notes", ()):
            put(escape(note))
        if pool.get("trouble"):
            put(f"{escape(pool['name'])}: {escape(pool['trouble'])} (see `srvctl why`)")
    _show_notices(result)
    if result["operations"]:
        put()
        _show_operations(result)


def _trouble(listener: Map) -> str:
    """Says why clients do not reach a listener, and what helps. An older daemon sends no remedy."""
    remedy = listener.get("remedy", "`srvctl reload` opens it anew")
    return f" – {escape(listener['problem'])}: {escape(remedy)}" if listener.get("problem") else ""


def _tls(listener: Map) -> str:
    until = listener.get("certificate_expires_at")  # an older daemon does not send it
    return f" (https, the certificate expires on {time.strftime('%Y-%m-%d', time.gmtime(until))})" if until else ""


def _show_notices(result: Map) -> None:
    for notice in result.get("notices", ()):
        when = f"{clock(notice['at'])}: " if notice["at"] is not None else ""
        put(f"{click.style('note', fg='yellow')}: {when}{escape(notice['text'])}")


def _pool_row(pool: Map) -> list[object]:
    workers = pool["workers"]
    return [
        pool["name"], pool["kind"], pool["state"], _strength(pool), _total(workers, "busy"),
        number(pool["requests"]), size(_total(workers, "rss_bytes")), pool["generation"], pool["restarts"],
    ]  # fmt: skip


def _strength(pool: Map) -> str:
    """Writes how many workers serve of how many desired, with those that boot or drain: 8, 3/4, 8 (config 4)."""
    serving, desired = pool["serving"], pool.get("desired", pool.get("wish"))  # `wish`: a daemon of schema 1
    text = str(desired) if serving == desired else f"{serving}/{desired}"
    notes = [f"config {pool['configured']}"] if pool["override"] is not None else []
    notes += [f"{pool[phase]} {phase}" for phase in ("booting", "draining") if pool[phase]]
    return f"{text} ({', '.join(notes)})" if notes else text


def _total(workers: Iterable[Map], key: str) -> int:
    """Adds up a figure of the workers; one that could not be measured is None and counts as 0."""
    return sum(int(worker.get(key) or 0) for worker in workers)


def _show_workers(result: Map) -> None:
    # Of event loops alone; a daemon of former versions does not tell them.
    loops = any(worker.get("websockets") or worker.get("loop_lag_s") for worker in result["workers"])
    heads = ["WORKER", "PID", "STATE", "REQUESTS", "RSS", "CONNECTIONS", "BUSY", "UP"]
    heads += ["IN_FLIGHT", "WEBSOCKETS", "LAG", "REQUEST"] if loops else ["REQUEST"]
    numbers = "PID REQUESTS RSS CONNECTIONS BUSY IN_FLIGHT WEBSOCKETS LAG"
    table(heads, [_worker_row(worker, loops=loops) for worker in result["workers"]], numbers)
    if len(result["workers"]) < result["total"]:
        put(f"{len(result['workers'])} of {result['total']}; see more with --offset", err=True)


def _worker_row(worker: Map, *, loops: bool) -> list[object]:
    request = worker.get("request") or ""
    age = worker.get("request_age_s")
    return [
        worker["id"], worker["pid"], worker["state"], number(worker.get("requests")),
        size(worker["rss_bytes"]) if worker.get("rss_bytes") else "-", number(worker.get("connections")),
        number(worker.get("busy")), seconds(worker["uptime_s"]), *(_of_loop(worker) if loops else ()),
        f"{request} ({seconds(age)})" if request and age is not None else request,
    ]  # fmt: skip


def _of_loop(worker: Map) -> list[object]:
    lag = worker.get("loop_lag_s")
    return [number(worker.get("in_flight")), number(worker.get("websockets")), "-" if lag is None else seconds(lag)]


def _show_deaths(result: Map) -> None:
    _show_notices(result)
    if not result["deaths"]:
        put("no worker has died; `srvctl why --all` shows those that left as they were told")
    for alike in _alike(result["deaths"]):
        if _is_plain(alike[0]):
            _show_plain(alike)
        else:
            _show_death(alike[0])


def _is_plain(death: Map) -> bool:
    """Whether the worker left as ordered, and there is nothing more to show than its summary."""
    return death["cause"] in ("retired", "recycled") and not death["traceback"] and not death.get("left_behind")


def _alike(deaths: Iterable[Map]) -> list[list[Map]]:
    """Groups successive workers that left in the same way, so that those of a reload do not fill the screen."""
    runs: list[list[Map]] = []
    for death in deaths:
        if runs and _is_plain(death) and _manner(death) == _manner(runs[-1][0]):
            runs[-1].append(death)
        else:
            runs.append([death])
    return runs


def _manner(death: Map) -> tuple[str, str]:
    return str(death["worker"]).partition("#")[0], str(death["summary"])


def _show_plain(deaths: Sequence[Map]) -> None:
    first, *others = deaths
    names = [f"#{str(death['worker']).partition('#')[2]}" for death in others]
    shown = "".join(f", {escape(name)}" for name in names[:_NAMED])
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    name = escape(first["worker"])
    workers = f"{name}{shown}{more}" if others else f"{name} (pid {first['pid']})"
    put(f"{workers}: {escape(first['summary'])}, {ago(first['at'], time.time())}")


def _show_death(death: Map) -> None:
    pid = f" (pid {death['pid']})" if death["pid"] else ""
    put(f"{escape(death['worker'])}{pid}: {escape(death['summary'])}")
    lived = ""
    if death["lived_s"] is not None:
        lived = f", after {seconds(death['lived_s'])} ({'ready' if death['ready'] else 'never ready'})"
    _fact("died", f"{date(death['at'])}, {ago(death['at'], time.time())}{lived}")
    _fact("cause", ", ".join(_causes(death)))
    if death["request"]:
        _fact(
            "request",
            f"{death['request']} (for {seconds(death.get('request_age') or death.get('request_age_s') or 0)})",
        )
    _fact("requests", number(death["requests"]))
    _text("traceback", death["traceback"])
    if death.get("stacks"):
        put("  stacks:")
        for line in stack_lines(death["stacks"]):
            put(f"    {line}")
    _text("last output", death["stderr"])
    _text("left behind", "\n".join(death.get("left_behind", [])))


def _causes(death: Map) -> list[str]:
    causes = (
        [str(death["cause"])] if death["cause"] not in ("exited", "signal") else []
    )  # the code or signal says the same
    if death["exit_code"] is not None:
        causes.append(f"exit code {death['exit_code']}")
    if death["signal"] is not None:
        causes.append(f"signal {death['signal']}")
    if death["out_of_memory"]:
        causes.append("out of memory")
    return causes


def _fact(name: str, text: object) -> None:
    put(f"  {name + ':':<10} {escape(text)}")


def _text(name: str, text: str) -> None:
    if text:
        put(f"  {name}:")
        put(_indented(text))


def _indented(text: str) -> str:
    return "\n".join(f"    {line}" for line in escape(text, lines=True).rstrip("\n").split("\n"))


def _show_operations(result: Map) -> None:
    if not result["operations"]:
        put("no operations")
        return
    heads = ["OPERATION", "WHAT", "STATE", "PHASE", "BEGAN", "TOOK", "WHO"]
    rows = [
        [
            op["id"],
            summary(op),
            op["state"],
            op.get("phase") or "",
            date(op["created_at"]),
            _took(op),
            op["actor"]["name"],
        ]
        for op in result["operations"]
    ]
    table(heads, rows, "OPERATION")
    total = result.get("total", 0)
    if len(rows) < total:
        put(f"{len(rows)} of {total}; see more with --offset", err=True)


def _took(op: Map) -> str:
    return seconds(op["ended_at"] - op["created_at"]) if op.get("ended_at") else "-"


def summary(op: Map) -> str:
    """Says what an operation does in a few words: "scale web"."""
    return str(op.get("summary") or f"{op['kind']} {op.get('pool') or ''}".strip())


def _show_one_operation(result: Map) -> None:
    op = result["operation"]
    put(f"operation {op['id']}: {escape(summary(op))}: {marked(op['state'])}")
    actor = op["actor"]
    _fact("asked by", f"{actor['name']} (uid {actor['uid']}, pid {actor['pid']})")
    _fact("began", date(op["created_at"]))
    if op.get("ended_at"):
        _fact("ended", f"{date(op['ended_at'])}, after {_took(op)}")
    if op["args"]:
        _fact("with", ", ".join(f"{name}={value}" for name, value in op["args"].items()))
    for warning in op.get("warnings", ()):
        _fact("warning", warning)
    for step in op["timeline"]:
        put(f"  {clock(step['at'])}  {escape(step['phase']):<10} {escape(step['message'])}")
    if op["error"]:
        _fact("error", op["error"].get("message", ""))
        if op["error"].get("hint"):
            _fact("hint", op["error"]["hint"])
        traceback = (op["error"].get("detail") or {}).get("traceback")
        if traceback:
            put(_indented(str(traceback)))


def show_operation(result: Map) -> None:
    """Prints one line about the outcome of an order."""
    op = result["operation"]
    what = f"{escape(summary(op))}: {marked(op['state'])}"
    if op.get("ended_at"):
        became = str(op["timeline"][-1]["message"]) if op["timeline"] else ""
        put(f"{what} after {_took(op)}" + (f": {escape(became)}" if became else "") + f" (operation {op['id']})")
        for warning in op.get("warnings", ()):
            put(f"{click.style('warning', fg='yellow')}: {escape(warning)}", err=True)
    else:
        put(f"{what} (operation {op['id']}; follow it with `srvctl op wait {op['id']}`)")


def _show_config(result: Map) -> None:
    rows = [[one["key"], _value(one), one["origin"]] for one in result["settings"]]
    table(["SETTING", "VALUE", "FROM"], rows)


def _value(setting: Map) -> str:
    """As it would stand in the file."""
    kind = {"s": "duration", "bytes": "size"}.get(setting["unit"], "text")
    return values.show(kind, setting["value"])


def show_event(event: Map) -> None:
    """Prints one line: time, name and what happened."""
    if event["lost"]:
        put(f"{clock(event['at'])}  {event['lost']} events are lost: no longer kept, or not read in time")
        return
    data = event["data"]
    name = event.get("name") or event["topic"]  # a daemon of schema 1 names no events
    text = data.get("text") or " ".join(f"{name}={value}" for name, value in data.items())
    colour = {"warning": "yellow", "error": "red"}.get(str(data.get("level")))
    shown = click.style(escape(text), fg=colour) if colour else escape(text)
    put(f"{clock(event['at'])}  {escape(name):<22} {shown}")


VIEWS: dict[str, Callable[[Map], None]] = {
    "ping": _show_ping,
    "status": _show_status,
    "workers": _show_workers,
    "why": _show_deaths,
    "dump": show_dump,
    "op.list": _show_operations,
    "op.show": _show_one_operation,
    "history": _show_operations,
    "config": _show_config,
}
