"""Every option of gunicorn, with its flags and what srvd has for it: for hints of errors and for `srvd import`.

Reads no configuration and converts none: `migrate/` does. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from srvd.record import Record

__all__ = ["OPTIONS", "Option", "kind_of_class", "translation"]


class Option(Record):
    """One option.

    kind: what a value is; "number", "text", "yes" (a switch, or true and false), "list" (a flag that may be repeated,
        or a list), "table", "hook".
    flags: on the command line; (): none.
    called: the setting of srvd that does the same; "": none.
    fate: what becomes of the option without one; "needless": nothing is lost, "lost", "refused": srvd cannot run this.
    about: a sentence for people; "": the setting says all.
    """

    kind: str
    flags: tuple[str, ...]
    called: str = ""
    fate: str = ""
    about: str = ""


def _flags(words: str) -> tuple[str, ...]:
    return tuple(words.split())


def _same(kind: str, flags: str, called: str) -> Option:
    return Option(kind, _flags(flags), called)


def _needless(kind: str, flags: str, about: str) -> Option:
    return Option(kind, _flags(flags), "", "needless", about)


def _lost(kind: str, flags: str, about: str) -> Option:
    return Option(kind, _flags(flags), "", "lost", about)


def _refused(kind: str, flags: str, about: str) -> Option:
    return Option(kind, _flags(flags), "", "refused", about)


_CLASSES = "threads = 1 is gunicorn's sync, more threads are gthread; an ASGI application is known by its call"
_DAEMONIZE = "--daemonize starts the daemon in the background"
_STATSD = "srvd sends no statsd; `srvctl workers --json` has the counters"
_LOGGING = "the daemon's log is set by log_level, log_format and log_file; an application sets up its own loggers"
_SYSLOG = "srvd logs to standard error, which systemd and containers collect, or to log_file"
_MASTER = "srvd runs no code of an application in the daemon; `srvctl events -f --json` reports the same"
_DIRTY = "another pool of the same daemon can run what takes long; srvd has no dirty arbiters"
_HTTP = "srvd reads HTTP strictly; any token is a method"
_SOCKET = '[control] socket is the path of the control socket, and "off" leaves it out'

OPTIONS: Final[Mapping[str, Option]] = {
    "config": Option("text", _flags("-c --config")),
    "wsgi_app": _same("text", "", "app"),
    "bind": _same("list", "-b --bind", "bind"),
    "backlog": _same("number", "--backlog", "backlog"),
    "workers": _same("number", "-w --workers", "workers"),
    "worker_class": Option("text", _flags("-k --worker-class"), about=_CLASSES),
    "threads": _same("number", "--threads", "threads"),
    "worker_connections": _same("number", "--worker-connections", "max_connections"),
    "max_requests": _same("number", "--max-requests", "max_requests"),
    "max_requests_jitter": _same("number", "--max-requests-jitter", "max_requests_jitter"),
    "timeout": _same("number", "-t --timeout", "request_timeout"),
    "graceful_timeout": _same("number", "--graceful-timeout", "drain_timeout"),
    "keepalive": _same("number", "--keep-alive", "keepalive_timeout"),
    "limit_request_line": _same("number", "--limit-request-line", "max_target"),
    "limit_request_fields": _same("number", "--limit-request-fields", "max_fields"),
    "limit_request_field_size": _same("number", "--limit-request-field_size", "max_field"),
    "reload": _same("yes", "--reload", "reload"),
    "reload_engine": _needless("text", "--reload-engine", "srvd takes what the kernel has for it"),
    "reload_extra_files": _same("list", "--reload-extra-file", "reload_extra"),
    "spew": _lost("yes", "--spew", "`srvctl dump` shows where a worker is"),
    "check_config": _needless("yes", "--check-config", "`srvd check` checks the configuration"),
    "print_config": _needless("yes", "--print-config", "`srvd config` shows the configuration"),
    "preload_app": _same("yes", "--preload", "preload"),
    "sendfile": _needless("yes", "--no-sendfile", "srvd uses sendfile for files by itself"),
    "reuse_port": _same("yes", "--reuse-port", "reuse_port"),
    "chdir": _same("text", "--chdir", "chdir"),
    "daemon": Option("yes", _flags("-D --daemon"), about=_DAEMONIZE),
    "raw_env": _same("list", "-e --env", "env"),
    "pidfile": _same("text", "-p --pid", "pidfile"),
    "worker_tmp_dir": _needless("text", "--worker-tmp-dir", "srvd has no heartbeat file"),
    "user": _same("text", "-u --user", "user"),
    "group": _same("text", "-g --group", "group"),
    "umask": _same("number", "-m --umask", "umask"),
    "initgroups": _needless("yes", "--initgroups", "a pool with `user` always has that user's groups"),
    "tmp_upload_dir": _lost("text", "", "bodies that are kept in files are in $TMPDIR of the pool: set it in env"),
    "secure_scheme_headers": _lost("table", "", "trusted proxies say the scheme by X-Forwarded-Proto or Forwarded"),
    "forwarded_allow_ips": _same("text", "--forwarded-allow-ips", "trusted_proxies"),
    "accesslog": _same("text", "--access-logfile", "access_log"),
    "disable_redirect_access_to_syslog": _needless("yes", "--disable-redirect-access-to-syslog", _SYSLOG),
    "access_log_format": _same("text", "--access-logformat", "access_log_format"),
    "errorlog": _same("text", "--error-logfile --log-file", "log_file"),
    "loglevel": _same("text", "--log-level", "log_level"),
    "capture_output": _needless("yes", "--capture-output", "what workers print is always in the log (log_file)"),
    "logger_class": _lost("text", "--logger-class", _LOGGING),
    "logconfig": _lost("text", "--log-config", _LOGGING),
    "logconfig_dict": _lost("table", "", _LOGGING),
    "logconfig_json": _lost("text", "--log-config-json", _LOGGING),
    "syslog_addr": _needless("text", "--log-syslog-to", "it belongs to syslog"),
    "syslog": _lost("yes", "--log-syslog", _SYSLOG),
    "syslog_prefix": _needless("text", "--log-syslog-prefix", "it belongs to syslog"),
    "syslog_facility": _needless("text", "--log-syslog-facility", "it belongs to syslog"),
    "enable_stdio_inheritance": _needless("yes", "-R --enable-stdio-inheritance", "what workers print is in the log"),
    "statsd_host": _lost("text", "--statsd-host", _STATSD),
    "dogstatsd_tags": _lost("text", "--dogstatsd-tags", _STATSD),
    "statsd_prefix": _lost("text", "--statsd-prefix", _STATSD),
    "enable_backlog_metric": _lost("yes", "--enable-backlog-metric", _STATSD),
    "proc_name": _same("text", "-n --name", "name"),
    "default_proc_name": _needless("text", "", "gunicorn sets it itself"),
    "pythonpath": _same("text", "--pythonpath", "pythonpath"),
    "paste": _refused("text", "--paste --paster", "name a module as `app` that has application = loadapp(URI)"),
    "raw_paste_global_conf": _needless("list", "--paste-global", "it belongs to paste"),
    "on_starting": _lost("hook", "", _MASTER),
    "on_reload": _lost("hook", "", _MASTER),
    "when_ready": _lost("hook", "", _MASTER),
    "pre_fork": _lost("hook", "", _MASTER),
    "post_fork": _same("hook", "", "hooks"),
    "post_worker_init": _same("hook", "", "hooks"),
    "worker_int": _same("hook", "", "hooks"),
    "worker_abort": _lost("hook", "", "`srvctl why` shows where a worker was that had to be killed"),
    "pre_exec": _lost("hook", "", _MASTER),
    "pre_request": _same("hook", "", "hooks"),
    "post_request": _same("hook", "", "hooks"),
    "child_exit": _same("hook", "", "hooks"),
    "worker_exit": _same("hook", "", "hooks"),
    "nworkers_changed": _lost("hook", "", _MASTER),
    "on_exit": _lost("hook", "", _MASTER),
    "ssl_context": _lost("hook", "", "minimum_tls, ciphers and several certificates are settings of a listener"),
    "proxy_protocol": _same("text", "--proxy-protocol", "proxy_protocol"),
    "proxy_allow_ips": _same("text", "--proxy-allow-from", "proxy_from"),
    "protocol": Option("text", _flags("--protocol"), about="srvd speaks HTTP: let the proxy speak it, too"),
    "uwsgi_allow_ips": _needless("text", "--uwsgi-allow-from", "it belongs to the protocol of uWSGI"),
    "keyfile": _same("text", "--keyfile", "key"),
    "certfile": _same("text", "--certfile", "certificate"),
    "ssl_version": _needless("text", "--ssl-version", "minimum_tls is the oldest version; TLS 1.2 by default"),
    "cert_reqs": _same("number", "--cert-reqs", "client_certificates"),
    "ca_certs": _same("text", "--ca-certs", "client_ca"),
    "suppress_ragged_eofs": _needless("yes", "--suppress-ragged-eofs", "an end without notice ends the connection"),
    "do_handshake_on_connect": _needless("yes", "--do-handshake-on-connect", "handshakes hold up no worker"),
    "ciphers": _same("text", "--ciphers", "ciphers"),
    "http_protocols": Option("text", _flags("--http-protocols"), about="srvd speaks HTTP/1.1"),
    "permit_obsolete_folding": _lost("yes", "--permit-obsolete-folding", _HTTP),
    "strip_header_spaces": _lost("yes", "--strip-header-spaces", _HTTP),
    "permit_unconventional_http_method": _needless("yes", "--permit-unconventional-http-method", _HTTP),
    "permit_unconventional_http_version": _lost("yes", "--permit-unconventional-http-version", _HTTP),
    "casefold_http_method": _lost("yes", "--casefold-http-method", _HTTP),
    "forwarder_headers": _lost("text", "--forwarder-headers", "trusted proxies may send X-Forwarded-Prefix"),
    "header_map": _same("text", "--header-map", "underscore_headers"),
    "control_socket": _needless("text", "--control-socket", _SOCKET),
    "control_socket_mode": _needless("text", "--control-socket-mode", "[control] roles says which users may do what"),
    "control_socket_disable": _same("yes", "--no-control-socket", "socket"),
} | {
    f"http2_{name}": _needless("text", f"--http2-{name.replace('_', '-')}", "it belongs to HTTP/2")
    for name in ("cleartext", "max_concurrent_streams", "initial_window_size", "max_frame_size", "max_header_list_size")
} | {
    "asgi_loop": _needless("text", "--asgi-loop", "the event loop is asyncio's"),
    "asgi_lifespan": _same("text", "--asgi-lifespan", "lifespan"),
    "asgi_disconnect_grace_period": _needless("text", "--asgi-disconnect-grace-period", "the application is told"),
    "websocket_max_message_size": _same("text", "--websocket-max-message-size", "websocket_max_message"),
    "http_parser": _needless("text", "--http-parser", "srvd reads HTTP with llhttp"),
    "root_path": _same("text", "--root-path", "root_path"),
} | {
    "dirty_apps": _lost("list", "--dirty-app", _DIRTY),
} | {
    name: _needless("number", f"--{name.replace('_', '-')}", "it belongs to dirty_apps")
    for name in ("dirty_workers", "dirty_timeout", "dirty_threads", "dirty_graceful_timeout")
} | {
    name: _lost("hook", "", _DIRTY)
    for name in ("on_dirty_starting", "dirty_post_fork", "dirty_worker_init", "dirty_worker_exit")
}  # fmt: skip

_OF_UVICORN: Final[Mapping[str, Option]] = {
    "host": _same("text", "--host", "bind"),
    "port": _same("text", "--port", "bind"),
    "limit_max_requests": _same("number", "--limit-max-requests", "max_requests"),
    "ssl_certfile": _same("text", "--ssl-certfile", "certificate"),
    "ssl_keyfile": _same("text", "--ssl-keyfile", "key"),
    "timeout_keep_alive": _same("number", "--timeout-keep-alive", "keepalive_timeout"),
    "reload_dir": _same("list", "--reload-dir", "reload_extra"),
    "reload_include": _same("list", "--reload-include", "reload_extra"),
    "reload_exclude": _needless("list", "--reload-exclude", "only files that the application has loaded are watched"),
    "reload_delay": _needless("text", "--reload-delay", "a change is reported by the kernel, not looked for"),
    "factory": _needless("yes", "--factory", 'a factory is named with its call: "MODULE:FACTORY()"'),
}

_BY_WORD: Final[Mapping[str, Option]] = {
    word: option
    for name, option in {**_OF_UVICORN, **OPTIONS}.items()
    for word in (name, *(flag.lstrip("-").replace("-", "_") for flag in option.flags))
}


def kind_of_class(worker_class: str) -> str:
    """Returns what workers of a class run: "sync", "threads", "asgi", "gevent" or "eventlet"; "": a class of its own.

    worker_class: in any spelling that gunicorn takes: a name, a path with dots or a colon, or an entry point.
    """
    name = worker_class.lower()
    if "uvicorn" in name or name == "asgi":
        return "asgi"
    for greenlets in ("gevent", "eventlet"):
        if greenlets in name:
            return greenlets
    return {"sync": "sync", "syncworker": "sync", "gthread": "threads", "threadworker": "threads"}.get(
        name.rpartition(".")[2], ""
    )


def translation(name: str) -> tuple[str, str]:
    """Returns the setting of srvd that does the same as an option of gunicorn or uvicorn, or "", and a sentence that
    explains, or "".

    name: of a setting, or of a flag without its hyphens: "timeout", "t", "access_logfile".
    """
    option = _BY_WORD.get(name, Option("", ()))
    return option.called if option.called != name else "", option.about
