"""Claims about `srvd.config.load`: which layer wins, where a value came from, and what is told about a wrong one."""

from __future__ import annotations

import getpass
import grp
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from srvd.config import gunicorn
from srvd.config import load as module
from srvd.config.load import Config, load, variables
from srvd.config.packing import pack, unpack
from srvd.config.problems import Problem
from srvd.config.settings import DaemonSettings, ListenerSettings, PoolSettings, declared
from srvd.config.values import KINDS, Unfit, describe, read
from srvd.errors import EXIT, BadFrame, ConfigInvalid

FULL = """\
[daemon]
name = "shop"
pidfile = "run/shop.pid"

[control]
roles = { operator = ["root"] }

[listeners.web]
bind = ["127.0.0.1:0", "unix:run/web.sock"]

[listeners.admin]
bind = ["127.0.0.1:0"]

[pools.web]
app = "shop.wsgi:application"
listeners = ["web"]
workers = 4
boot_timeout = "5m"
max_body = "512MiB"
chdir = "."
env = { SECRET_KEY = "hunter2" }

[pools.admin]
app = "shop.admin:create()"
listeners = ["admin"]
request_timeout = 0
"""

APP = {"SRVD_APP": "shop:app"}
"""For files that leave the application of their only pool open."""


def write(folder: Path, text: str) -> str:
    path = folder / "srvd.toml"
    path.write_text(text)
    return str(path)


def problems(
    path: str | None = None, flags: Mapping[str, object] | None = None, environ: Mapping[str, str] | None = None
) -> list[str]:
    """What is wrong, one line a problem; with the file's folder left out."""
    with pytest.raises(ConfigInvalid) as caught:
        load(path, flags or {}, environ or {})
    assert caught.value.exit_code == EXIT.CONFIG
    head, *lines = caught.value.message.splitlines()
    assert head.endswith("nothing was changed")
    assert len(lines) == len(caught.value.detail["problems"])  # type: ignore[arg-type]  # detail holds any value of the wire
    return [line.removeprefix(os.path.dirname(path or "") + "/") for line in lines]


def problems_of(folder: Path, text: str) -> list[str]:
    return problems(write(folder, text), environ={} if "app = " in text else APP)


def test_without_anything_one_pool_serves_the_demo_on_one_listener() -> None:
    config = load(None, {}, {})
    assert list(config.pools) == list(config.listeners) == ["web"]
    assert config.pools["web"] == PoolSettings("web", listeners=("web",))
    assert config.listeners["web"].bind == ("127.0.0.1:8000",)
    assert config.path == ""
    assert config.warnings == ()
    assert set(config.origins.values()) == {"default"}


def test_a_file_is_read_and_every_value_knows_its_line(tmp_path: Path) -> None:
    path = write(tmp_path, FULL)
    config = load(path, {}, {})
    assert config.path == path
    assert config.daemon.name == "shop"
    assert config.daemon.roles == {"operator": ("root",)}
    web, admin = config.pools.values()
    assert (web.workers, web.boot_timeout, web.max_body) == (4, 300.0, 512 << 20)
    assert (admin.app, admin.request_timeout, admin.listeners) == ("shop.admin:create()", 0.0, ("admin",))
    assert config.origins["pools.web.workers"] == f"{path}:17"
    assert config.origins["control.roles"] == f"{path}:6"
    assert config.origins["pools.admin.workers"] == "default"


def test_relative_paths_start_from_the_folder_of_the_file(tmp_path: Path) -> None:
    config = load(os.path.relpath(write(tmp_path, FULL)), {}, {})
    assert config.daemon.pidfile == str(tmp_path / "run/shop.pid")
    assert config.listeners["web"].bind[1] == f"unix:{tmp_path}/run/web.sock"
    assert config.pools["web"].chdir == str(tmp_path)


def test_relative_paths_in_flags_start_from_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path, "")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    config = load(path, {"--bind": ("unix:web.sock", "unix:@abstract", "unix:/run/x")}, {**APP, "SRVD_PIDFILE": "pid"})
    assert config.listeners["web"].bind == (f"unix:{tmp_path}/elsewhere/web.sock", "unix:@abstract", "unix:/run/x")
    assert config.daemon.pidfile == f"{tmp_path}/elsewhere/pid"


