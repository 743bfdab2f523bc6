"""The settings and flags of gunicorn, and a few of uvicorn, and what srvd calls them: for hints of errors.

Converts no file. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

__all__ = ["translation"]

_NAMES: Final[Mapping[str, str]] = {
    "access_log_file": "access_log",
    "access_logfile": "access_log",
    "access_logformat": "access_log_format",
    "accesslog": "access_log",
    "ca_certs": "client_ca",
    "capture_output": "log_file",
    "cert_reqs": "client_certificates",
    "certfile": "certificate",
    "e": "env",
    "error_logfile": "log_file",
    "errorlog": "log_file",
    "forwarded_allow_ips": "trusted_proxies",
    "g": "group",
    "graceful_timeout": "drain_timeout",
    "host": "bind",
    "keep_alive": "keepalive_timeout",
    "keepalive": "keepalive_timeout",
    "keyfile": "key",
    "limit_max_requests": "max_requests",
    "limit_request_field_size": "max_field",
    "limit_request_fields": "max_fields",
    "limit_request_line": "max_target",
    "loglevel": "log_level",
    "m": "umask",
    "p": "pidfile",
    "pid": "pidfile",
    "port": "bind",
    "post_fork": "hooks",
    "post_request": "hooks",
    "post_worker_init": "hooks",
    "pre_request": "hooks",
    "preload_app": "preload",
    "proc_name": "name",
    "proxy_allow_from": "proxy_from",
    "proxy_allow_ips": "proxy_from",
    "raw_env": "env",
    "ssl_certfile": "certificate",
    "ssl_keyfile": "key",
    "t": "request_timeout",
    "timeout": "request_timeout",
    "timeout_keep_alive": "keepalive_timeout",
    "u": "user",
    "worker_connections": "max_connections",
    "worker_exit": "hooks",
    "wsgi_app": "app",
}

_SENTENCES: Final[Mapping[str, str]] = dict.fromkeys(
    ("k", "worker_class"), "srvd has one class of workers: threads = 1 is gunicorn's sync, more threads are gthread"
) | {
    "check_config": "`srvd check` checks the configuration",
    "D": "--daemonize starts the daemon in the background",
    "daemon": "--daemonize starts the daemon in the background",
    "factory": 'a factory is named with its call: "MODULE:FACTORY()"',
    "initgroups": "a pool with `user` always has that user's groups",
    "print_config": "`srvd config` shows the configuration",
    "reload": "srvd does not watch files: `srvctl reload` loads the new code",
    "sendfile": "srvd uses sendfile for files by itself",
    "worker_tmp_dir": "srvd has no heartbeat file",
} | dict.fromkeys(
    ("statsd_host", "dogstatsd_tags", "statsd_prefix"), "srvd sends no statsd; `srvctl workers --json` has the counters"
) | dict.fromkeys(
    ("logger_class", "logconfig", "logconfig_dict", "log_config"),
    "the daemon's log is set by log_level, log_format and log_file; an application sets up its own loggers",
) | dict.fromkeys(
    ("on_starting", "when_ready", "on_reload", "nworkers_changed", "on_exit", "pre_fork", "pre_exec", "child_exit"),
    "srvd runs no code of an application in the daemon; `srvctl events -f --json` reports the same",
)  # fmt: skip


def translation(name: str) -> tuple[str, str]:
    """Returns the setting of srvd that does the same as gunicorn's, or "", and a sentence that explains, or ""."""
    return _NAMES.get(name, ""), _SENTENCES.get(name, "")
