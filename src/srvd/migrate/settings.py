"""Translates gunicorn's settings into srvd's.

Executes nothing, reads no file, and writes none. Pure.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

from srvd.config import values as kinds
from srvd.config.gunicorn import OPTIONS, kind_of_class
from srvd.config.spelling.toml_text import quote, spell
from srvd.http.access_format import explain_problem
from srvd.migrate.report import Finding
from srvd.migrate.sources import Found
from srvd.migrate.texts import instance_name, without_secrets
from srvd.record import Record

__all__ = ["Entry", "Translation", "translate"]

_REFERENCE: Final = re.compile(r"\$\{[^}]*\}|[a-z0-9 *+(),]*cpus[a-z0-9 *+(),]*")
_LOCAL: Final = ("127.0.0.1", "::1")
_NUMBERS: Final = {
    "backlog": ("listeners.web", "backlog"),
    "max_requests": ("pools.web", "max_requests"),
    "max_requests_jitter": ("pools.web", "max_requests_jitter"),
    "limit_request_fields": ("pools.web", "max_fields"),
    "limit_request_line": ("pools.web", "max_target"),
    "limit_request_field_size": ("pools.web", "max_field"),
    "websocket_max_message_size": ("pools.web", "websocket_max_message"),
}
_TEXTS: Final = {
    "chdir": ("pools.web", "chdir"),
    "user": ("pools.web", "user"),
    "group": ("pools.web", "group"),
    "pidfile": ("daemon", "pidfile"),
    "accesslog": ("pools.web", "access_log"),
    "asgi_lifespan": ("pools.web", "lifespan"),
    "root_path": ("pools.web", "root_path"),
    "certfile": ("listeners.web", "certificate"),
    "keyfile": ("listeners.web", "key"),
    "ca_certs": ("listeners.web", "client_ca"),
    "ciphers": ("listeners.web", "ciphers"),
}
_FORMAT: Final = '%(h)s %(l)s %(u)s %(t)s "%(r)s" %(s)s %(b)s "%(f)s" "%(a)s"'
_SCHEMES: Final = {"X-FORWARDED-PROTOCOL": "ssl", "X-FORWARDED-PROTO": "https", "X-FORWARDED-SSL": "on"}
"""gunicorn's default of secure_scheme_headers."""


class Entry(Record):
    """One line of the file: `key = text`. comment: what it was."""

    table: str
    key: str
    text: str
    comment: str


class Translation(Record):
    entries: tuple[Entry, ...]
    findings: tuple[Finding, ...]


def translate(
    app: str, held: Mapping[str, Found], where: Callable[[str], str], *, name: str, secrets: bool = False
) -> Translation:
    """Returns the lines that say in srvd what the settings say in gunicorn, and what is to be told about it.

    app: from the command line; "": `wsgi_app` has it. name: of the instance, if `proc_name` does not give one.
    where: "FILE:LINE" of a setting. secrets: whether values of the environment that look like secrets are copied.
    """
    return _Translator(held, where, secrets=secrets).translate(app, name)