@pytest.mark.parametrize(
    ("file", "environ", "flags", "workers", "origin"),
    [
        ("", {}, {}, 2, "default"),
        ("", {"WEB_CONCURRENCY": "3"}, {}, 3, "environment WEB_CONCURRENCY"),
        ("[pools.web]\nworkers = 4", {"WEB_CONCURRENCY": "3"}, {}, 4, "FILE:2"),
        ("[pools.web]\nworkers = 4", {"WEB_CONCURRENCY": "3", "SRVD_WORKERS": "5"}, {}, 5, "environment SRVD_WORKERS"),
        ("[pools.web]\nworkers = 4", {"SRVD_WORKERS": "5"}, {"--workers": "6"}, 6, "flag --workers"),
        ("[pools.web]\nworkers = 4", {}, {"--workers": None, "--bind": ()}, 4, "FILE:2"),
        ("[pools.shop]\nworkers = 4", {"SRVD_WORKERS": "0"}, {}, 0, "environment SRVD_WORKERS"),
    ],
)  # fmt: skip
def test_flags_win_over_variables_over_the_file_over_the_platform_over_defaults(
    tmp_path: Path, file: str, environ: dict[str, str], flags: dict[str, Any], workers: int, origin: str
) -> None:
    path = write(tmp_path, file)
    config = load(path, flags, {**APP, **environ})
    (pool,) = config.pools.values()
    assert pool.workers == workers
    assert config.origins[f"pools.{pool.name}.workers"] == origin.replace("FILE", path)


def test_texts_and_numbers_of_a_file_may_name_variables(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        """[daemon]
log_level = "${LOG_LEVEL:-info}"
[listeners.web]
bind = ["0.0.0.0:${PORT:-5001}"]
trusted_proxies = "${PROXIES:-10.0.0.0/8,unix}"
[pools.web]
app = "shop:app"
workers = "${WEB_CONCURRENCY:-3}"
threads = "${APP_THREADS:-8}"
request_timeout = "${TIMEOUT:-90}"
max_body = "${BODY:-1MiB}"
stream_bodies = "${STREAM:-yes}"
env = { MODE = "${MODE:-prod}" }
""",
    )
    config = load(path, {}, {"LOG_LEVEL": "WARNING", "WEB_CONCURRENCY": "6", "TIMEOUT": ""})
    pool, listener = config.pools["web"], config.listeners["web"]
    assert (config.daemon.log_level, listener.bind) == ("warning", ("0.0.0.0:5001",))
    assert listener.trusted_proxies == ("10.0.0.0/8", "unix")
    assert (pool.workers, pool.threads, pool.request_timeout, pool.max_body) == (6, 8, 90.0, 1 << 20)
    assert (pool.stream_bodies, dict(pool.env)) == (True, {"MODE": "prod"})
    assert config.origins["listeners.web.bind"] == f"{path}:4, default of PORT"
    assert config.origins["pools.web.workers"] == f"{path}:8, environment WEB_CONCURRENCY"


def test_a_variable_without_value_and_default_is_a_problem_of_its_line(tmp_path: Path) -> None:
    text = '[pools.web]\napp = "${APP}"\nthreads = "${APP_THREADS}"\nworkers = "${WORKERS:-many}"\n'
    assert problems(write(tmp_path, text), environ={"APP_THREADS": "9"}) == [
        'srvd.toml:2: pools.web.app: found "${APP}": the environment has no APP; ${APP:-DEFAULT} gives it a default',
        f'srvd.toml:4: pools.web.workers: found "many", expected {describe("formula:0..65536")}',
    ]


def test_workers_and_threads_may_follow_from_the_processors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "granted_cpus", lambda: 3)
    path = write(tmp_path, '[pools.web]\napp = "shop:app"\nworkers = "min(2 * cpus + 1, 5)"\nthreads = "cpus"\n')
    config = load(path, {}, {})
    assert (config.pools["web"].workers, config.pools["web"].threads) == (5, 3)
    assert config.origins["pools.web.workers"] == f"{path}:3, min(2 * cpus + 1, 5) with cpus = 3"
    assert load(None, {"--workers": "auto"}, APP).pools["web"].workers == 7
    assert load(None, {}, {**APP, "WEB_CONCURRENCY": "auto"}).pools["web"].workers == 7
    found = problems(write(tmp_path, '[pools.web]\napp = "shop:app"\nworkers = "cpus - 4"\n'))
    assert [line.partition(":")[0] for line in found] == ["srvd.toml"]
    assert "found -1, expected a whole number from 0" in found[0]


