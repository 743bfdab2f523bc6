"""Starts the daemon: claims its socket path and lock, makes its parts (or adopts those of a dead daemon), and runs it.

Decides nothing about pools. The running daemon is `main.py`.
"""

from __future__ import annotations

import faulthandler
import os
import stat
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING

from srvd.config.settings import Config, DaemonSettings
from srvd.config.source import Source
from srvd.daemon import detach
from srvd.daemon.detach import StartReport
from srvd.daemon.entry.live import live
from srvd.daemon.files import LogFile
from srvd.daemon.foundation import Foundation
from srvd.daemon.parts import Parts, adopted_parts, new_parts
from srvd.daemon.recovery.preconditions import Preconditions, prepare
from srvd.errors import ConfigInvalid, SrvdError
from srvd.linux import systemd
from srvd.linux.processes.process import raise_open_files
from srvd.linux.systemd import Unit
from srvd.log import Log, escape

if TYPE_CHECKING:
    from srvd.daemon.recovery.recover import Found

__all__ = ["run"]

SEARCH = 60
"""Limit in seconds of the search for the processes of a dead daemon, with a margin."""


def run(config: Config, source: Source, *, daemonize: bool) -> int:
    """Serve until a stop is ordered. Returns the exit code of `srvd`.

    `source` reads the same files, variables and flags anew. Raises `SystemRefused` when the system denies what the
    daemon needs; nothing was started then.
    """
    if daemonize:
        _check_output(config)
    report = StartReport(None)
    try:
        unit = systemd.read_unit(os.environ, os.getpid())
        if daemonize:
            report, code = detach.detach(partial(systemd.announce, unit))
            if code is not None:
                return code
            systemd.follow(os.environ, os.getpid())
        return _start(config, source, unit, report, daemonized=daemonize)
    except SrvdError as exc:
        if not daemonize:
            raise
        report.failed(exc.exit_code, exc.message, exc.hint)
        return exc.exit_code


def _start(config: Config, source: Source, unit: Unit, report: StartReport, *, daemonized: bool) -> int:
    """Claim what a start needs, and serve. Raises `SrvdError`: nothing was started, and nothing is left behind."""
    LogFile(config.daemon.log_file, config.daemon.log_mode).open()
    faulthandler.enable(2)  # by number, so that it follows a reopened log. A watchdog kills with SIGABRT
    raise_open_files()  # before the first of a large family is adopted
    preconditions = prepare(config.daemon, unit)
    try:
        settings = config.daemon
        raw = settings.worker_output == "raw"
        log = Log(2, settings.log_format, settings.log_level, shared=True, raw=raw)
        _tell_of_folder(config, log)
        _warn_of_root(config, log)
        _warn_of_threads(log)
        found = None if preconditions.family_lock.is_held else _search(preconditions, unit, log)
        if found is not None and found.adoption is not None:
            config = found.adoption.with_room(config, log.warning)
        parts = _parts(config.daemon, unit, preconditions, found, log)
        base = Foundation(parts, config.daemon, source, report, daemonized=daemonized)
        return live(base, config, preconditions, found)
    except SrvdError:
        if preconditions.family_lock.lock >= 0:  # not closed yet
            preconditions.family_lock.close(remove=True)
        raise
    finally:
        preconditions.control_socket.close()


def _check_output(config: Config) -> None:
    """Raise `ConfigInvalid` for an access log on standard output, which a daemon in the background gives up."""
    lost = next((pool.name for pool in config.pools.values() if pool.access_log == "-"), None)
    if lost is not None and not stat.S_ISREG(os.fstat(1).st_mode):
        key = f"pools.{lost}.access_log"
        raise ConfigInvalid(
            f'{config.origins[key]}: {key}: found "-", the standard output, which --daemonize gives up; nothing was '
            "started",
            hint="name a file, or send the standard output to one",
        )


def _tell_of_folder(config: Config, log: Log) -> None:
    if config.folder != os.environ.get("PWD") and any(not pool.chdir for pool in config.pools.values()):
        log.info(
            f"{config.folder} is held by its real path, as $PWD does not name it: a link that leads here is not "
            "followed when it is switched; `chdir` can name that link"
        )


def _warn_of_root(config: Config, log: Log) -> None:
    """Warn of pools that run as root: their applications can do anything to the daemon and to the machine."""
    names = [] if os.geteuid() else [pool.name for pool in config.pools.values() if pool.user in ("", "root", "0")]
    if names:
        who = f"pool {names[0]} runs" if len(names) == 1 else f"pools {', '.join(names)} run"
        log.warning(
            f"{who} as root, as the daemon does: an application can end the daemon; `user` gives it another user"
        )


def _warn_of_threads(log: Log) -> None:
    """Warns of threads in the daemon, which has none of its own: a program in front of srvd instruments it, too."""
    threads = 0
    with suppress(OSError):  # no /proc: the start of the first zygote names that
        threads = len(os.listdir("/proc/self/task")) - 1
    if threads:
        log.warning(
            f"the start of the interpreter has left {threads} thread{'s' if threads > 1 else ''} in the daemon; if "
            "that was a program in front of srvd, `wrap` of a pool puts it in front of the application alone"
        )


def _search(preconditions: Preconditions, unit: Unit, log: Log) -> Found:
    # Imported here: seldom needed, and the import would delay every start.
    from srvd.daemon.recovery import recover

    def say(text: str) -> None:
        log.warning(text)
        _ask_for_time(unit, text)

    _ask_for_time(unit, "looking for the processes of a daemon that died")
    return recover.search(preconditions, say)


def _ask_for_time(unit: Unit, sentence: str) -> None:
    systemd.tell(unit, [f"EXTEND_TIMEOUT_USEC={SEARCH * 1_000_000}", f"STATUS={systemd.clip(escape(sentence))}"])


def _parts(settings: DaemonSettings, unit: Unit, preconditions: Preconditions, found: Found | None, log: Log) -> Parts:
    """Return new parts, or those of a daemon that died."""
    if found is not None and found.adoption is not None:
        return adopted_parts(found.adoption, settings.max_workers, unit, preconditions, log)
    return new_parts(settings, unit, preconditions, () if found is None else found.listeners, log)
