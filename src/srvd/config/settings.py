"""Every setting, declared once, those of pools in `pool_settings.py`: the TOML key, the flag, the SRVD_ variable, `srvd
config` and the reference page all come from these fields. `load.py` reads and checks them.

The tables are named tuples whose fields are declared as `Annotated[type, Setting(…)]`. A dataclass would read the same,
but `dataclasses` imports `inspect`, and each zygote would wait ten milliseconds for it. The annotations are evaluated
here on purpose (no `from __future__ import annotations`): the loader and the reference page read them.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Annotated, Final, NamedTuple

from srvd.config.declaration import Setting, declared
from srvd.config.pool_settings import PoolSettings
from srvd.tls.material import Material

__all__ = [
    "TABLES",
    "Config",
    "DaemonSettings",
    "ListenerSettings",
    "PoolSettings",
    "Setting",
    "declared",
]

_NO_MATERIAL: Final[Mapping[str, Material]] = MappingProxyType({})
_NO_LISTS: Final[Mapping[str, tuple[str, ...]]] = MappingProxyType({})


class DaemonSettings(NamedTuple):
    """[daemon] and [control]: settings of the daemon itself."""

    name: Annotated[str, Setting("Name of this instance; it names the control socket", "name", "--name")] = "srvd"
    socket: Annotated[
        str,
        Setting(
            "Path of the control socket; empty: NAME.sock in /run/srvd (root's), $XDG_RUNTIME_DIR/srvd "
            'or /tmp/srvd-UID; "off": none, signals alone control the daemon',
            "path or off",
            "--socket",
            table="control",
        ),
    ] = ""
    pidfile: Annotated[str, Setting("Write the daemon's pid to this file", "path", "--pidfile")] = ""
    log_level: Annotated[
        str,
        Setting(
            "Least level that is logged; critical is the same as error",
            "choice:debug|info|warning|error|critical",
            "--log-level",
        ),
    ] = "info"
    log_format: Annotated[
        str, Setting("How log lines look; auto: text", "choice:auto|text|json", "--log-format")
    ] = "auto"  # fmt: skip
    worker_output: Annotated[
        str,
        Setting(
            "How lines look that workers print; tagged: after the worker's name, or in JSON beside it, unless they are "
            'JSON objects themselves, which get a member "source"; raw: as they were printed, in pieces of 8 KiB',
            "choice:tagged|raw",
        ),
    ] = "tagged"
    log_file: Annotated[
        str, Setting("Write the log to this file; empty or -: standard error", "log path", "--log-file")
    ] = ""  # fmt: skip
    log_mode: Annotated[
        str, Setting("Mode of a new file for the log, less the umask; one that exists keeps its own", "mode")
    ] = "0640"
    max_workers: Annotated[
        int, Setting("Most workers of all pools together; the scoreboards have room for as many", "count:1..65536")
    ] = 1024
    roles: Annotated[
        Mapping[str, tuple[str, ...]],
        Setting(
            "Roles of users and groups besides root and the daemon's own user, which are admins, as in "
            '{operator = ["deploy"], viewer = ["%monitoring"]}; a % marks a group. A viewer may ask, '
            "but is not shown what applications wrote or held; an operator sees it, and may change what runs; an admin "
            "may stop and upgrade the daemon, too",
            "roles",
            table="control",
        ),
    ] = _NO_LISTS


class ListenerSettings(NamedTuple):
    """[listeners.NAME]: one or more addresses that pools accept on."""

    name: str
    bind: Annotated[
        tuple[str, ...],
        Setting(
            "Addresses to listen on: HOST:PORT, [V6]:PORT, :PORT, unix:PATH, fd:N; without a port it is 8000. "
            "[::]:PORT serves IPv4 clients, too, unless the same port is bound for IPv4 as well",
            "addresses",
            "--bind",
        ),
    ] = ("127.0.0.1:8000",)
    backlog: Annotated[int, Setting("Connections that may wait to be accepted", "count:1..65535", "--backlog")] = 2048
    mode: Annotated[str, Setting("Mode of Unix sockets", "mode")] = "0666"
    owner: Annotated[
        str, Setting("Owner of the Unix sockets, a user's name or number; empty: the daemon's own user", "user")
    ] = ""
    group: Annotated[
        str,
        Setting("Group of the Unix sockets, such as the proxy's; empty: the daemon's own, or the folder's", "group"),
    ] = ""
    reuse_port: Annotated[
        bool,
        Setting(
            "Other processes of this user may listen on the same TCP ports at the same time, and the kernel gives each "
            "connection to one of them (SO_REUSEPORT); holds for addresses that are opened from now on",
            "yes or no",
        ),
    ] = False
    certificate: Annotated[
        tuple[str, ...],
        Setting(
            "Speak TLS with this certificate (PEM, followed by its chain). Of several, the one with the name that the "
            "client asks for is used, else the first",
            "files",
            "--certificate",
        ),
    ] = ()
    key: Annotated[
        tuple[str, ...],
        Setting("The certificates' keys, in the same order; empty: each in its certificate's file", "files", "--key"),
    ] = ()
    key_password_file: Annotated[
        str, Setting("File whose first line is the passphrase of the keys; empty: they are not encrypted", "path")
    ] = ""
    client_certificates: Annotated[
        str, Setting("Whether clients have to show a certificate", "choice:none|optional|required")
    ] = "none"
    client_ca: Annotated[str, Setting("Certificates that may sign those of clients (PEM)", "path")] = ""
    minimum_tls: Annotated[str, Setting("Oldest version of TLS that is spoken", "choice:1.2|1.3")] = "1.2"
    ciphers: Annotated[
        str,
        Setting("Ciphers of TLS 1.2, as OpenSSL spells them; empty: ECDHE with AES-GCM or ChaCha20", "words"),
    ] = ""  # fmt: skip
    trusted_proxies: Annotated[
        tuple[str, ...],
        Setting(
            "Networks whose forwarding headers are believed; the word unix stands for peers on Unix sockets. Empty: "
            "none are believed, and the headers reach the application unchanged",
            "networks",
        ),
    ] = ()
    forwarded: Annotated[
        str,
        Setting(
            "Which headers trusted proxies write: X-Forwarded-For, -Proto, -Host and -Prefix, or Forwarded (RFC 7239). "
            "Where trusted_proxies names networks, other forwarding headers are removed, and from other peers all are",
            "choice:x-forwarded|forwarded",
        ),
    ] = "x-forwarded"
    proxy_protocol: Annotated[
        bool, Setting("Connections begin with a header of the PROXY protocol, version 1 or 2", "yes or no")
    ] = False
    proxy_from: Annotated[
        tuple[str, ...],
        Setting(
            "Networks that may write the PROXY header, or the word unix; connections from others are closed at once",
            "networks",
        ),
    ] = ()


class Config(NamedTuple):
    """What is in force, and where each value came from.

    `origins` maps "pools.web.workers" to "default", "/etc/x.toml:12", "environment SRVD_WORKERS" or "flag --workers".
    `tls` has what was read of the files that listeners name, by listener. `path` is "" without a file. `warnings` are
    sentences for the log: nothing in them keeps the daemon from starting. `folder` is the one that srvd was started
    in, by its name then; "": not known.
    """

    daemon: DaemonSettings
    listeners: dict[str, ListenerSettings]
    pools: dict[str, PoolSettings]
    origins: dict[str, str]
    path: str
    warnings: tuple[str, ...] = ()
    tls: Mapping[str, Material] = _NO_MATERIAL
    folder: str = ""

    @property
    def developed(self) -> bool:
        """Whether any pool is under development (`reload`)."""
        return any(pool.reload != "off" for pool in self.pools.values())


TABLES: Final = (DaemonSettings, ListenerSettings, PoolSettings)