def test_a_formula_that_cannot_be_calculated_with_these_processors_is_a_problem_of_its_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "granted_cpus", lambda: 2)
    found = problems(write(tmp_path, '[pools.web]\napp = "a:b"\nworkers = "8 / (cpus - 2)"\n'))
    assert found == [
        "srvd.toml:3: pools.web.workers: 8 / (cpus - 2) with cpus = 2: it cannot be calculated: division by zero"
    ]


def test_no_limit_of_a_line_is_that_of_the_whole_head(tmp_path: Path) -> None:
    path = write(tmp_path, '[pools.web]\napp = "a:b"\nmax_head = "32KiB"\nmax_target = 0\nmax_field = 0\n')
    pool = load(path, {}, {}).pools["web"]
    assert (pool.max_target, pool.max_field) == (32 << 10, 32 << 10)


def test_variables_come_from_a_file_too_and_the_configuration_wins(tmp_path: Path) -> None:
    (tmp_path / "site.env").write_text("A=file\nB=file\n")
    text = '[pools.web]\napp = "a:b"\nenv_file = "site.env"\nenv = { B = "here" }\n'
    pool = load(write(tmp_path, text), {}, {}).pools["web"]
    assert dict(pool.env) == {"A": "file", "B": "here"}
    (tmp_path / "site.env").write_text("secret\n")
    path = str(tmp_path / "site.env")
    told = f"srvd.toml:3: pools.web.env_file: read {path}: "
    assert problems_of(tmp_path, text) == [f"{told}line 1 is not NAME=VALUE"]
    (tmp_path / "site.env").write_text("A=1\n" * (1 << 18) + "B=1\n")
    assert problems_of(tmp_path, text) == [f"{told}it has more than 1048576 characters"]
    (tmp_path / "site.env").unlink()
    assert problems_of(tmp_path, text) == [f"{told}No such file or directory"]


def test_rules_of_the_access_log_are_checked(tmp_path: Path) -> None:
    text = '[pools.web]\napp = "a:b"\naccess_log_skip = ["/ok 2xx", "health"]\n'
    (problem,) = problems_of(tmp_path, text)
    assert problem == "srvd.toml:3: pools.web.access_log_skip: found \"health\": 'health' is no path, status or method"


def test_the_platforms_port_is_bound_on_every_address_unless_something_else_is_said() -> None:
    config = load(None, {}, {"PORT": "5000"})
    assert config.listeners["web"].bind == ("0.0.0.0:5000",)
    assert config.origins["listeners.web.bind"] == "environment PORT"
    assert load(None, {"--bind": ("127.0.0.1:1",)}, {"PORT": "5000"}).listeners["web"].bind == ("127.0.0.1:1",)
    assert load(None, {}, {"PORT": "5000", "SRVD_BIND": ":1, :2"}).listeners["web"].bind == (":1", ":2")
    assert problems(environ={"PORT": "http"})[0].startswith("environment PORT: listeners.web.bind: ")


def test_the_application_on_the_command_line_is_the_pools() -> None:
    config = load(None, {"APP": "shop.wsgi:app"}, {})
    assert config.pools["web"].app == "shop.wsgi:app"
    assert config.origins["pools.web.app"] == "flag APP"


def test_flags_and_variables_of_a_pool_are_refused_when_there_are_several(tmp_path: Path) -> None:
    path = write(tmp_path, FULL)
    variable, flag = problems(path, {"--workers": "3"}, {"SRVD_BIND": ":1"})
    several = "but there are several: say it in"
    assert (
        variable
        == f"environment SRVD_BIND: bind: sets one of listeners, {several} [listeners.web] and [listeners.admin]"
    )
    assert flag == f"flag --workers: workers: sets one of pools, {several} [pools.web] and [pools.admin]"
    assert load(path, {"--name": "other"}, {"WEB_CONCURRENCY": "9", "PORT": "1"}).daemon.name == "other"


def test_an_unknown_variable_is_a_warning_with_the_nearest_name() -> None:
    config = load(None, {}, {"SRVD_WORKRES": "3", "SRVD_SERVICE_HOST": "10.0.0.1"})
    assert config.warnings == (
        "environment SRVD_SERVICE_HOST is no setting",
        "environment SRVD_WORKRES is no setting; did you mean SRVD_WORKERS?",
    )