class _Translator:
    def __init__(self, held: Mapping[str, Found], where: Callable[[str], str], *, secrets: bool) -> None:
        self.held = {name: one for name, one in held.items() if one.value is not None or one.spelled}
        self.where = where
        self.secrets = secrets
        self.entries: list[Entry] = []
        self.findings: list[Finding] = []
        self.kind = self._kind()
        self.mask = self._mask()

    def translate(self, app: str, name: str) -> Translation:
        self._name(name)
        self._log()
        self._listeners()
        self._proxies()
        self._pool(app)
        self._times()
        self._access_log()
        self._owner()
        for table, key, setting in self._plain():
            self._number(table, key, setting)
        self._rest()
        self._unused()
        return Translation(tuple(self.entries), tuple(self.findings))

    # What is asked of the settings

    def value(self, name: str, default: Any = None) -> Any:
        return self.held[name].value if name in self.held else default

    def number(self, name: str, default: int) -> int:
        """A number, which gunicorn also takes as a text."""
        value = self.value(name, default)
        try:
            return int(value, 0) if isinstance(value, str) and value[:2].lower() == "0x" else int(value)
        except (TypeError, ValueError):
            if not self._variable(name):
                self._tell("changed", name, f"found {value!r}, which is no number; {default} is in its place")
            return default

    def yes(self, name: str) -> bool:
        return str(self.value(name, default=False)).strip().lower() == "true"

    def spelled(self, name: str) -> str:
        """The text with a variable or a formula that stands for a setting; "" for a plain value."""
        return (self.held[name].spelled if name in self.held else "") or self._variable(name)

    def _variable(self, name: str) -> str:
        value = self.value(name)
        return value if isinstance(value, str) and "${" in value else ""

    def _add(self, table: str, key: str, text: str, comment: str) -> None:
        self.entries.append(Entry(table, key, text, comment))

    def _tell(self, category: str, name: str, text: str) -> None:
        self.findings.append(Finding(category, self.where(name), f"{name}: {text}" if name else text))

    # What becomes of them

    def _name(self, name: str) -> None:
        given = str(self.value("proc_name", ""))
        about = f"proc_name = {given!r}" if given else "each daemon has a name"
        self._add("daemon", "name", quote(instance_name(given or name)), about)

    def _log(self) -> None:
        if "loglevel" in self.held:
            level = str(self.value("loglevel")).lower()
            known = {"warn": "warning", "fatal": "critical"}.get(level, level)
            spelled = self.spelled("loglevel")
            if known not in ("debug", "info", "warning", "error", "critical") and not spelled:
                self._tell("changed", "loglevel", f"{level!r} is no level; gunicorn takes it for info")
                known = "info"
            self._add("daemon", "log_level", quote(spelled or known), "loglevel")
        path = self.value("errorlog", "-")
        if path not in ("-", "") or self.spelled("errorlog"):
            self._add("daemon", "log_file", quote(self.spelled("errorlog") or str(path)), "errorlog")
        if self.yes("control_socket_disable"):
            self._add("control", "socket", '"off"', "control_socket_disable")

    def _listeners(self) -> None:
        spelled = self.spelled("bind")
        given = self.value("bind")
        binds = [spelled] if spelled else [given] if isinstance(given, str) else list(given or ())
        addresses = [self._address(one) for text in binds for one in _items(str(text))]
        if len(addresses) == 1 and "," in addresses[0]:  # a variable with several addresses as its default
            self._add("listeners.web", "bind", quote(addresses[0]), "bind")
        elif addresses:
            self._add("listeners.web", "bind", spell(addresses), "bind")
        if self.mask and any(one.startswith("unix:") for one in addresses):
            mode = f"{0o777 & ~self.mask:04o}"
            self._add("listeners.web", "mode", quote(mode), "umask, which holds for sockets, too")
        if self.yes("reuse_port"):
            self._add("listeners.web", "reuse_port", "true", "reuse_port")
        verifying = self.number("cert_reqs", 0)
        if verifying not in range(3):
            self._tell("changed", "cert_reqs", f"{verifying} is not 0, 1 or 2; clients have to show a certificate")
            verifying = 2
        if verifying:
            text = quote(("none", "optional", "required")[verifying])
            self._add("listeners.web", "client_certificates", text, "cert_reqs")

    def _address(self, text: str) -> str:
        text = text.strip()
        bare = re.sub(r"^(tcp|http|https)://", "", text)
        if bare.startswith("unix://"):  # gunicorn takes what follows, "/" or not, as the path
            return f"unix:{bare.removeprefix('unix://')}"
        if bare.startswith("fd://"):
            return f"fd:{bare.removeprefix('fd://')}"
        if bare.startswith("/"):
            self._tell("changed", "bind", f"{bare} has no unix: in front, and gunicorn takes it for a host")
            return f"unix:{bare}"
        if re.fullmatch(r"[^:\[\]]+", bare) or bare.endswith("]"):
            return f"{bare}:8000"
        return bare

    def _proxies(self) -> None:
        wanted = self._addresses("forwarded_allow_ips")
        if wanted == ["*"]:
            text = (
                '"*" trusts every peer; put the network of the proxy into trusted_proxies: srvd takes address and host '
            )
            self._tell("asked for", "forwarded_allow_ips", f"{text}from it, too, not the scheme alone")
        elif wanted and set(wanted) != set(_LOCAL):
            spelled = self.spelled("forwarded_allow_ips")
            text = quote(spelled) if spelled else spell(wanted)
            self._add("listeners.web", "trusted_proxies", text, "forwarded_allow_ips")
            self._tell(
                "changed", "forwarded_allow_ips", "srvd takes address and host from these, too, not the scheme alone"
            )
        protocol = str(self.value("proxy_protocol", "off")).lower()
        if protocol not in ("off", "false", "none"):
            peers = self._addresses("proxy_allow_ips") or list(_LOCAL)
            self._add("listeners.web", "proxy_protocol", "true", f"proxy_protocol = {protocol}")
            if peers == ["*"]:
                self._tell("asked for", "proxy_allow_ips", '"*" trusts every peer; proxy_from has this machine alone')
                peers = list(_LOCAL)
            self._add("listeners.web", "proxy_from", spell(peers), "proxy_allow_ips")

    def _addresses(self, name: str) -> list[str]:
        value = self.value(name, "")
        items = value if isinstance(value, list) else str(value).split(",")
        return [str(item).strip() for item in items if str(item).strip()]

    def _pool(self, app: str) -> None:
        named = app or str(self.value("wsgi_app", ""))
        if not named:
            self._tell("asked for", "", "the application: `srvd import FILE APP`, or wsgi_app")
        else:
            self._add("pools.web", "app", quote(named), "the command line" if app else "wsgi_app")
        self._count("workers", "${WEB_CONCURRENCY:-1}")
        if self.kind == "asgi":
            self._add("pools.web", "interface", '"asgi"', f"worker_class = {self.value('worker_class')}")
        elif self.kind == "gevent":
            self._add("pools.web", "engine", '"gevent"', f"worker_class = {self.value('worker_class')}")
        elif self.kind == "threads":
            self._count("threads", "")
        if self.yes("preload_app"):
            self._add("pools.web", "preload", '"on"', "preload_app")
        if self.yes("reload"):
            self._add("pools.web", "reload", "true", "reload")
            if extra := self._addresses("reload_extra_files"):
                self._add("pools.web", "reload_extra", spell(extra), "reload_extra_files")
        folders = [one.strip() for one in str(self.value("pythonpath", "")).split(",") if one.strip()]
        if folders:
            self._add("pools.web", "pythonpath", spell(folders), "pythonpath")
        if "worker_connections" in self.held and self.kind != "sync":
            key = "greenlets" if self.kind == "gevent" else "max_connections"
            self._add("pools.web", key, str(self.number("worker_connections", 1000)), "worker_connections")
        self._environment()

    def _count(self, name: str, default: str) -> None:
        spelled = self.spelled(name)
        if spelled:
            self._add("pools.web", name, quote(spelled), name)
        elif name in self.held:
            self._add("pools.web", name, str(self.number(name, 1)), name)
        elif default:
            self._add("pools.web", name, quote(default), f"gunicorn's default of {name}")

    def _environment(self) -> None:
        given = self.value("raw_env", ()) or ()
        items = [given] if isinstance(given, str) else given if isinstance(given, list) else ()
        pairs = dict(str(one).split("=", 1) for one in items if "=" in str(one))
        shown, hidden = (pairs, []) if self.secrets else without_secrets(pairs)
        if hidden:
            self._tell(
                "asked for", "raw_env", f"{', '.join(hidden)} may be secret: put it into the environment, or --secrets"
            )
        if shown:
            self._add("pools.web", "env", spell(shown), "raw_env")

    def _times(self) -> None:
        seconds = self.number("timeout", 30)
        spelled = self.spelled("timeout")
        if self.kind != "sync" or not seconds:
            about = f"timeout = {spelled or seconds} limits no request" if "timeout" in self.held else "none is limited"
            self._add("pools.web", "request_timeout", "0", about)
        else:
            text = quote(spelled) if spelled else _duration(seconds)
            self._add(
                "pools.web", "request_timeout", text, "timeout" if "timeout" in self.held else "gunicorn's default"
            )
        for name, key in (("graceful_timeout", "drain_timeout"), ("keepalive", "keepalive_timeout")):
            seconds, spelled = self.number(name, 0), self.spelled(name)
            if name in self.held and (seconds or spelled):
                self._add("pools.web", key, quote(spelled) if spelled else _duration(seconds), name)
            elif name in self.held:
                self._tell("changed", name, f"0 cannot be said: {key} is as srvd has it")

    def _access_log(self) -> None:
        text = str(self.value("access_log_format", _FORMAT))
        if text in (_FORMAT, "") or self.spelled("access_log_format"):
            return
        plain = re.sub(r"(%\([^)]*\))[-0-9.]*[sdrfi]", r"\1s", text)
        problem = explain_problem(plain)
        if problem:
            self._tell("lost", "access_log_format", problem)
            return
        if plain != text:
            self._tell("changed", "access_log_format", "atoms have no widths and conversions but s")
        self._add("pools.web", "access_log_format", quote(plain), "access_log_format")

    def _owner(self) -> None:
        if self.mask:
            self._add("pools.web", "umask", quote(f"{self.mask:04o}"), "umask")

    def _mask(self) -> int:
        """The umask, which gunicorn also takes as a text in the spelling of Python or, with a leading 0, of C."""
        value = self.value("umask", 0)
        try:
            mask = int(value, 8 if re.fullmatch("0[0-7]+", value) else 0) if isinstance(value, str) else int(value)
        except (TypeError, ValueError):
            mask = -1
        if 0 <= mask <= 0o777:
            return mask
        self._tell("changed", "umask", f"found {value!r}, which is no mask of modes; 0 is in its place")
        return 0

    def _plain(self) -> Iterator[tuple[str, str, str]]:
        yield from ((table, key, name) for name, (table, key) in _NUMBERS.items() if name in self.held)
        for name, (table, key) in _TEXTS.items():
            if name == "root_path" and self.kind != "asgi" and self.value(name):
                self._tell(
                    "lost",
                    name,
                    "it is for ASGI alone, also in gunicorn; a trusted proxy may send X-Forwarded-Prefix",
                )
            elif name in self.held and self.value(name) != "":
                text = self.spelled(name) or str(self.value(name))
                self._add(table, key, quote(text), name)

    def _number(self, table: str, key: str, name: str) -> None:
        spelled = self.spelled(name)
        number = self.number(name, 0)
        most = {"max_fields": 10_000, "backlog": 65_535}.get(key, number)
        if number > most:
            self._tell("changed", name, f"{number} is more than {most}, the most that {key} can be")
        if number or spelled or key in ("max_target", "max_field"):
            self._add(table, key, quote(spelled) if spelled else str(min(number, most)), name)

    def _rest(self) -> None:
        """What has no counterpart: told by its fate, unless it is off."""
        for name, one in self.held.items():
            option = OPTIONS.get(name)
            if option is None or not option.fate or option.kind == "hook" or one.value in (False, "", [], {}, "false"):
                continue
            usual = name == "secure_scheme_headers" and isinstance(one.value, dict)
            if usual and one.value.items() <= _SCHEMES.items():
                continue
            if option.fate == "lost" and name.startswith("logconfig"):
                self._logging(name, one.value)
            else:
                self._tell(option.fate, name, option.about)
        if self.value("env_file"):
            self._tell("asked for", "", f"{self.value('env_file')} is not read: say what is in it in the environment")
        if self.yes("daemon"):
            self._tell("next", "daemon", "start it with --daemonize; under a service manager it is not wanted")
        if self.value("protocol", "http") != "http":
            self._tell("refused", "protocol", OPTIONS["protocol"].about)

    def _unused(self) -> None:
        """Tells of variables and formulas in settings whose values were carried over without them."""
        texts = " ".join(f"{one.text} {one.comment}" for one in self.entries)
        for name, one in self.held.items():
            told = any(finding.text.startswith(f"{name}: ") for finding in self.findings)
            if one.spelled and not told and not all(part in texts for part in _REFERENCE.findall(quote(one.spelled))):
                self._tell("changed", name, f"it depends on {one.spelled}, and is as it is without")

    def _logging(self, name: str, value: Any) -> None:
        handlers = value.get("handlers", {}) if isinstance(value, dict) else {}
        files = [str(one["filename"]) for one in handlers.values() if isinstance(one, dict) and "filename" in one]
        text = (
            f"{OPTIONS[name].about}; its files {', '.join(files)}: log_file, access_log, logrotate and `srvctl reopen`"
        )
        self._tell("lost", name, text if files else OPTIONS[name].about)

    def _kind(self) -> str:
        """Returns what gunicorn runs, "sync", "threads", "asgi" or "gevent"; told is what srvd has no workers for."""
        kind = str(self.value("worker_class", "sync"))
        known = kind_of_class(kind)
        if known in ("asgi", "gevent"):
            return known
        if known == "eventlet":
            self._tell("refused", "worker_class", f'{kind}: srvd runs greenlets of gevent: `engine = "gevent"`')
            return "threads"
        if not known:
            what = f"{kind} is a class of its own; if it serves ASGI as uvicorn's does, srvd can: --anyway"
            self._tell("refused", "worker_class", what)
        many = self.number("threads", 1) > 1 or bool(self.spelled("threads"))
        return "threads" if many or known == "threads" else "sync"


def _items(text: str) -> list[str]:
    """The items of a text with commas, but for those in the default of a variable."""
    return [one.strip() for one in re.split(r",(?![^{]*\})", text) if one.strip()]


def _duration(seconds: int) -> str:
    return kinds.show("duration", float(min(seconds, int(kinds.LONGEST))))
