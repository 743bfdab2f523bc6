"""Reads the configuration: defaults < PORT and WEB_CONCURRENCY < file < SRVD_ variables < flags (later ones win).

Changes nothing and starts nothing. All problems are collected before they are raised together, each with its place,
what was found, what is expected, and the nearest value that fits.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from srvd.config import gunicorn, values
from srvd.config.check import anchor, check, find_program
from srvd.config.problems import Problem, raise_for, spell
from srvd.config.settings import Config, DaemonSettings, ListenerSettings, PoolSettings, Setting, declared
from srvd.config.spelling import env_file, formula
from srvd.config.spelling import variables as references
from srvd.linux.processes.cgroup import granted_cpus

__all__ = ["DEFAULT_FILE", "Config", "load", "variables"]

DEFAULT_FILE: Final = "srvd.toml"
"""What `srvd start` reads from the working directory when no file is named."""

Key = tuple[str, ...]

_DAEMON: Final = declared(DaemonSettings)
_NAMED: Final[Mapping[str, Mapping[str, Setting]]] = {
    "listeners": declared(ListenerSettings),
    "pools": declared(PoolSettings),
}
_LONGEST_ENV_FILE: Final = 1 << 20
_APP: Final = values.KINDS["app"].expected
_TABLES: Final = ("daemon", "control", "listeners", "pools")
_PLATFORM: Final = (
    ("PORT", "listeners", "bind", "0.0.0.0:{}"),
    ("WEB_CONCURRENCY", "pools", "workers", "{}"),
)


def load(
    path: str | None,
    flags: Mapping[str, object],
    environ: Mapping[str, str],
    *,
    folder: str = "",
    home: str = "",
    again: bool = False,
) -> Config:
    """Reads the configuration from the file at `path` (None: no file), the flags of `srvd start` and the environment.

    flags: maps a flag as it is declared ("--workers", "APP") to its text, or to a list of texts; None and () mean that
        it was not given.
    folder: where relative paths in flags and variables begin; "": the working directory.
    home: where those in the file begin; "": in the file's folder.
    again: the file was read before; a pipe in its place is refused and not waited for.

    Raises `ConfigInvalid` with all problems, which are in `detail["problems"]` as well.
    """
    layers = _Layers(folder, home, environ)
    file = ""
    layers.warnings += _unread(path, environ)
    if path:
        # Here, because tomllib costs 4 to 15 ms and a start by flags reads no file.
        from srvd.config import toml

        document = toml.read_document(path, again=again)
        file = document.path
        layers.add_file(document.values, document.where)
    layers.complete_names()
    layers.add_platform(environ)
    layers.add_environment(environ)
    layers.add_flags(flags)
    if path:
        layers.require_apps(file, document.where)
    config = layers.build(file, environ)
    findings = check(config)
    raise_for([*layers.problems, *findings.problems])
    return config._replace(warnings=(*layers.warnings, *findings.warnings), tls=findings.tls)


def variables() -> dict[str, tuple[str, str]]:
    """Maps each SRVD_ variable to the table and the name of its setting."""
    return {
        f"SRVD_{name.upper()}": (title, name)
        for title, settings in (("daemon", _DAEMON), *_NAMED.items())
        for name, setting in settings.items()
        if not values.KINDS[setting.kind.partition(":")[0]].tabled
    }


class _Layers:
    """The values, as later sources replace those of earlier ones, and the problems found on the way."""

    def __init__(self, folder: str, home: str, environ: Mapping[str, str]) -> None:
        self.folder = folder  # of relative paths in flags and variables
        self.home = home  # of those in the file; "": the file's folder
        self.environ = environ
        self.chosen: dict[Key, Any] = {}
        self.origins: dict[Key, str] = {}
        self.names: dict[str, list[str]] = {"listeners": [], "pools": []}
        self.names_pools = False  # the file does
        self.problems: list[Problem] = []
        self.warnings: list[str] = []

    def add_file(self, tables: Mapping[str, Any], where: Callable[[Key], str]) -> None:
        for title, table in tables.items():
            if title not in _TABLES:
                near = values.nearest(title, _TABLES)
                self._unknown(where((title,)), (title,), f"[{near}]" if near else _home_of(title))
            elif not isinstance(table, dict):
                self._refuse(where((title,)), (title,), table, f"a table: [{title}]")
            elif title in _NAMED:
                self._add_named(title, table, where)
            else:
                self._add_table((title,), table, _settings_of(title), where)

    def _add_named(self, title: str, tables: Mapping[str, Any], where: Callable[[Key], str]) -> None:
        for name, table in tables.items():
            key = (title, name)
            if not isinstance(table, dict):
                self._refuse(where(key), key, table, f"a table: [{title}.NAME]", _home_of(name))
                continue
            try:
                values.read("name", name)
            except values.Unfit as unfit:
                self._refuse_unfit(where(key), key, name, unfit)
            self.names[title].append(name)
            self._add_table(key, table, _NAMED[title], where)

    def _add_table(
        self, above: Key, table: Mapping[str, Any], known: Mapping[str, Setting], where: Callable[[Key], str]
    ) -> None:
        for name, value in table.items():
            key = (*above, name)
            if name in known:
                self._put_expanded(key, value, known[name].kind, where(key))
            else:
                self._unknown(where(key), key, values.nearest(name, known) or _home_of(name))

    def _put_expanded(self, key: Key, value: object, kind: str, where: str) -> None:
        """Sets a value of the file, in which texts may name variables of the environment."""
        try:
            value, origins = references.expand(value, self.environ)
        except references.Unexpandable as exc:
            self.problems.append(Problem(where, ".".join(key), f"found {spell(value)}: {exc}"))
            return
        if origins and isinstance(value, str):
            value = values.from_text(kind, value)
        self._put(key, value, kind, where, origins)

    def complete_names(self) -> None:
        """Adds one listener and one pool, each called "web", unless the file names others."""
        self.names_pools = bool(self.names["pools"])
        for names in self.names.values():
            names[:] = names or ["web"]

    def add_platform(self, environ: Mapping[str, str]) -> None:
        """Applies PORT and WEB_CONCURRENCY, which hosting platforms set, where the file sets nothing."""
        for variable, title, name, spelled in _PLATFORM:
            key = (title, self.names[title][0], name)
            if environ.get(variable) and len(self.names[title]) == 1 and key not in self.origins:
                kind = _NAMED[title][name].kind
                value = values.from_text(kind, spelled.format(environ[variable]))
                self._put(key, value, kind, f"environment {variable}")

    def add_environment(self, environ: Mapping[str, str]) -> None:
        known = variables()
        for variable in sorted(name for name in environ if name.startswith("SRVD_")):
            if variable in known:
                self._put_single(*known[variable], environ[variable], f"environment {variable}")
                continue
            # A warning only: Kubernetes sets SRVD_SERVICE_HOST and others for a service called srvd.
            foreign = _foreign(variable.removeprefix("SRVD_").lower())
            near = values.nearest(variable, known)
            meant = f": {foreign}" if foreign else f"; did you mean {near}?" if near else ""
            self.warnings.append(f"environment {variable} is no setting{meant}")

    def add_flags(self, flags: Mapping[str, object]) -> None:
        for title, settings in (("daemon", _DAEMON), *_NAMED.items()):
            for name, setting in settings.items():
                given = flags.get(setting.flag) if setting.flag else None
                if given is not None and given != ():
                    self._put_single(title, name, given, f"flag {setting.flag}")

    def require_apps(self, file: str, where: Callable[[Key], str]) -> None:
        """Refuses a pool of the file without an application.

        The demo is only for a start without a file: as a default with a file, it would replace the real application
        at the reload of a file that was emptied or cut short.
        """
        told = {problem.key for problem in self.problems}
        for name in self.names["pools"]:
            key = ("pools", name, "app")
            if key in self.chosen or ".".join(key) in told:
                continue
            if self.names_pools:
                self.problems.append(Problem(where(key), ".".join(key), f"not there, expected {_APP}"))
            elif "pools" not in told:
                text = "the file names no pool, expected a table [pools.NAME] with its app, or APP on the command line"
                self.problems.append(Problem(file, "pools", text))

    def _put_single(self, title: str, name: str, given: object, origin: str) -> None:
        """Sets a value of the daemon, or of the only pool or listener."""
        setting = _DAEMON[name] if title == "daemon" else _NAMED[title][name]
        if title in _NAMED and len(self.names[title]) > 1:
            tables = " and ".join(f"[{title}.{single}]" for single in self.names[title])
            self.problems.append(
                Problem(origin, name, f"sets one of {title}, but there are several: say it in {tables}")
            )
            return
        key = (title, self.names[title][0], name) if title in _NAMED else (setting.table or title, name)
        value = values.from_text(setting.kind, given) if isinstance(given, str) else given
        self._put(key, list(value) if isinstance(value, tuple) else value, setting.kind, origin)

    def _put(self, key: Key, value: object, kind: str, origin: str, notes: Sequence[str] = ()) -> None:
        """notes: what the value also depends on, besides its origin."""
        try:
            folder = (self.home or os.path.dirname(origin)) if origin.startswith("/") else self.folder
            read = values.read(kind, value)
            if kind.startswith("formula") and isinstance(read, str):
                cpus = granted_cpus()
                notes = (*notes, f"{read} with cpus = {cpus}")
                try:
                    value = formula.evaluate(read, cpus)
                except ValueError as exc:  # with other numbers of processors it can be calculated
                    self.problems.append(Problem(origin, ".".join(key), f"{read} with cpus = {cpus}: {exc}"))
                    return
                read = values.read(kind, value)
            self.chosen[key] = anchor(kind, read, folder)
            self.origins[key] = ", ".join((origin, *notes))
        except FileNotFoundError:
            self._refuse(origin, key, value, "an absolute path: the folder that srvd was started in has been removed")
        except values.Unfit as unfit:
            self._refuse_unfit(origin, key, value, unfit)

    def _refuse_unfit(self, where: str, key: Key, value: object, unfit: values.Unfit) -> None:
        found = value if unfit.found is None else unfit.found
        self._refuse(where, key, found, unfit.expected, unfit.nearest)

    def _refuse(self, where: str, key: Key, found: object, expected: str, near: str = "") -> None:
        self.problems.append(Problem.unfit(where, ".".join(key), found, expected, near))

    def _unknown(self, where: str, key: Key, near: str) -> None:
        foreign = _foreign(key[-1])
        text = f"there is no such setting: {foreign}" if foreign else "there is no such setting"
        self.problems.append(Problem(where, ".".join(key), text, "" if foreign else near))

    def build(self, path: str, environ: Mapping[str, str]) -> Config:
        daemon = DaemonSettings._make(
            self._value((setting.table or "daemon", name), DaemonSettings._field_defaults[name])
            for name, setting in _DAEMON.items()
        )
        listeners = {
            name: ListenerSettings._make([name, *self._values("listeners", name, ListenerSettings._field_defaults)])
            for name in self.names["listeners"]
        }
        pools = {}
        for name in self.names["pools"]:
            pool = PoolSettings._make([name, *self._values("pools", name, PoolSettings._field_defaults)])
            pools[name] = pool._replace(
                env={**self._of_env_file(name, pool.env_file), **pool.env},
                listeners=pool.listeners or tuple(listeners),
                python=find_program(pool.python, environ),
                max_target=pool.max_target or pool.max_head,
                max_field=pool.max_field or pool.max_head,
            )
        return Config(daemon, listeners, pools, {".".join(key): origin for key, origin in self.origins.items()}, path)

    def _of_env_file(self, name: str, path: str) -> dict[str, str]:
        """Reads the variables of a pool's file; {} without one, or if it has a problem, which is noted."""
        if not path:
            return {}
        try:
            with open(path, encoding="utf-8", opener=_open_unblocked) as file:
                text = file.read(_LONGEST_ENV_FILE + 1)
                if len(text) > _LONGEST_ENV_FILE:
                    msg = f"it has more than {_LONGEST_ENV_FILE} characters"
                    raise ValueError(msg)
                return env_file.parse(text)
        except (OSError, ValueError) as exc:
            reason = exc.strerror if isinstance(exc, OSError) else str(exc)
            key = f"pools.{name}.env_file"
            self.problems.append(Problem(self.origins[("pools", name, "env_file")], key, f"read {path}: {reason}"))
            return {}

    def _values(self, title: str, name: str, defaults: Mapping[str, Any]) -> list[Any]:
        return [self._value((title, name, setting), defaults[setting]) for setting in _NAMED[title]]

    def _value(self, key: Key, default: Any) -> Any:
        self.origins.setdefault(key, "default")
        return self.chosen.get(key, default)