def test_variables_are_named_after_their_settings() -> None:
    known = variables()
    assert known["SRVD_WORKERS"] == ("pools", "workers")
    assert known["SRVD_SOCKET"] == ("daemon", "socket")
    assert known["SRVD_BACKLOG"] == ("listeners", "backlog")
    assert "SRVD_ENV" not in known
    assert "SRVD_ROLES" not in known


def test_all_problems_are_told_at_once_in_the_order_of_the_file(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        """\
[daemon]
workers = 3
nam = "x"
[contrl]
[pools.web]
workres = 4
max_fields = "4"
boot_timeout = "30 sec"
[listeners.web]
bind = ["127.0.0.1:x"]
[pools.Web]
""",
    )
    found = problems(path, {"--workers": "x"}, {})
    assert [line.split(": ")[0] for line in found] == [
        *(f"srvd.toml:{line}" for line in (2, 3, 4, 5, 6, 7, 8, 10, 11, 11)), "flag --workers",
    ]  # fmt: skip
    assert found[4:6] == [
        "srvd.toml:6: pools.web.workres: there is no such setting; did you mean workers?",
        'srvd.toml:7: pools.web.max_fields: found "4", expected a whole number from 1 to 10000; did you mean 4?',
    ]


CASES = """workers = 3
→ srvd.toml:1: workers: there is no such setting; did you mean workers in [pools.NAME]?

[daemon]
socket = "/x"
→ srvd.toml:2: daemon.socket: there is no such setting; did you mean socket in [control]?

[pools]
workers = 3
→ srvd.toml:2: pools.workers: found 3, expected a table: [pools.NAME]; did you mean workers in [pools.NAME]?

daemon = 3
→ srvd.toml:1: daemon: found 3, expected a table: [daemon]

[[pools.web]]
→ srvd.toml:1: pools.web: found [a table], expected a table: [pools.NAME]

[zebra]
→ srvd.toml:1: zebra: there is no such setting

[pools.web]
env = { workers = 1 }
→ srvd.toml:2: pools.web.env: found 1, expected text in quotes as the value of workers

[control]
roles = { boss = ["me"] }
→ srvd.toml:2: control.roles: found "boss", expected the roles viewer, operator, admin

[pools.web]
max_requests = 0xHEX
→ srvd.toml:2: pools.web.max_requests: found a number of more than 64 bits, expected a whole number from 0 to 1000000000

[pools.web]
env = { A = 0xHEX }
→ srvd.toml:2: pools.web.env: found a number of more than 64 bits, expected text in quotes as the value of A

[pools.web]
timeout = 30
→ srvd.toml:2: pools.web.timeout: there is no such setting: it is called request_timeout in [pools.NAME] here

[pools.web]
spew = true
→ srvd.toml:2: pools.web.spew: there is no such setting:
  `srvctl dump` shows where a worker is

loglevel = "info"
→ srvd.toml:1: loglevel: there is no such setting: it is called log_level in [daemon] here

[listeners.web]
bind = ["8000"]
→ srvd.toml:2: listeners.web.bind: read the address '8000': did you mean ':8000'?

[listeners.web]
bind = ["tcp://127.0.0.1:8123"]
→ srvd.toml:2: listeners.web.bind: read the address 'tcp://127.0.0.1:8123': an address has no scheme;
  did you mean '127.0.0.1:8123'?

[listeners.web]
bind = ["*:8123"]
→ srvd.toml:2: listeners.web.bind: read the address '*:8123': did you mean ':8123', every address?

[listeners.web]
bind = [":8123", "127.0.0.1:8123"]
→ srvd.toml:2: listeners.web.bind: found "127.0.0.1:8123", which your other bind has with ":8123"

[listeners.a]
bind = ["127.0.0.1:1"]
[listeners.b]
bind = ["0.0.0.0:1"]
→ srvd.toml:2: listeners.a.bind: found "127.0.0.1:1", which listener b has with "0.0.0.0:1"

[pools.web]
listeners = ["wbe"]
→ srvd.toml:2: pools.web.listeners: found "wbe", expected the name of a listener (web); did you mean "web"?

[pools.web]
workers = 1025
→ srvd.toml:2: pools.web.workers: found 1025 workers in all pools,
  expected at most max_workers of [daemon], which is 1024

[pools.web]
workers = 2
app = "shop:app"
[pools.jobs]
app = "shop:jobs"
[daemon]
max_workers = 3
→ srvd.toml:2: pools.web.workers: found 4 workers in all pools, expected at most max_workers of [daemon], which is 3

[pools.web]
user = "rooot"
→ srvd.toml:2: pools.web.user: found "rooot", expected a user of this machine; did you mean "root"?

[pools.web]
group = "no such"
→ srvd.toml:2: pools.web.group: found "no such", expected a group of this machine

[pools.web]
python = "python9"
→ srvd.toml:2: pools.web.python: found "python9", expected a program that exists and may be executed

[pools.web]
chdir = "/no/such"
→ srvd.toml:2: pools.web.chdir: found "/no/such", expected a folder that exists

[pools.web]
pythonpath = ["/", "/no/such"]
→ srvd.toml:2: pools.web.pythonpath: found "/no/such", expected a folder that exists

[listeners.web]
bind = [":1", ":1"]
→ srvd.toml:2: listeners.web.bind: found ":1" twice, expected each address once

[listeners.a]
bind = [":1"]
[listeners.b]
bind = ["0.0.0.0:1"]
→ srvd.toml:4: listeners.b.bind: found "0.0.0.0:1" in listener a as well, expected each address once

[control]
socket = "/LONG"
→ srvd.toml:2: control.socket: found a path of 108 bytes, expected at most 107 (unix(7))
""".replace("LONG", "x" * 107).replace("HEX", "f" * 6000)


