"""Claims about the `srvd` command: exit codes, what goes to which stream, and that flags, file and variables agree."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Mapping
from pathlib import Path

import pytest

from srvd import __version__
from srvd.cli.app import OF_SRVCTL
from srvd.errors import EXIT
from srvd.wire.commands import COMMANDS
from tests.support.waiting import wait_for

ROOT = Path(__file__).parents[2]
SRVD = str(Path(sys.executable).with_name("srvd"))


def srvd(*arguments: str, cwd: Path, environ: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("SRVD_", "PORT", "WEB_"))}
    return subprocess.run(
        [SRVD, *arguments],
        cwd=cwd,
        env=clean | dict(environ or {}),
        capture_output=True,
        text=True,
        timeout=60,
    )


def settings(done: subprocess.CompletedProcess[str]) -> dict[str, dict[str, object]]:
    """What `srvd config --json` printed, by key."""
    assert (done.returncode, done.stderr) == (EXIT.DONE, "")
    return {one["key"]: one for one in json.loads(done.stdout)["settings"]}


def test_version_is_said_in_every_way(tmp_path: Path) -> None:
    for words in (("version",), ("--version",), ("-V",)):
        assert srvd(*words, cwd=tmp_path).stdout == f"srvd {__version__}\n"


@pytest.mark.parametrize("words", [(), ("start",), ("check",), ("config",), ("version",)], ids=" ".join)
def test_help_teaches(tmp_path: Path, words: tuple[str, ...]) -> None:
    done = srvd(*words, "--help", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (EXIT.DONE, "")
    assert f"srvd {' '.join(words)}".strip() in done.stdout
    assert all(len(line) <= 100 for line in done.stdout.splitlines())


def test_a_wrong_flag_is_a_usage_error_with_the_nearest(tmp_path: Path) -> None:
    done = srvd("config", "--wrkers", "3", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (EXIT.USAGE, "")
    assert "--workers" in done.stderr


@pytest.mark.parametrize("command", ["start", "check", "config"])
def test_a_wrong_configuration_is_78_with_every_problem_on_stderr(tmp_path: Path, command: str) -> None:
    (tmp_path / "srvd.toml").write_text("[pools.web]\nworkres = 4\nchdir = '/no/such'\napp = 'shop:app'\n")
    done = srvd(command, "--workers", "many", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (EXIT.CONFIG, "")
    lines = done.stderr.splitlines()
    assert lines[0] == "error: the configuration has 3 problems; nothing was changed"
    assert lines[1].startswith(f"{tmp_path}/srvd.toml:2: pools.web.workres: ")
    assert lines[2].startswith(f"{tmp_path}/srvd.toml:3: pools.web.chdir: ")
    assert lines[3].startswith("flag --workers: ")
    assert lines[4].startswith("hint: ")


@pytest.mark.parametrize(
    ("option", "told"),
    [
        ("--health", "health has no flag: set it in the file, or SRVD_HEALTH"),
        ("--boot-timeout", "boot_timeout has no flag: set it in the file, or SRVD_BOOT_TIMEOUT"),
        ("--rlimits", "rlimits has no flag: set it in the file\n"),
        ("--worker-class", "threads = 1 is gunicorn's sync"),
        ("--reload-dir", "it is called --reload-extra here"),
        ("--preload", "preload has no flag: set it in the file, or SRVD_PRELOAD"),
        ("--timeout", "it is called --request-timeout here"),
        ("-t", "it is called --request-timeout here"),
        ("--ca-certs", "it is called client_ca here; client_ca has no flag: set it in the file, or SRVD_CLIENT_CA"),
        ("--check-config", "`srvd check` checks the configuration"),
        ("--host", "it is called --bind here"),
        ("--wrkers", "did you mean --workers?"),
        ("--xyzzy", "`srvd help settings`"),
    ],
)
def test_an_option_that_is_none_is_told_where_to_say_it(tmp_path: Path, option: str, told: str) -> None:
    done = srvd("start", option, "x", cwd=tmp_path)
    assert done.returncode == EXIT.USAGE
    assert told in done.stderr


def test_what_is_srvctls_is_told_to_be(tmp_path: Path) -> None:
    done = srvd("reload", cwd=tmp_path)
    assert done.returncode == EXIT.USAGE
    assert "of one that runs: srvctl reload" in done.stderr
    assert {*OF_SRVCTL, "config"} == {entry.words[0] for entry in COMMANDS}
    assert (
        srvd("chekc", cwd=tmp_path).stderr.splitlines()[0] == "error: there is no command 'chekc'; did you mean check?"
    )
    assert "`srvctl reload` loads new code" in srvd("restart", cwd=tmp_path).stderr


NO_TOPIC = "there is no command, setting or page"


def test_every_error_of_the_command_line_is_in_one_form(tmp_path: Path) -> None:
    for words, told in (
        (("start", "a:b", "c"), "got unexpected extra argument (c)"),
        (("start", "--bind"), "option '--bind' requires an argument"),
        (("start", "--xyzzy"), "there is no option --xyzzy"),
        (("shop.wsgi:app",), "there is no command 'shop.wsgi:app'; did you mean `srvd start shop.wsgi:app`?"),
        (("shop.toml",), "there is no command 'shop.toml'; did you mean `srvd start -c shop.toml`?"),
        (
            ("help", "requst_timeout"),
            "there is no command, setting or page 'requst_timeout'; did you mean request_timeout?",
        ),
        (
            ("help", "scale"),
            "there is no command, setting or page 'scale'; that is a command of srvctl: `srvctl help scale`",
        ),
    ):
        done = srvd(*words, cwd=tmp_path)
        assert done.returncode == EXIT.USAGE
        assert done.stderr.splitlines()[0] == f"error: {told}"
        assert done.stderr.splitlines()[1].startswith("hint: ")


def test_an_option_of_three_letters_is_known_by_a_slip(tmp_path: Path) -> None:
    assert srvd("start", "--bnd", ":0", cwd=tmp_path).stderr.endswith("hint: did you mean --bind?\n")


def test_a_file_in_the_place_of_an_application_is_told_its_option(tmp_path: Path) -> None:
    said = srvd("start", "shop.toml", cwd=tmp_path).stderr
    assert "-c FILE names a configuration file" in said
    assert "did you mean" not in said


def test_help_explains_commands_settings_and_pages(tmp_path: Path) -> None:
    for topic, told in (
        ("check", "Usage: srvd check"),
        ("max_rss", "variable: SRVD_MAX_RSS"),
        ("pools.web.max-rss", "table:    [pools.NAME]"),
        ("roles", "table:    [control]"),
        ("settings", "# Settings"),
        ("gunicorn", "# Coming from gunicorn"),
        ("systemd.md", "# srvd under systemd"),
    ):
        done = srvd("help", topic, cwd=tmp_path)
        assert (done.returncode, done.stderr) == (EXIT.DONE, "")
        assert told in done.stdout
        assert "do not edit" not in done.stdout
    assert "gunicorn" in srvd("help", cwd=tmp_path).stdout
    done = srvd("help", "xyzzy", cwd=tmp_path)
    assert done.returncode == EXIT.USAGE
    assert done.stderr.startswith("error: there is no command, setting or page 'xyzzy'")


def test_the_manual_is_in_the_wheel(tmp_path: Path) -> None:
    build = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--no-deps",
        "--no-build-isolation",
        "-q",
        "-w",
        str(tmp_path),
        str(ROOT),
    ]
    done = subprocess.run(build, capture_output=True, text=True, timeout=120)
    if "No module named 'hatchling'" in done.stderr or "BackendUnavailable" in done.stderr:
        pytest.skip("hatchling, which builds the wheel, is not installed")
    assert done.returncode == 0, done.stderr
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        archive.extractall(tmp_path / "installed")
    assert "srvd/pages/howto/gunicorn.md" in names
    environ = {"PYTHONPATH": str(tmp_path / "installed")}
    code = "import srvd.manual as m; print(m.__file__); print(m.explain('settings'))"
    shown = subprocess.run([sys.executable, "-c", code], env=os.environ | environ, capture_output=True, text=True,
                           timeout=30)  # fmt: skip
    assert shown.stdout.startswith(f"{tmp_path}/installed/srvd/manual.py\n# Settings\n"), shown.stderr


def test_the_short_options_of_other_servers_are_known(tmp_path: Path) -> None:
    done = srvd("config", "-w", "3", "-b", "127.0.0.1:8001", "-n", "shop", "shop:app", cwd=tmp_path)
    assert done.returncode == EXIT.DONE, done.stderr
    for line in ("workers = 3 ", 'bind = ["127.0.0.1:8001"] ', 'name = "shop" '):
        assert line in done.stdout


def test_a_file_that_is_not_there_is_78(tmp_path: Path) -> None:
    done = srvd("start", "-c", "none.toml", cwd=tmp_path)
    assert done.returncode == EXIT.CONFIG
    assert f"{tmp_path}/none.toml: No such file or directory" in done.stderr


def test_the_file_of_the_working_directory_is_read_without_being_named(tmp_path: Path) -> None:
    (tmp_path / "srvd.toml").write_text("[pools.shop]\nworkers = 7\napp = 'shop:app'\n")
    assert settings(srvd("config", "--json", cwd=tmp_path))["pools.shop.workers"]["value"] == 7
    (tmp_path / "other.toml").write_text("")
    assert "pools.web.workers" in settings(srvd("config", "--json", "-c", "other.toml", "shop:app", cwd=tmp_path))


def test_flags_file_and_variables_say_the_same(tmp_path: Path) -> None:
    flags = (
        "shop:app",
        "--bind",
        ":1",
        "--bind",
        "unix:/run/x",
        "--workers",
        "5",
        "--log-level",
        "debug",
        "--name",
        "n",
    )
    environ = {
        "SRVD_APP": "shop:app", "SRVD_BIND": ":1,unix:/run/x", "SRVD_WORKERS": "5", "SRVD_LOG_LEVEL": "debug",
        "SRVD_NAME": "n",
    }  # fmt: skip
    by_flags = settings(srvd("config", "--json", *flags, cwd=tmp_path))
    by_variables = settings(srvd("config", "--json", cwd=tmp_path, environ=environ))
    (tmp_path / "same.toml").write_text(srvd("config", *flags, cwd=tmp_path).stdout)
    by_file = settings(srvd("config", "--json", "-c", "same.toml", cwd=tmp_path))
    plain = [{key: one["value"] for key, one in shown.items()} for shown in (by_flags, by_variables, by_file)]
    assert plain[0] == plain[1] == plain[2]
    assert by_flags["pools.web.app"]["value"] == "shop:app"
    assert by_flags["pools.web.app"]["origin"] == "flag APP"
    assert by_variables["pools.web.app"]["origin"] == "environment SRVD_APP"


def test_what_is_printed_is_a_file_and_warnings_are_not_in_it(tmp_path: Path) -> None:
    done = srvd("config", cwd=tmp_path, environ={"SRVD_WORKRES": "1"})
    assert tomllib.loads(done.stdout)["pools"]["web"]["workers"] == 2
    assert done.stderr == "warning: environment SRVD_WORKRES is no setting; did you mean SRVD_WORKERS?\n"


def test_what_a_file_says_cannot_command_a_terminal(tmp_path: Path) -> None:
    (tmp_path / "srvd.toml").write_text('[pools.web]\nstrategy = "\\u001b]0;owned\\u0007"\n')
    done = srvd("config", cwd=tmp_path)
    assert "\x1b" not in done.stderr
    assert "\\x1b]0;owned\\x07" in done.stderr


@pytest.mark.parametrize(("environ", "coloured"), [({}, True), ({"NO_COLOR": "1"}, False)])
def test_errors_are_coloured_on_terminals_only(tmp_path: Path, environ: dict[str, str], coloured: bool) -> None:
    outer, inner = pty.openpty()
    clean = {name: value for name, value in os.environ.items() if name != "NO_COLOR"}
    with subprocess.Popen(
        [SRVD, "config", "--workers", "x"], cwd=tmp_path, env=clean | environ, stderr=inner
    ) as process:
        os.close(inner)
        assert process.wait(60) == EXIT.CONFIG
        seen = wait_for(lambda: os.read(outer, 4096))
    os.close(outer)
    assert (b"\x1b[31m" in seen) is coloured


def test_a_reader_that_leaves_early_gets_no_traceback(tmp_path: Path) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run([SRVD, "config"], cwd=tmp_path, stdout=writer, stderr=subprocess.PIPE, timeout=60)
    os.close(writer)
    assert b"Traceback" not in done.stderr
