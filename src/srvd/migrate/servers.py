"""Reads start lines of uvicorn, hypercorn and granian, into gunicorn's names.

Translates no setting: `settings.py` does. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from srvd.errors import ConfigInvalid

__all__ = ["SEPARATORS", "SERVERS", "read_flags"]

SEPARATORS: Final = frozenset({"&&", ";", "||", "&", "|", ">", ">>", "2>", "2>&1", "<"})
"""Words of a shell that end a start line."""

_YES: Final = "yes"  # a switch
_COMMON: Final = {
    "--workers": "workers",
    "--backlog": "backlog",
    "--log-level": "loglevel",
    "--root-path": "root_path",
    "--host": "host",
    "--port": "port",
    "--uds": "uds",
    "--fd": "fd",
}
_UVICORN: Final = {
    **_COMMON,
    "--limit-max-requests": "max_requests",
    "--limit-max-requests-jitter": "max_requests_jitter",
    "--limit-concurrency": "worker_connections",
    "--timeout-keep-alive": "keepalive",
    "--timeout-graceful-shutdown": "graceful_timeout",
    "--forwarded-allow-ips": "forwarded_allow_ips",
    "--ssl-certfile": "certfile",
    "--ssl-keyfile": "keyfile",
    "--ssl-ca-certs": "ca_certs",
    "--ssl-cert-reqs": "cert_reqs",
    "--ssl-ciphers": "ciphers",
    "--lifespan": "asgi_lifespan",
    "--ws-max-size": "websocket_max_message_size",
    "--app-dir": "pythonpath",
    "--log-config": "logconfig",
    "--interface": "interface",
    **dict.fromkeys(("--loop", "--http", "--ws", "--ws-max-queue", "--ws-ping-interval", "--ws-ping-timeout",
                     "--reload-dir", "--reload-include", "--reload-exclude", "--reload-delay", "--header",
                     "--timeout-worker-healthcheck", "--h11-max-incomplete-event-size",
                     "--ws-per-message-deflate"), ""),
    **dict.fromkeys(("--proxy-headers", "--no-proxy-headers", "--access-log", "--use-colors", "--no-use-colors",
                     "--server-header", "--no-server-header", "--date-header", "--no-date-header"), _YES),
    "--env-file": "env_file",
    "--reload": "yes reload",
    "--factory": "yes factory",
    "--no-access-log": "yes quiet",
}  # fmt: skip
_HYPERCORN: Final = {
    **_COMMON,
    "-b": "bind",
    "--bind": "bind",
    "-w": "workers",
    "--access-logfile": "accesslog",
    "--error-logfile": "errorlog",
    "--log-file": "errorlog",
    "--certfile": "certfile",
    "--keyfile": "keyfile",
    "--ca-certs": "ca_certs",
    "--ciphers": "ciphers",
    "--graceful-timeout": "graceful_timeout",
    "--keep-alive": "keepalive",
    "--max-requests": "max_requests",
    "--max-requests-jitter": "max_requests_jitter",
    "-p": "pidfile",
    "--pid": "pidfile",
    "-u": "user",
    "-g": "group",
    "-m": "umask",
    "-k": "",
    "--worker-class": "",
    "-c": "env_file",
    "--config": "env_file",
    "--reload": "yes reload",
    "--debug": _YES,
}
_GRANIAN: Final = {
    **_COMMON,
    "--interface": "interface",
    "--threads": "",
    "--blocking-threads": "threads",
    "--ssl-certificate": "certfile",
    "--ssl-keyfile": "keyfile",
    "--process-name": "proc_name",
    "--pid-file": "pidfile",
    "--working-dir": "chdir",
    "--url-path-prefix": "root_path",
    "--workers-kill-timeout": "graceful_timeout",
    **dict.fromkeys(("--http", "--loop", "--runtime-mode", "--runtime-threads", "--backpressure", "--respawn-interval",
                     "--workers-lifetime", "--workers-max-rss"), ""),
    **dict.fromkeys(("--no-access-log", "--ws", "--no-ws", "--respawn-failed-workers", "--log", "--no-log"), _YES),
    "--access-log": "yes loud",
    "--reload": "yes reload",
    "--factory": "yes factory",
}  # fmt: skip
SERVERS: Final[Mapping[str, Mapping[str, str]]] = {
    "uvicorn": _UVICORN,
    "hypercorn": _HYPERCORN,
    "granian": _GRANIAN,
}
"""The flags of each server: gunicorn's name of the setting; "" for one that srvd does without; "yes NAME" a switch."""


def read_flags(program: str, words: Sequence[str]) -> tuple[str, dict[str, Any]]:
    """Returns the application and the values, in gunicorn's names. Raises `ConfigInvalid` for an unknown flag."""
    app, values = "", dict[str, Any]()
    rest = iter(words)
    for word in rest:
        if word in SEPARATORS:
            break
        if not word.startswith("-") or word == "-":
            app = app or word
            continue
        flag, equals, text = word.partition("=")
        if flag not in SERVERS[program] and flag[:2] in SERVERS[program] and flag[1] != "-":
            flag, equals, text = word[:2], "=", word[2:]
        if flag not in SERVERS[program]:
            raise ConfigInvalid(
                f"read the flag {flag}: it is not known of {program}; nothing was written", hint="leave it out"
            )
        name = SERVERS[program][flag]
        if name.startswith(_YES):
            values[name.removeprefix(_YES).strip()] = True
            continue
        value = text if equals else next(rest, "")
        values[name] = [*values.get(name, []), value] if name == "bind" else value
    values.pop("", None)
    return _completed(program, app, values)


def _completed(program: str, app: str, values: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """Puts what the servers say otherwise into gunicorn's words."""
    host, port = values.pop("host", "127.0.0.1"), values.pop("port", "8000")
    uds, fd = values.pop("uds", ""), values.pop("fd", "")
    if "bind" not in values:
        host = f"[{host}]" if ":" in host and "${" not in host else host
        values["bind"] = [f"unix:{uds}" if uds else f"fd://{fd}" if fd else f"{host}:{port}"]
    quiet, loud = values.pop("quiet", False), values.pop("loud", False)
    if loud or (program == "uvicorn" and not quiet):
        values.setdefault("accesslog", "-")
    if values.get("loglevel") == "trace":
        values["loglevel"] = "debug"
    if values.pop("factory", False) and app and not app.endswith(")"):
        app = f"{app}()"
    interface = values.pop("interface", "auto" if program != "granian" else "rsgi")
    values["worker_class"] = {"wsgi": "gthread", "rsgi": "rsgi"}.get(interface, "asgi")
    return app, values