@pytest.mark.parametrize("case", CASES.split("\n\n"), ids=lambda case: str(case).split("→ ")[1][:40])
def test_a_problem_says_where_what_and_the_nearest(tmp_path: Path, case: str) -> None:
    text, _, expected = case.partition("→ ")
    assert problems_of(tmp_path, text) == [" ".join(expected.split())]


@pytest.mark.parametrize("text", ["", "# nothing\n", "[daemon]\n[listeners.web]\n", "[pools]\n"])
def test_a_file_that_names_no_pool_is_refused_unless_the_application_is_named_elsewhere(
    tmp_path: Path, text: str
) -> None:
    path = write(tmp_path, text)
    assert [line.partition(",")[0] for line in problems(path)] == ["srvd.toml: pools: the file names no pool"]
    assert load(path, {"APP": "shop:app"}, {}).pools["web"].app == load(path, {}, APP).pools["web"].app == "shop:app"


def test_a_pool_of_a_file_that_was_cut_short_does_not_get_the_demo(tmp_path: Path) -> None:
    cut = FULL[: FULL.index('app = "shop.admin')]
    path = write(tmp_path, cut)
    (problem,) = problems(path)
    assert problem.startswith('srvd.toml:23: pools.admin.app: not there, expected "MODULE:ATTRIBUTE"')


def test_ports_that_the_kernel_chooses_are_never_the_same(tmp_path: Path) -> None:
    load(
        write(tmp_path, "[listeners.a]\nbind = ['127.0.0.1:0', '127.0.0.1:0']\n[listeners.b]\nbind = ['127.0.0.1:0']"),
        {},
        APP,
    )


def test_another_user_needs_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert problems_of(tmp_path, "[pools.web]\nuser = 'root'") == [
        "srvd.toml:2: pools.web.user: only root can run a pool as another user, and srvd runs as uid 1000"
    ]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may name another user")
def test_root_may_name_users_that_exist(tmp_path: Path) -> None:
    group = grp.getgrall()[0].gr_name
    config = load(write(tmp_path, f"[pools.web]\nuser = '{getpass.getuser()}'\ngroup = '{group}'"), {}, APP)
    assert config.pools["web"].group == group


def test_an_interpreter_is_looked_up_on_the_path(tmp_path: Path) -> None:
    program = tmp_path / "python9"
    program.symlink_to(sys.executable)
    config = load(write(tmp_path, "[pools.web]\npython = 'python9'"), {}, {**APP, "PATH": f"/no/such:{tmp_path}"})
    assert config.pools["web"].python == str(program)
    config = load(write(tmp_path, "[pools.web]\npython = './python9'"), {}, APP)
    assert config.pools["web"].python == str(program)


def test_what_is_odd_but_works_is_a_warning(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        "[control]\nroles = { viewer = ['nobody-here', '%none-such', 'root'] }\n"
        "[listeners.a]\nbind = [':1']\n[listeners.b]\nbind = [':2']\n"
        "[pools.one]\napp = 'a:a'\nlisteners = ['a']\n[pools.two]\napp = 'b:b'\nlisteners = ['a']\n",
    )
    assert load(path, {}, {}).warnings == (
        f"{path}:2: there is no user nobody-here on this machine to be viewer",
        f"{path}:2: there is no group none-such on this machine to be viewer",
        f"{path}:4: pools one and two all accept on listener a: which of them gets a connection is chance",
        f"{path}:6: no pool accepts on listener b: its clients will wait for ever",
    )