def _open_unblocked(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK | os.O_CLOEXEC)  # opening a FIFO would wait for its writer


def _settings_of(title: str) -> dict[str, Setting]:
    return {name: setting for name, setting in _DAEMON.items() if (setting.table or "daemon") == title}


def _unread(path: str | None, environ: Mapping[str, str]) -> list[str]:
    """Warns of a configuration of gunicorn, which srvd does not read."""
    hint = "`srvd import` makes a srvd.toml of it"
    found = [] if path or not os.path.exists("gunicorn.conf.py") else [f"gunicorn.conf.py is not read: {hint}"]
    return found + ([f"environment GUNICORN_CMD_ARGS is not read: {hint}"] if environ.get("GUNICORN_CMD_ARGS") else [])


def _foreign(name: str) -> str:
    """Says what a setting of gunicorn is called here; "" for a name that gunicorn does not have."""
    called, sentence = gunicorn.translation(name)
    return f"it is called {_home_of(called)} here" if called else sentence


def _home_of(name: str) -> str:
    """Names the table of a setting that was written into another one; "": there is no such setting."""
    if name in _DAEMON:
        return f"{name} in [{_DAEMON[name].table or 'daemon'}]"
    return next((f"{name} in [{title}.NAME]" for title, settings in _NAMED.items() if name in settings), "")
