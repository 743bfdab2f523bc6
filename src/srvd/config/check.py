"""Checks a configuration against itself and the machine: addresses, folders, programs, users, numbers of workers.

Opens no socket and changes nothing: whether an address is free is found out when it is bound.
"""

from __future__ import annotations

import grp
import os
import pwd
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from srvd.config import health
from srvd.config.problems import Problem
from srvd.config.settings import Config, ListenerSettings, PoolSettings
from srvd.config.values import nearest
from srvd.errors import ConfigInvalid
from srvd.http.access_format import PRESETS, explain_problem
from srvd.http.access_skip import explain_rule
from srvd.linux.processes.identity import OVERFLOW, is_mapped
from srvd.linux.sockets import Address, parse_address
from srvd.record import Record
from srvd.tls import material
from srvd.tls.material import Material

__all__ = ["anchor", "check", "find_program", "find_wrapper"]

LONGEST_SOCKET_PATH: Final = 107
"""Bytes that `sun_path` holds besides its closing zero: unix(7)."""


class Findings(Record):
    problems: tuple[Problem, ...]
    warnings: tuple[str, ...]
    tls: dict[str, Material]


def anchor(kind: str, value: Any, folder: str) -> Any:
    """Returns the value with relative paths made absolute, from `folder`; `find_program` looks up bare names later."""
    if kind in ("path", "log path", "folder") or (kind == "program" and "/" in value):
        return _absolute(folder, value) if value else value
    if kind == "path or off":
        return value if value in ("", "off") else _absolute(folder, value)
    if kind == "path or -":
        return value if value in ("", "-") else _absolute(folder, value)
    if kind in ("folders", "files"):
        return tuple(_absolute(folder, item) for item in value)
    if kind == "addresses":
        return tuple(_anchor_address(item, folder) for item in value)
    return value


def _absolute(folder: str, path: str) -> str:
    """Returns `path` from `folder`; "" is the working directory, which raises `FileNotFoundError` if it is gone."""
    if ".." in path.split("/") and not os.path.isabs(path) and os.path.realpath(folder) != os.path.abspath(folder):
        # If `folder` is a link, `..` means the parent of its target to the kernel, which abspath would not know.
        return os.path.join(folder, path)
    return os.path.abspath(os.path.join(folder, path))


def _anchor_address(address: str, folder: str) -> str:
    path = address.removeprefix("unix:")
    if path == address or not path or path.startswith(("/", "@")):
        return address
    return "unix:" + _absolute(folder, path)


def find_program(name: str, environ: Mapping[str, str]) -> str:
    """Looks up a program that was named without a slash on PATH; returns `name` itself when there is none."""
    if not name or "/" in name:
        return name
    # Not shutil.which: importing shutil brings in every archive format. Not realpath: a virtual environment's
    # interpreter is a link, and finds its packages by where the link is.
    paths = (os.path.join(folder, name) for folder in environ.get("PATH", os.defpath).split(os.pathsep))
    return next((os.path.abspath(path) for path in paths if _is_program(path)), name)


def find_wrapper(words: Sequence[str], python: str, environ: Mapping[str, str]) -> tuple[str, ...]:
    """Returns the words of `wrap` with the path of the program: beside the interpreter, as in a virtual environment,
    else on PATH.
    """
    beside = os.path.join(os.path.dirname(python), words[0])
    name = beside if "/" not in words[0] and _is_program(beside) else words[0]
    return (find_program(name, environ), *words[1:])


def _is_program(path: str) -> bool:
    return os.path.isfile(path) and os.access(path, os.X_OK)


def check(config: Config) -> Findings:
    """Returns all problems of a configuration whose values each fit their setting, and warnings about it."""
    checker = _Checker(config)
    checker.check_socket()
    checker.check_roles()
    checker.check_listeners()
    for pool in config.pools.values():
        checker.check_pool(pool)
    checker.check_shares()
    for listener in config.listeners.values():
        checker.check_front(listener)
        checker.check_owner(listener)
    return Findings(tuple(checker.problems), tuple(checker.warnings), checker.tls)


