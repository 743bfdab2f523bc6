"""Translates the options of uWSGI into srvd's settings.

Reads no file: `uwsgi_text.py` has read it. Pure.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from srvd.config.spelling.toml_text import quote, spell
from srvd.migrate.report import Finding
from srvd.migrate.settings import Entry, Translation
from srvd.migrate.texts import instance_name, without_secrets
from srvd.migrate.uwsgi_text import Given, Option

__all__ = ["translate"]

_ALIASES: Final[Mapping[str, str]] = {
    "workers": "processes", "wsgi": "module", "file": "wsgi-file", "virtualenv": "home", "venv": "home",
    "pyhome": "home", "pp": "pythonpath", "python-path": "pythonpath", "uwsgi-socket": "socket",
    "http11-socket": "http-socket", "safe-pidfile": "pidfile", "pidfile2": "pidfile", "logto2": "logto",
    "logfile": "logto", "log-to": "logto", "reload-mercy": "worker-reload-mercy", "evil-reload-on-rss": "reload-on-rss",
    "python-autoreload": "py-autoreload", "py-auto-reload": "py-autoreload", "procname-prefix": "procname",
    "procname-prefix-spaced": "procname", "procname-master": "procname", "max-request": "max-requests",
    "reload-on-as": "reload-on-rss", "lazy": "lazy-apps", "backlog": "listen",
}  # fmt: skip

_PLAIN: Final[Mapping[str, tuple[str, str]]] = {
    "chdir": ("pools.web", "chdir"),
    "uid": ("pools.web", "user"),
    "gid": ("pools.web", "group"),
    "pidfile": ("daemon", "pidfile"),
}
"""Options whose text is that of the setting."""

_NUMBERS: Final[Mapping[str, tuple[str, str, str]]] = {
    "listen": ("listeners.web", "backlog", ""),
    "threads": ("pools.web", "threads", ""),
    "max-requests": ("pools.web", "max_requests", ""),
    "max-requests-delta": ("pools.web", "max_requests_jitter", ""),
    "max-worker-lifetime": ("pools.web", "max_age", "s"),
    "worker-reload-mercy": ("pools.web", "drain_timeout", "s"),
    "http-keepalive": ("pools.web", "keepalive_timeout", "s"),
    "reload-on-rss": ("pools.web", "max_rss", "MiB"),
    "limit-post": ("pools.web", "max_body", "B"),
}
"""Options with a number, and the unit that it has."""

_LOST: Final[Mapping[str, str]] = {
    **dict.fromkeys(
        ("static-map", "static-map2", "static-index", "static-expires", "check-static", "static-safe"),
        "srvd serves no files: the proxy in front does, or WhiteNoise in the application",
    ),
    **dict.fromkeys(
        ("cron", "cron2", "unique-cron", "mule", "mules", "farm", "spooler", "attach-daemon", "smart-attach-daemon",
         "attach-daemon2", "spooler-processes", "legion", "import", "shared-import"),
        "srvd runs workers alone: what runs beside them needs a unit or a timer of its own",
    ),
    **dict.fromkeys(
        ("route", "route-host", "route-uri", "route-run", "add-header", "error-route", "final-route", "http-to",
         "response-route", "collect-header"),
        "srvd changes no request and no response: the proxy in front does, or the application",
    ),
    **dict.fromkeys(
        ("cache", "cache2", "locks", "sharedarea", "queue"), "it belongs to the module uwsgi, which is not there"
    ),
    **dict.fromkeys(
        ("log-format", "logformat", "logger", "req-logger", "log-req-encoder", "log-encoder", "log-route", "log-filter",
         "log-slow", "log-maxsize", "log-backupname", "logformat-strftime", "log-date"),
        "access_log_format and log_format say how lines look, logrotate and `srvctl reopen` turn files over",
    ),
    **dict.fromkeys(
        ("hook-master-start", "hook-post-app", "hook-pre-app", "hook-asap", "hook-accepting1", "hook-touch",
         "exec-asap", "exec-pre-app", "exec-post-app", "exec-as-root", "exec-as-user", "exec-pre-jail"),
        "srvd's hooks are functions of a module (hooks); ExecStartPre= of a unit runs programs",
    ),
    **dict.fromkeys(("subscribe-to", "subscribe2", "fastrouter", "http-subscription-server"), "srvd has no router"),
    **dict.fromkeys(("chroot", "cgroup", "unshare", "cap"), "a unit can say it, as by RootDirectory="),
}  # fmt: skip

_NEEDLESS: Final[Mapping[str, str]] = {
    **dict.fromkeys(
        ("master", "enable-threads", "single-interpreter", "thunder-lock", "need-app", "die-on-term", "vacuum",
         "no-orphans", "close-on-exec", "close-on-exec2", "strict", "no-default-app", "wsgi-disable-file-wrapper",
         "exit-on-reload", "hook-master-exit", "py-call-osafterfork", "py-call-uwsgi-fork-hooks"),
        "srvd is so by itself",
    ),
    **dict.fromkeys(
        ("plugin", "plugins", "plugin-dir", "plugins-dir", "autoload", "offload-threads"), "srvd has no plugins"
    ),
    **dict.fromkeys(
        ("buffer-size", "post-buffering", "post-buffering-bufsize"), "max_head is 64 KiB, and bodies are buffered"
    ),
    **dict.fromkeys(("harakiri-verbose", "memory-report", "stats", "stats-http", "stats-server", "master-fifo"),
                    "`srvctl status`, `workers` and `why` tell it"),
    **dict.fromkeys(("auto-procname", "procname", "procname-append"), "processes are named after the instance"),
    **dict.fromkeys(("ignore-sigpipe", "ignore-write-errors", "disable-write-exception", "http-auto-chunked",
                     "http-enable-proxy-protocol", "so-keepalive", "tcp-nodelay", "http-raw-body", "so-send-timeout",
                     "http-processes", "http-workers", "reuse-port", "max-fd", "log-master", "log-4xx", "log-5xx",
                     "log-x-forwarded-for", "abstract-socket", "umask", "socket-timeout", "http-timeout",
                     "http-connect-timeout", "mule-reload-mercy", "manage-script-name", "cpu-affinity",
                     "python-worker-override", "worker-reload-mercy-verbose"), "srvd does without"),
}  # fmt: skip

_ASYNC: Final = ("gevent", "async", "asyncio", "ugreen", "loop", "tornado", "greenlet")
_FOREIGN: Final = ("emperor", "php-docroot", "psgi", "rack", "rails", "lua", "cgi", "mono-app", "pypy-wsgi", "jvm")


def translate(given: Given, path: str, name: str, *, secrets: bool = False) -> Translation:
    """Returns the lines that say in srvd what the options say in uWSGI, and what is to be told about it.

    path: of the file, as the report calls it; "": a start line. name: of the instance. secrets: whether values of the
    environment that look like secrets are copied.
    """
    return _Translator(given, path, secrets=secrets).translate(name)


class _Translator:
    def __init__(self, given: Given, path: str, *, secrets: bool) -> None:
        self.given, self.path, self.secrets = given, path, secrets
        self.held: dict[str, list[Option]] = {}
        for option in given.options:
            self.held.setdefault(_ALIASES.get(option.name, option.name), []).append(option)
        self.told = set[str]()
        self.entries: list[Entry] = []
        self.findings: list[Finding] = list(given.findings)

    def translate(self, name: str) -> Translation:
        tidied = instance_name(self._text("procname") or name)
        self._add("daemon", "name", quote(tidied), "each daemon has a name")
        self._log()
        self._listeners()
        self._application()
        self._workers()
        for key, (table, ours) in _PLAIN.items():
            if text := self._text(key):
                self._add(table, ours, quote(text), key)
        for key, number in _NUMBERS.items():
            self._number(key, *number)
        self._environment()
        self._rest()
        return Translation(tuple(self.entries), tuple(self.findings))

    # What is asked of the options

    def _text(self, name: str) -> str:
        """The text of the last option of a name; "" without one, or if it is switched off."""
        self.told.add(name)
        texts = self._texts(name)
        return texts[-1] if texts else ""

    def _texts(self, name: str) -> list[str]:
        self.told.add(name)
        return [one.text for one in self.held.get(name, ()) if one.text.lower() not in ("", "false", "off")]

    def _is_on(self, name: str) -> bool:
        self.told.add(name)
        return any(one.text.lower() not in ("false", "0", "off") for one in self.held.get(name, ()))

    def _add(self, table: str, key: str, text: str, comment: str) -> None:
        self.entries.append(Entry(table, key, text, comment))

    def _tell(self, category: str, name: str, text: str) -> None:
        line = self.held[name][0].line if name in self.held else 0
        where = f"{self.path}:{line}" if line else self.path
        self.findings.append(Finding(category, where, f"{name}: {text}" if name else text))

    # What becomes of them

    def _log(self) -> None:
        path = self._text("daemonize") or self._text("logto")
        for name in ("daemonize", "logto"):
            self.told.add(name)
        if "daemonize" in self.held:
            self._tell("next", "daemonize", "start it with --daemonize; under a service manager it is not wanted")
        if path and ":" not in path:
            self._add("daemon", "log_file", quote(path), "daemonize" if "daemonize" in self.held else "logto")
        elif path:
            self._tell("lost", "daemonize" if "daemonize" in self.held else "logto", f"{path} is no file")

    def _listeners(self) -> None:
        spoken = self._text("protocol") in ("http", "https")
        sockets = [] if spoken else self._texts("socket")
        plain = [*self._texts("http"), *self._texts("http-socket"), *(self._texts("socket") if spoken else ())]
        binds = [self._address(one) for one in (*plain, *sockets)]
        for text in (*self._texts("https"), *self._texts("https-socket")):
            address, *files = text.split(",")
            binds.append(self._address(address))
            for key, file in zip(("certificate", "key", "ciphers", "client_ca"), files, strict=False):
                wanted = spell([file]) if key in ("certificate", "key") else quote(file)
                self._add("listeners.web", key, wanted, "https")
        if binds:
            self._add("listeners.web", "bind", spell(binds), "http, socket")
        if sockets:
            self._of_proxy([self._address(one) for one in sockets])
        if any(one.startswith("unix:") for one in binds):
            self._access()

    def _address(self, text: str) -> str:
        if text.startswith(("@", "=")):
            self._tell("refused", "socket", f"{text}: srvd opens no abstract and no shared sockets")
        if text.isdecimal():
            return f":{text}"
        return text.removeprefix("*") if ":" in text else f"unix:{text}"

    def _of_proxy(self, binds: list[str]) -> None:
        """A proxy that spoke uwsgi has to speak HTTP, and to say in fields who the client is."""
        peers = ["unix"] if any(one.startswith("unix:") for one in binds) else []
        if any(one.startswith(("127.", "localhost", "[::1]")) for one in binds):
            peers.append("127.0.0.1")
        text = "srvd speaks HTTP: proxy_pass in place of uwsgi_pass, with Host, X-Forwarded-For and X-Forwarded-Proto"
        self._tell("changed", "socket", text)
        if peers:
            self._add("listeners.web", "trusted_proxies", spell(peers), "the proxy that spoke uwsgi")
        else:
            self._tell("asked for", "socket", "the network of the proxy, for trusted_proxies")

    def _access(self) -> None:
        mode = self._text("chmod-socket")
        if mode:
            digits = mode if re.fullmatch("[0-7]{3,4}", mode) else "666"
            self._add("listeners.web", "mode", quote(digits.rjust(4, "0")), "chmod-socket")
        owner, _, group = self._text("chown-socket").partition(":")
        for key, text in (("owner", owner), ("group", group)):
            if text:
                self._add("listeners.web", key, quote(text), "chown-socket")

    def _application(self) -> None:
        called = self._text("callable")
        module, file, mounted = self._text("module"), self._text("wsgi-file"), self._text("mount")
        if mounted and not module and not file:
            prefix, _, module = mounted.partition("=")
            if module.endswith(".py"):
                file, module = module, ""
            if prefix.strip("/"):
                self._tell("changed", "mount", f"{prefix}: a trusted proxy says it in X-Forwarded-Prefix")
        if len(self._texts("mount")) > 1:
            self._tell("lost", "mount", "a pool has one application: several are mounted by a dispatcher in front")
        folders = self._texts("pythonpath")
        if file and not module:
            module = self._module(file, folders)
        if not module:
            self._tell("asked for", "", "the application: module, or wsgi-file, is not there")
        else:
            name, _, attribute = module.partition(":")
            attribute = attribute or called
            self._add("pools.web", "app", quote(f"{name}:{attribute}" if attribute else name), "module, callable")
        if home := self._text("home"):
            self._add("pools.web", "python", quote(f"{home.rstrip('/')}/bin/python"), "home")
        if folders:
            self._add("pools.web", "pythonpath", spell(folders), "pythonpath")

    def _module(self, file: str, folders: list[str]) -> str:
        """The module of a file, which may be outside of the folders that modules are imported from."""
        home = self._text("chdir").rstrip("/")
        inside = file.removeprefix(f"{home}/") if home else file
        folder, _, name = inside.rpartition("/")
        parts = [*(one for one in folder.split("/") if one not in ("", ".")), name.removesuffix(".py")]
        if not inside.startswith("/") and all(part.isidentifier() for part in parts):
            return ".".join(parts)
        folders.append(folder or ".")
        return parts[-1]

    def _workers(self) -> None:
        text = self._text("processes") or "1"
        formula = re.sub(r"^%\((.*)\)$", r"\1", text).replace("%k", "cpus")
        if re.fullmatch(r"[0-9cpus +*/-]+", formula):
            self._add("pools.web", "workers", formula if formula.isdecimal() else quote(formula), "processes")
        elif "${" in text:
            self._add("pools.web", "workers", quote(text), "processes")
        else:
            self._tell("asked for", "processes", f"{text} is no number here; workers is as srvd has it")
        self.told.update(name for name in self.held if name.startswith("cheaper-"))
        if self._text("cheaper"):
            self._tell("changed", "cheaper", "workers is the number that always runs; `srvctl scale` changes it")
        seconds = self._text("harakiri")
        if re.fullmatch(r"[0-9]+|\$\{.*\}", seconds) and seconds != "0":
            spelled = f"{seconds}s" if seconds.isdecimal() else seconds
            self._add("pools.web", "request_timeout", quote(spelled), "harakiri, until the first block")
        else:
            self._add("pools.web", "request_timeout", "0", "no harakiri: no limit")
        if self._is_on("lazy-apps"):
            self._add("pools.web", "preload", '"off"', "lazy-apps")
        if self._is_on("py-autoreload"):
            self._add("pools.web", "reload", '"on"', "py-autoreload")
        if not self._is_on("disable-logging"):
            self._add("pools.web", "access_log", '"-"', "uWSGI logs requests, unless disable-logging")

    def _number(self, key: str, table: str, ours: str, unit: str) -> None:
        text = self._text(key)
        if not text or text == "0":
            return
        if re.fullmatch(r"[0-9]+", text):
            plain = text if not unit or unit == "B" else quote(text + unit)
            self._add(table, ours, plain, key)
        elif "${" in text:
            self._add(table, ours, quote(text + ("" if unit == "B" else unit)), key)
        else:
            self._tell("changed", key, f"{text} is no number; {ours} is as srvd has it")

    def _environment(self) -> None:
        pairs = dict(text.split("=", 1) for text in self._texts("env") if "=" in text)
        shown, hidden = (pairs, []) if self.secrets else without_secrets(pairs)
        if hidden:
            self._tell("asked for", "env", f"{', '.join(hidden)} may be secret: put it into env_file, or --secrets")
        if shown:
            self._add("pools.web", "env", spell(shown), "env")

    def _rest(self) -> None:
        for name, options in self.held.items():
            if name in self.told or name in self.given.used or all(one.text.lower() == "false" for one in options):
                continue
            self._tell(*_fate(name, options[0].text))


def _fate(name: str, text: str) -> tuple[str, str, str]:
    """Category, name and sentence of an option that is not carried over."""
    if name in _ASYNC:
        return "refused", name, f"{name} runs greenlets, srvd threads: `threads` in their place"
    if name in _FOREIGN:
        return "refused", name, "srvd runs applications of Python, one configuration for each instance"
    if name.startswith("touch-"):
        return "changed", name, f"`srvctl reload` in place of touching {text}"
    if name in _LOST:
        return "lost", name, _LOST[name]
    if name in _NEEDLESS:
        return "needless", name, _NEEDLESS[name]
    return "asked for", name, f"{text}: it is not known here, and not carried over"
