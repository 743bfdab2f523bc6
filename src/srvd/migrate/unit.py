"""Makes a unit of systemd for srvd of one that starts another server: what it says of the service stays.

Reads and writes no file. The reason of each line that is put in is in docs/howto/systemd.md. Pure.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from srvd.migrate.report import Finding

__all__ = ["made_of", "name_of"]

_LEFT_OUT: Final = {
    "PIDFile": "srvd reports to systemd by itself",
    "NotifyAccess": "the daemon itself reports",
    "ExecStop": "SIGTERM stops srvd in good order",
    "KillSignal": "SIGTERM stops srvd in good order",
    "GuessMainPID": "the daemon is the main process",
    "PrivateTmp": "systemd would empty it under workers that outlive their daemon",
    "RemoveIPC": "it would remove shared memory of workers that outlive their daemon",
}
"""Lines that stand against srvd, and why."""

_PUT_IN: Final = {
    "Type": "notify",
    "KillMode": "process",
    "RestartPreventExitStatus": "78 200 203 217",
    "FileDescriptorStoreMax": "16",
    "RestartKillSignal": "SIGRTMIN",
    "OOMPolicy": "continue",
}
_UNLESS_THERE: Final = {"Restart": "on-failure", "RestartSec": "1"}
_SECONDS: Final = 45
"""TimeoutStopSec, which has to be longer than drain_timeout."""


def name_of(path: str) -> str:
    """Returns the name of the file for srvd, which is not that of the source: "srvd-site.service"."""
    return f"srvd-{path.rpartition('/')[2].removesuffix('.service')}.service"


def made_of(path: str, text: str, program: str, folder: str) -> tuple[str, list[Finding]]:
    """Returns the unit, and what is told about it.

    path: of the source. program: that its ExecStart names. folder: that it starts in; "": not said.
    """
    name = path.rpartition("/")[2].removesuffix(".service")
    bins = f"{program.rpartition('/')[0]}/" if program.startswith("/") else "/opt/shop/venv/bin/"
    lines = text.replace("\\\n", " ").splitlines()
    runtime = _value(lines, "RuntimeDirectory").split(" ")[0]
    socket = f"/run/{runtime or name}/srvd.sock"
    service = {
        "ExecStart": f"{bins}srvd start -c {folder.rstrip('/') or '/etc/srvd'}/srvd.toml",
        "ExecReload": f"{bins}srvctl --socket {socket} reload",
        **_PUT_IN,
        "TimeoutStopSec": _stop_time(_value(lines, "TimeoutStopSec")),
    }
    service |= {key: value for key, value in _UNLESS_THERE.items() if not _value(lines, key)}
    more = [f"Environment=SRVD_SOCKET={socket}", "Environment=FDSTORE=16"]
    if not runtime:
        more.append(f"RuntimeDirectory={name}")
    made = "\n".join(_lines(lines, service, more))
    told = list(_told(path, lines, service))
    if not program.startswith("/"):
        told.append(Finding("asked for", path, f"the folder of srvd: {bins} is in the unit in its place"))
    if ".socket" in _value(lines, "Requires"):
        about = "the socket unit needs FileDescriptorName=web, the listener's name"
        told.append(Finding("changed", path, f"{_value(lines, 'Requires')}: {about}"))
    target = f"{folder.rstrip('/') or '/etc/srvd'}/srvd.toml"
    about = f"srvd.toml to {target}, {name_of(path)} to /etc/systemd/system, and `systemctl daemon-reload`"
    told.append(Finding("next", path, about))
    return f"# made by srvd import from {path}; `srvd help systemd` has more, as for hardening\n{made}\n", told


def _lines(lines: Sequence[str], service: dict[str, str], more: Sequence[str]) -> Iterator[str]:
    """The lines of the unit: those of the source, with srvd's in their places or at the end of [Service]."""
    waiting = dict(service)
    section, blank = "", 0
    for line in [*lines, "[]"]:
        text = line.strip()
        if text.startswith("[") and text.endswith("]"):
            if section == "[Service]":
                yield from (f"{key}={value}" for key, value in waiting.items())
                yield from more
            yield from [""] * blank
            section, blank = text, 0
            if line != "[]":
                yield line
            continue
        if not text:
            blank += 1
            continue
        yield from [""] * blank
        blank = 0
        key = text.partition("=")[0].strip()
        if section != "[Service]" or text[0] in "#;":
            yield line
        elif key in service:
            if key in waiting:
                yield f"{key}={waiting.pop(key)}"
        elif key not in _LEFT_OUT:
            yield line


def _told(path: str, lines: Sequence[str], service: dict[str, str]) -> Iterator[Finding]:
    for key, about in _LEFT_OUT.items():
        if value := _value(lines, key):
            yield Finding("needless", path, f"{key}={value}: it is not in the unit: {about}")
    for key in ("KillMode", "TimeoutStopSec", "Type"):
        value = _value(lines, key)
        if value and value != service[key]:
            yield Finding("needless", path, f"{key}={value}: it is {service[key]} in the unit")


def _value(lines: Sequence[str], key: str) -> str:
    """The last value of a key, in any section; "" if it is not there."""
    found = [line.partition("=")[2].strip() for line in lines if line.partition("=")[0].strip() == key]
    return found[-1] if found else ""


def _stop_time(text: str) -> str:
    seconds = text.removesuffix("s")
    return (
        text
        if (seconds.isdecimal() and int(seconds) > _SECONDS) or (text and not seconds.isdecimal())
        else str(_SECONDS)
    )