class _Checker:
    def __init__(self, config: Config) -> None:
        self.config = config
        self.problems: list[Problem] = []
        self.warnings: list[str] = []
        self.tls: dict[str, Material] = {}

    def _refuse(self, key: str, text: str, near: str = "") -> None:
        self.problems.append(Problem(self.config.origins[key], key, text, near and f'"{near}"'))

    def check_socket(self) -> None:
        length = len(os.fsencode(self.config.daemon.socket))
        if length > LONGEST_SOCKET_PATH:
            self._refuse(
                "control.socket", f"found a path of {length} bytes, expected at most {LONGEST_SOCKET_PATH} (unix(7))"
            )

    def check_roles(self) -> None:
        """An unknown user is only a warning: one file may serve machines that do not have the same users."""
        for role, members in self.config.daemon.roles.items():
            for member in members:
                known = _group(member[1:]) if member.startswith("%") else _user(member)
                if known is None:
                    what = f"group {member[1:]}" if member.startswith("%") else f"user {member}"
                    where = self.config.origins["control.roles"]
                    self.warnings.append(f"{where}: there is no {what} on this machine to be {role}")
                kind = "group" if member.startswith("%") else "user"
                if known == OVERFLOW and not is_mapped(f"{kind[0]}id", OVERFLOW):
                    self._refuse(
                        "control.roles",
                        f"this user namespace has no {kind} {OVERFLOW}: the kernel shows that number for every {kind} "
                        f"that the namespace does not know (/proc/self/{kind[0]}id_map)",
                    )

    def check_listeners(self) -> None:
        owners: dict[Address, str] = {}
        for name, listener in self.config.listeners.items():
            key = f"listeners.{name}.bind"
            for text in listener.bind:
                try:
                    address = parse_address(text)
                except ConfigInvalid as exc:
                    clear = "did you mean" in exc.message or not exc.hint
                    self._refuse(key, exc.message if clear else f"{exc.message}; {exc.hint}")
                    continue
                anew = address.kind.startswith("inet") and address.port == 0  # the kernel chooses each time
                if address in owners and not anew:
                    again = "twice" if owners[address] == name else f"in listener {owners[address]} as well"
                    self._refuse(key, f'found "{text}" {again}, expected each address once')
                owners[address] = name
        self._check_wildcards()

    def _check_wildcards(self) -> None:
        """Refuses an address that another `bind` covers already, by 0.0.0.0 or [::]."""
        listeners = self.config.listeners.items()
        texts = [
            (name, text, address)
            for name, one in listeners
            for text in one.bind
            if (address := _parsed(text)) is not None
        ]
        wide = [one for one in texts if one[2].host in ("0.0.0.0", "::")]  # noqa: S104
        for name, text, address in texts:
            for other, everywhere, known in wide:
                shared = self.config.listeners[name].reuse_port and self.config.listeners[other].reuse_port
                same = (address.kind, address.port) == (known.kind, known.port) and address.port
                if same and address.host != known.host and not shared:
                    whose = "your other bind" if name == other else f"listener {other}"
                    self._refuse(f"listeners.{name}.bind", f'found "{text}", which {whose} has with "{everywhere}"')

    def check_front(self, listener: ListenerSettings) -> None:
        """Checks what a connection passes before HTTP: the PROXY protocol, TLS."""
        key = f"listeners.{listener.name}"
        if listener.proxy_protocol and not listener.proxy_from:
            self._refuse(f"{key}.proxy_protocol", "found true, expected proxy_from with the networks that may write it")
        if listener.proxy_from and not listener.proxy_protocol:
            self._refuse(f"{key}.proxy_from", "found networks, expected proxy_protocol = true beside them")
        if listener.key and len(listener.key) != len(listener.certificate):
            keys, certificates = (
                f"{len(files)} {word}{'' if len(files) == 1 else 's'}"
                for files, word in ((listener.key, "key"), (listener.certificate, "certificate"))
            )
            expected = "one for each certificate, in the same order, or none"
            self._refuse(f"{key}.key", f"found {keys} for {certificates}, expected {expected}")
            return
        verifying = listener.client_certificates != "none"
        if verifying != bool(listener.client_ca):
            wanted = "client_ca with their authority" if verifying else 'client_certificates "optional" or "required"'
            name = "client_certificates" if verifying else "client_ca"
            self._refuse(f"{key}.{name}", f"found it alone, expected {wanted}")
            return
        if listener.certificate:
            self._read_certificates(f"{key}.certificate", listener)
        elif verifying:
            self._refuse(f"{key}.client_certificates", "found it without a certificate, expected TLS to be spoken")

    def _read_certificates(self, key: str, listener: ListenerSettings) -> None:
        # Here, because ssl costs 11 ms, and most listeners speak plain HTTP.
        from srvd.tls import context

        demands = (listener.client_certificates, listener.ciphers, listener.minimum_tls)
        try:
            found = material.read(
                listener.certificate, listener.key, listener.client_ca, demands, listener.key_password_file
            )
            examined = context.examine(found)
        except ConfigInvalid as exc:
            self._refuse(key, exc.message)
            return
        self.tls[listener.name] = examined.material
        self.warnings += [f"{self.config.origins[key]}: {warning}" for warning in examined.warnings]

    def check_pool(self, pool: PoolSettings) -> None:
        key = f"pools.{pool.name}"
        for name in pool.listeners:
            if name not in self.config.listeners:
                known = ", ".join(self.config.listeners)
                self._refuse(
                    f"{key}.listeners",
                    f'found "{name}", expected the name of a listener ({known})',
                    nearest(name, self.config.listeners),
                )
        if pool.python and not _is_program(pool.python):
            self._refuse(f"{key}.python", f'found "{pool.python}", expected a program that exists and may be executed')
        if pool.wrap and not _is_program(find_wrapper(pool.wrap, pool.python or sys.executable, os.environ)[0]):
            self._refuse(f"{key}.wrap", f'found "{pool.wrap[0]}", expected a program that exists and may be executed')
        folders = [("chdir", pool.chdir), *(("pythonpath", folder) for folder in pool.pythonpath)]
        for name, folder in folders:
            if folder and not os.path.isdir(folder):
                self._refuse(f"{key}.{name}", f'found "{folder}", expected a folder that exists')
        for name, text in health.misfits(pool):
            self._refuse(f"{key}.{name}", text)
        if not pool.workers:
            where = self.config.origins[f"{key}.workers"]
            self.warnings.append(f"{where}: pool {pool.name} has 0 workers: its clients wait until it has some")
        self._check_owner(key, pool)
        self._check_access_log(key, pool)

    def _check_access_log(self, key: str, pool: PoolSettings) -> None:
        """Does not try to open the file: the worker will, perhaps as another user."""
        folder = os.path.dirname(pool.access_log)
        if folder and not os.path.isdir(folder):
            self._refuse(f"{key}.access_log", f'found "{pool.access_log}", expected a file in a folder that exists')
        for rule in pool.access_log_skip:
            if wrong := explain_rule(rule):
                self._refuse(f"{key}.access_log_skip", f'found "{rule}": {wrong}')
        problem = explain_problem(pool.access_log_format)
        if problem:
            near = "" if "%" in pool.access_log_format else nearest(pool.access_log_format, PRESETS)
            self._refuse(f"{key}.access_log_format", problem, near)

    def check_owner(self, listener: ListenerSettings) -> None:
        """Checks owner and group of the listener's Unix sockets."""
        key = f"listeners.{listener.name}"
        if listener.owner and _user(listener.owner) is None:
            near = nearest(listener.owner, (entry.pw_name for entry in pwd.getpwall()))
            self._refuse(f"{key}.owner", f'found "{listener.owner}", expected a user of this machine', near)
        if listener.group and _group(listener.group) is None:
            near = nearest(listener.group, (entry.gr_name for entry in grp.getgrall()))
            self._refuse(f"{key}.group", f'found "{listener.group}", expected a group of this machine', near)

    def _check_owner(self, key: str, pool: PoolSettings) -> None:
        """Checks user and group of a pool, names or numbers; without root only the daemon's own are allowed."""
        user = _user(pool.user)
        if pool.user and user is None:
            near = nearest(pool.user, (entry.pw_name for entry in pwd.getpwall()))
            self._refuse(f"{key}.user", f'found "{pool.user}", expected a user of this machine', near)
        group = _group(pool.group)
        if pool.group and group is None:
            near = nearest(pool.group, (entry.gr_name for entry in grp.getgrall()))
            self._refuse(f"{key}.group", f'found "{pool.group}", expected a group of this machine', near)
        if os.geteuid() == 0:
            return
        for name, wanted, own in (("user", user, os.geteuid()), ("group", group, os.getegid())):
            if wanted not in (None, own):
                self._refuse(
                    f"{key}.{name}", f"only root can run a pool as another {name}, and srvd runs as uid {os.geteuid()}"
                )

    def check_shares(self) -> None:
        """Checks what pools share: the most workers in all, and the listeners."""
        pools = self.config.pools.values()
        total, most = sum(pool.workers for pool in pools), self.config.daemon.max_workers
        if total > most:
            largest = max(pools, key=lambda pool: pool.workers)
            self._refuse(
                f"pools.{largest.name}.workers",
                f"found {total} workers in all pools, expected at most max_workers of [daemon], which is {most}",
            )
        for listener in self.config.listeners:
            users = [pool.name for pool in pools if listener in pool.listeners]
            where = self.config.origins[f"listeners.{listener}.bind"]
            if not users:
                self.warnings.append(f"{where}: no pool accepts on listener {listener}: its clients will wait for ever")
            if len(users) > 1:
                shared = f"pools {_and(users)} all accept on listener {listener}"
                self.warnings.append(f"{where}: {shared}: which of them gets a connection is chance")


def _parsed(text: str) -> Address | None:
    try:
        return parse_address(text)
    except ConfigInvalid:
        return None


def _and(words: Iterable[str]) -> str:
    return " and ".join(words)


def _user(name: str) -> int | None:
    if name.isdecimal():
        return int(name)
    try:
        return pwd.getpwnam(name).pw_uid
    except KeyError:
        return None


def _group(name: str) -> int | None:
    if name.isdecimal():
        return int(name)
    try:
        return grp.getgrnam(name).gr_gid
    except KeyError:
        return None
