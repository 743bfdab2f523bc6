"""Claims about `srvd.migrate`: what a configuration of gunicorn becomes, and what is told of the rest.

Each file in `cases` has a configuration, and after it what must come of it: srvd.toml, srvd_hooks.py, the report, the
exit code. They are the shapes of real configurations, cut down. `python -m tests.migrate.test_convert --write FILE…`
writes what comes of them now; read the difference.
"""

from __future__ import annotations

import re
import sys
import tempfile
from pathlib import Path

import pytest

from srvd.config.gunicorn import OPTIONS
from srvd.config.load import load
from srvd.errors import ConfigInvalid
from srvd.migrate.convert import Result, Wanted, convert
from srvd.migrate.hooks import _KINDS as KINDS
from srvd.migrate.line import Line
from srvd.migrate.report import as_text, exit_code
from srvd.worker.app.hooks import _OF_GUNICORN as OF_GUNICORN

CASES = sorted((Path(__file__).parent / "cases").glob("*.txt"))
HEAD = re.compile(r"^=== (\S+)\n", re.MULTILINE)


def parts_of(case: Path) -> dict[str, str]:
    _, *rest = HEAD.split(case.read_text())
    return {
        name: text.rstrip("\n") + "\n" if text.strip() else "" for name, text in zip(rest[::2], rest[1::2], strict=True)
    }


def convert_text(source: str, folder: Path, app: str = "shop.wsgi") -> Result:
    (folder / "gunicorn.conf.py").write_text(source)
    return convert(Wanted("gunicorn.conf.py", Line("gunicorn", app, {}, {}), str(folder), sys.executable, name="shop"))


def result_of(source: str, folder: Path) -> dict[str, str]:
    result = convert_text(source, folder)
    return {**result.files, "report": as_text(result.findings), "exit": f"{exit_code(result.findings)}\n"}


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.stem)
def test_a_configuration_becomes_what_the_case_says(
    case: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable in ("PORT", "WEB_CONCURRENCY", "LOG_LEVEL", "HOST"):
        monkeypatch.delenv(variable, raising=False)
    source, *expected = parts_of(case).items()
    assert result_of(source[1], tmp_path) == dict(expected)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.stem)
def test_what_is_written_is_a_configuration_of_srvd(case: Path, tmp_path: Path) -> None:
    """But for users, folders and files that this machine does not have."""
    path = tmp_path / "srvd.toml"
    path.write_text(parts_of(case)["srvd.toml"])
    environ = dict.fromkeys(("APP_WORKERS", "APP_THREADS", "APP_MAX_REQUESTS"), "3")
    try:
        config = load(str(path), {}, environ)
    except ConfigInvalid as exc:
        problems = exc.message.splitlines()[1:]
        assert [line for line in problems if not re.search("of this machine|exists|No such file|only root", line)] == []
    else:
        assert config.pools["web"].app == "shop.wsgi"


def test_the_tables_of_gunicorns_hooks_say_the_same() -> None:
    moved = {name: head.partition("(")[0] for name, (head, _, _) in KINDS.items()}
    all_of_them = {name for name, option in OPTIONS.items() if option.kind == "hook"}
    assert {name for name in all_of_them if OPTIONS[name].called == "hooks"} == set(moved)
    assert {name: OF_GUNICORN[name] for name in moved} == moved
    dirty = {name for name in all_of_them if "dirty" in name}  # of processes that srvd does not have
    assert set(OF_GUNICORN) == all_of_them - dirty


def test_cases_are_of_every_outcome() -> None:
    assert {parts_of(case)["exit"].strip() for case in CASES} == {"0", "1", "10"}


def write(names: list[str]) -> None:
    for name in names or [str(case) for case in CASES]:
        case = Path(name)
        source = parts_of(case)["gunicorn.conf.py"]
        with tempfile.TemporaryDirectory() as folder:
            parts = {"gunicorn.conf.py": source, **result_of(source, Path(folder))}
        case.write_text("".join(f"=== {part}\n{text}" for part, text in parts.items()))


if __name__ == "__main__":
    assert sys.argv[1] == "--write"
    write(sys.argv[2:])
