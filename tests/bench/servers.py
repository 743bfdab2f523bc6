"""The servers of `tests.bench.peers`: how each is started for a row. One that cannot do what a row asks says None."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

BIN = Path(sys.executable).parent


class Place(NamedTuple):
    """Where a server of one measurement lives."""

    peers: Path  # folder of the other servers' programs
    folder: Path  # its working directory, with app.py
    port: int
    unix: Path | None
    certificate: Path | None  # PEM: the chain, and the key after it


class Load(NamedTuple):
    """What of a row decides how a server is started."""

    app: str
    workers: int = 1
    threads: int = 1


Command = Callable[[Load, Place], list[str] | None]


def _srvd(load: Load, place: Place) -> list[str]:
    bind = f"unix:{place.unix}" if place.unix else f"127.0.0.1:{place.port}"
    config = place.folder / "srvd.toml"
    config.write_text(
        f'[daemon]\nlog_level = "error"\n[control]\nsocket = "{place.folder}/srvd.sock"\n'
        f'[listeners.web]\nbind = ["{bind}"]\n'
        + (f'certificate = "{place.certificate}"\n' if place.certificate else "")
        + f'[pools.web]\napp = "app:{load.app}"\nworkers = {load.workers}\n'
        + (f"threads = {load.threads}\n" if load.threads > 1 else "")
    )
    return [str(BIN / "srvd"), "start", "-c", str(config)]


def _gunicorn(kind: str) -> Command:
    def command(load: Load, place: Place) -> list[str] | None:
        if load.threads > 1 and kind == "sync":
            return None
        bind = f"unix:{place.unix}" if place.unix else f"127.0.0.1:{place.port}"
        words = [str(place.peers / "gunicorn"), f"app:{load.app}", "-b", bind, "-w", str(load.workers), "-k", kind,
                 "--no-control-socket", "--log-level", "error"]  # fmt: skip
        if place.certificate:
            words += ["--certfile", str(place.certificate), "--keyfile", str(place.certificate)]
        return words + (["--threads", str(max(load.threads, 4))] if kind == "gthread" else [])

    return command


def _granian(load: Load, place: Place) -> list[str] | None:
    words = [str(place.peers / "granian"), "--interface", "wsgi", "--workers", str(load.workers), "--blocking-threads",
             str(load.threads), "--no-access-log", "--log-level", "error"]  # fmt: skip
    words += ["--uds", str(place.unix)] if place.unix else ["--host", "127.0.0.1", "--port", str(place.port)]
    if place.certificate:
        words += ["--ssl-certificate", str(place.certificate), "--ssl-keyfile", str(place.certificate)]
    return [*words, f"app:{load.app}"]


def _waitress(load: Load, place: Place) -> list[str] | None:
    if load.workers > 1 or place.certificate:
        return None
    bind = f"--unix-socket={place.unix}" if place.unix else f"--listen=127.0.0.1:{place.port}"
    return [str(place.peers / "waitress-serve"), bind, f"--threads={max(load.threads, 4)}", f"app:{load.app}"]


def _uwsgi(load: Load, place: Place) -> list[str] | None:
    bind = str(place.unix) if place.unix else f"127.0.0.1:{place.port}"
    door = ["--http", bind]
    if place.certificate:
        door = ["--https", f"{bind},{place.certificate},{place.certificate}"]
    return [str(place.peers / "uwsgi"), *door, "--http-keepalive", "--module", f"app:{load.app}", "--processes",
            str(load.workers), "--threads", str(load.threads), "--master", "--disable-logging",
            "--die-on-term"]  # fmt: skip


def _python(code: str) -> Command:
    """A server that is a function: one process with one thread, without TLS."""

    def command(load: Load, place: Place) -> list[str] | None:
        if load.workers > 1 or load.threads > 1 or place.certificate or place.unix:
            return None
        return [str(place.peers / "python"), "-c", code.format(app=load.app, port=place.port)]

    return command


def _peregrine(load: Load, place: Place) -> list[str] | None:
    if place.certificate:
        return None
    door = ["--unix", str(place.unix)] if place.unix else ["--host", "127.0.0.1", "--port", str(place.port)]
    return [str(place.peers / "peregrine"), *door, "--protocol", "wsgi", "--workers", str(load.workers),
            "--wsgi-threads", str(load.threads), f"app:{load.app}"]  # fmt: skip


def _m0serve(load: Load, place: Place) -> list[str] | None:
    if place.certificate or place.unix:
        return None
    threads = str(load.threads if load.threads > 1 else 0)
    return [str(place.peers / "m0serve"), "--host", "127.0.0.1", "--port", str(place.port), "--protocol", "wsgi",
            "--workers", str(load.workers), "--blocking-threads", threads, f"app:{load.app}"]  # fmt: skip


SERVERS: dict[str, Command] = {
    "srvd": _srvd,
    "granian": _granian,
    "gunicorn sync": _gunicorn("sync"),
    "gunicorn gthread": _gunicorn("gthread"),
    "gunicorn gevent": _gunicorn("gevent"),
    "waitress": _waitress,
    "uWSGI": _uwsgi,
    "bjoern": _python("import bjoern, app; bjoern.run(app.{app}, '127.0.0.1', {port})"),
    "fastwsgi": _python("import fastwsgi, app; fastwsgi.run(app.{app}, host='127.0.0.1', port={port}, loglevel=0)"),
    "freastal": _python("import freastal, app; freastal.serve(app.{app}, host='127.0.0.1', port={port})"),
    "peregrine": _peregrine,
    "m0serve": _m0serve,
}
# Whose request cycle is compiled: C, Swift, Mojo. granian's is Rust.
NATIVE = frozenset({"granian", "bjoern", "fastwsgi", "freastal", "peregrine", "m0serve", "uWSGI"})
PACKAGES = ("gunicorn==27.0.1", "gevent", "packaging", "granian==2.8.7", "waitress==3.0.2", "pyuwsgi==2.0.30.post1",
            "bjoern==3.2.2", "fastwsgi==0.0.9", "freastal==0.0.3", "peregrine-server==1.2.0",
            "m0serve==1.16.0")  # fmt: skip