def test_a_pools_settings_travel_as_a_map_without_its_environment(tmp_path: Path) -> None:
    pool = load(write(tmp_path, FULL), {}, {}).pools["web"]
    packed = pack(pool)
    assert "hunter2" not in repr(packed)
    assert unpack(packed) == pool._replace(env={})
    for wrong in (packed | {"workers": "4"}, packed | {"ghost": 1}, {}, packed | {"workers": True}):
        with pytest.raises(BadFrame):
            unpack(wrong)


def test_loading_without_a_file_imports_no_parser_and_no_dataclasses() -> None:
    code = (
        "import sys; from srvd.config.load import load; load(None, {}, {});"
        "print(*sorted({'tomllib', 'inspect', 'dataclasses', 'shutil', 'json', 'logging'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-I", "-c", code], capture_output=True, text=True, timeout=30)
    assert (done.returncode, done.stdout.strip(), done.stderr) == (0, "", "")


def test_config_is_exported_where_it_is_loaded() -> None:
    assert Config is module.Config


def test_a_number_of_thousands_of_digits_is_an_error_with_its_line(tmp_path: Path) -> None:
    path = write(tmp_path, f"[pools.web]\nthreads = 1\nworkers = {'9' * 6000}\n")
    with pytest.raises(ConfigInvalid, match=r"srvd\.toml:3: a number has too many digits; nothing was changed"):
        load(path, {}, {})


@pytest.mark.parametrize("kind", sorted(KINDS))
@pytest.mark.parametrize(
    "value", [16**6000, -(16**6000), float("inf"), float("nan"), [16**6000], {"as": 16**6000}], ids=type
)
def test_no_number_is_too_odd_to_be_refused_in_words(kind: str, value: object) -> None:
    argument = {"choice": ":a|b", "count": ":0..9", "formula": ":0..9"}.get(kind, "")
    with pytest.raises(Unfit) as caught:
        read(f"{kind}{argument}", value)
    found = value if caught.value.found is None else caught.value.found
    assert len(str(Problem.unfit("srvd.toml:1", "x", found, caught.value.expected))) < 300


def test_the_configuration_of_gunicorn_is_said_not_to_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "gunicorn.conf.py").write_text("workers = 3\n")
    monkeypatch.chdir(tmp_path)
    environ = {"GUNICORN_CMD_ARGS": "--workers=3", "SRVD_TIMEOUT": "3"}
    assert load(None, {}, environ).warnings == (
        "gunicorn.conf.py is not read: `srvd import` makes a srvd.toml of it",
        "environment GUNICORN_CMD_ARGS is not read: `srvd import` makes a srvd.toml of it",
        "environment SRVD_TIMEOUT is no setting: it is called request_timeout in [pools.NAME] here",
    )
    assert load(write(tmp_path, '[pools.web]\napp = "a:b"\n'), {}, {}).warnings == ()


@pytest.mark.parametrize("name", sorted({*gunicorn.OPTIONS, *gunicorn._OF_UVICORN} - {"config"}))
def test_what_gunicorn_calls_otherwise_is_told_by_a_setting_that_exists(name: str) -> None:
    option = gunicorn.OPTIONS.get(name) or gunicorn._OF_UVICORN[name]
    tables = (DaemonSettings, ListenerSettings, PoolSettings)
    assert bool(option.called) != bool(option.about)
    assert (option.fate in ("needless", "lost", "refused")) or option.called or name in UNDECIDED
    assert not option.called or any(option.called in declared(table) for table in tables)
    for word in (name, *(flag.lstrip("-").replace("-", "_") for flag in option.flags)):
        called, about = gunicorn.translation(word)
        assert called or about or word == option.called


UNDECIDED = ("worker_class", "daemon", "protocol", "http_protocols")
"""What becomes of these depends on their values."""


def test_every_option_of_gunicorn_is_in_the_table_with_its_flags() -> None:
    known = pytest.importorskip("gunicorn.config", reason="gunicorn is not installed").KNOWN_SETTINGS
    assert {one.name: tuple(one.cli or ()) for one in known} == {
        name: option.flags for name, option in gunicorn.OPTIONS.items()
    }
