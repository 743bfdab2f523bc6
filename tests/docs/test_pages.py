"""Claims about the documentation: what it says is so."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import click
import pytest

from srvd import __version__
from srvd.cli.fast import read_plain
from srvd.config import values
from srvd.config.load import load
from srvd.core.model import Phase, Stage
from srvd.ctl.main import cli as srvctl
from srvd.wire.commands import ROLES
from tests.support.certificates import Authority
from tests.support.waiting import wait_for

ROOT = Path(__file__).parents[2]
UNITS = ROOT / "contrib" / "systemd"
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").rglob("*.md")])
BIN = Path(sys.executable).parent


def name_of(page: Path) -> str:
    return str(page.relative_to(ROOT))


def generator() -> ModuleType:
    spec = importlib.util.spec_from_file_location("generate", ROOT / "docs" / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def blocks(page: Path, language: str) -> Iterator[str]:
    """The fenced blocks of a page in one language."""
    yield from re.findall(rf"^```{language}\n(.*?)^```", page.read_text(), re.DOTALL | re.MULTILINE)


def readme_commands() -> list[str]:
    return [line for line in (ROOT / "README.md").read_text().splitlines() if line.startswith("python3 -m venv")]


# -- reference ------------------------------------------------------------------------------------------------------


def test_the_reference_pages_say_what_the_code_says() -> None:
    pages = {page.name: page.text for page in generator().pages()}
    found = {path.name: path.read_text() for path in (ROOT / "docs" / "reference").iterdir()}
    assert sorted(found) == sorted(pages)
    for name, text in pages.items():
        assert found[name] == text, f"docs/reference/{name}: run python docs/generate.py"


@pytest.mark.parametrize(("name", "states"), [("worker", Phase), ("generation", Stage)])
def test_the_picture_of_a_life_is_that_of_its_table(name: str, states: type[Phase | Stage]) -> None:
    file = ROOT / "docs" / "explain" / f"{name}-life.svg"
    assert file.read_text() == generator().pictures()[file], f"{file}: run python docs/generate.py"
    assert [state for state in states if f">{state.value}</text>" not in file.read_text()] == []


def test_the_picture_of_the_layers_shows_each_part_of_the_table() -> None:
    made = generator()
    picture = (ROOT / "docs" / "explain" / "layers.svg").read_text()
    assert picture == made.layers_picture(), "docs/explain/layers.svg: run python docs/generate.py"
    assert [name for name in made.parts() if f">{name}</text>" not in picture] == []


def test_roles_are_the_same_in_the_file_and_on_the_wire() -> None:
    assert values.ROLES == ROLES


# -- README ---------------------------------------------------------------------------------------------------------


def test_the_readme_has_the_two_commands_and_others_repeat_them_word_for_word() -> None:
    serve, test = readme_commands()
    assert serve == "python3 -m venv .venv && .venv/bin/pip install . && .venv/bin/srvd start"
    assert test == "python3 -m venv .venv && .venv/bin/pip install -e '.[test]' && .venv/bin/pytest"
    assert test in (ROOT / "docs" / "contributing.md").read_text()
    assert test not in (ROOT / ".ci" / "run").read_text(), "it is read from the README there"


@pytest.mark.system
def test_the_readmes_second_terminal_works_as_written(tmp_path: Path) -> None:
    """Runs the srvctl lines of "Try it" in their order against a daemon that was started as the first command says."""
    (block,) = [block for block in blocks(ROOT / "README.md", "sh") if "srvctl scale" in block]
    commands = [line.partition("#")[0].split() for line in block.splitlines()]
    assert [words[0] for words in commands] == [".venv/bin/srvctl"] * len(commands)
    environ = os.environ | {"SRVD_SOCKET": str(tmp_path / "control.sock"), "SRVD_BIND": "127.0.0.1:0"}
    with (tmp_path / "log").open("wb") as log:
        daemon = subprocess.Popen([BIN / "srvd", "start"], cwd=tmp_path, env=environ, stderr=log)
    try:
        wait_for(lambda: "ready: " in (tmp_path / "log").read_text(), within=30)
        for _, *words in commands:
            done = subprocess.run([BIN / "srvctl", *words], env=environ, capture_output=True, text=True, timeout=60)
            assert done.returncode == 0, (words, done.stdout, done.stderr, (tmp_path / "log").read_text())
        assert daemon.wait(30) == 0
    finally:
        daemon.kill()
        daemon.wait()


@pytest.mark.parametrize("page", [page for page in PAGES if any(blocks(page, "toml"))], ids=name_of)
def test_every_file_that_is_shown_is_good(page: Path, tmp_path: Path) -> None:
    program = tmp_path / "current" / ".venv" / "bin" / "python"  # a release, as the page on deploying has it
    program.parent.mkdir(parents=True)
    program.symlink_to(sys.executable)
    folder = tmp_path / "shared"
    folder.mkdir()
    for number, text in enumerate(blocks(page, "toml")):
        path = folder / f"{number}.toml"
        path.write_text(with_certificates(text, tmp_path))
        config = load(str(path), {}, {} if "[pools." in text else {"SRVD_APP": "shop:app"})
        assert [warning for warning in config.warnings if "there is no" not in warning] == []


def with_certificates(text: str, folder: Path) -> str:
    """The same with the files of /etc/tls, which are made for it, in the folder."""
    authority = Authority(folder)
    for name in sorted(set(re.findall(r"/etc/tls/(\w+)\.pem", text))):
        content = authority.file(f"{name}.example").read_text()
        key, begin, chain = content.partition("-----BEGIN CERTIFICATE-----")
        (folder / f"{name}.key").write_text(key)
        (folder / f"{name}.pem").write_text(begin + chain)
    return text.replace("/etc/tls", str(folder))


def test_every_command_that_is_shown_exists() -> None:
    known = set(srvctl.list_commands(click.Context(srvctl)))
    for page in PAGES:
        for word in re.findall(r"srvctl (?:-[^ ]+ [^ ]+ )*([a-z]+)\b", "\n".join(code_of(page))):
            assert word in known, f"{name_of(page)}: srvctl {word}"
        for line in re.findall(r"srvd (start[^#\n`|&]*)", "\n".join(blocks(page, "sh"))):
            assert read_plain(line.replace('"', "").split("    ")[0].split()) is not None, (
                f"{name_of(page)}: srvd {line}"
            )


def code_of(page: Path) -> list[str]:
    return [*blocks(page, "sh"), *blocks(page, "console"), *re.findall(r"`([^`\n]+)`", page.read_text())]


# -- links ----------------------------------------------------------------------------------------------------------


def anchors(page: Path) -> set[str]:
    heads = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^a-z0-9 _-]", "", head.lower()).replace(" ", "-") for head in heads}


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_link_leads_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        found = (page.parent / path).resolve() if path else page
        assert found.exists(), f"{name_of(page)} links to {target}"
        assert not anchor or anchor in anchors(found), f"{name_of(page)} links to {target}"


def test_the_index_leads_to_every_page() -> None:
    index = ROOT / "docs" / "index.md"
    led = {
        (index.parent / target.partition("#")[0]).resolve()
        for target in re.findall(r"\]\(([^)\s]+)\)", index.read_text())
    }
    assert [name_of(page) for page in PAGES if page not in {*led, index}] == []


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_file_of_the_tree_that_is_named_exists(page: Path) -> None:
    """Paths such as `core/reconcile.py` in backquotes, from the root or from src/srvd; not what the page writes."""
    text = page.read_text()
    written = set(re.findall(r"`([\w./]+)`:\n\n```", text))
    for path in re.findall(r"`((?:[\w.-]+/)*[\w-]+\.(?:py|md|service))`", text):
        assert path in written or any((folder / path).exists() for folder in (ROOT, ROOT / "src" / "srvd", UNITS)), (
            f"{name_of(page)}: {path}"
        )


def test_the_names_that_are_to_be_changed_exist() -> None:
    """Classes, constants and tests in "Where to change what", and the transcripts."""
    page = (ROOT / "docs" / "contributing.md").read_text()
    section = page.partition("## Where to change what")[2].partition("\n## ")[0]
    files = [path for folder in ("src/srvd", "tests") for path in (ROOT / folder).rglob("*.py")]
    source = "\n".join(path.read_text() for path in files)
    names = set(re.findall(r"`((?:[A-Z]|_[A-Z]|test_)\w+)`", section)) - {"NAME"}
    assert len(names) > 4
    assert [name for name in names if not re.search(rf"^(class |def )?{name}\b", source, re.MULTILINE)] == []
    transcripts = re.findall(r"`([\w-]+)`", section.partition("The transcripts ")[2].partition(" in `")[0])
    assert len(transcripts) == 3
    assert [
        name for name in transcripts if not (ROOT / "tests" / "core" / "transcripts" / f"{name}.txt").exists()
    ] == []


# -- glossary, changelog, unit --------------------------------------------------------------------------------------


def test_the_glossary_is_in_order() -> None:
    words = re.findall(r"^\| \*\*([^*]+)\*\*", (ROOT / "docs" / "glossary.md").read_text(), re.MULTILINE)
    assert words == sorted(set(words))


def test_the_lives_are_told_in_full() -> None:
    life = (
        (ROOT / "docs" / "explain" / "architecture.md")
        .read_text()
        .partition("The life of a worker:")[2]
        .partition("The core is tested")[0]
    )
    worker, _, generation = life.partition("The life of a generation:")
    for part, head, states in ((worker, "phase", Phase), (generation, "stage", Stage)):
        told = re.findall(r"^\| (\w+) \|", part, re.MULTILINE)
        assert told[0] == head
        assert sorted(told[1:]) == sorted(state.value for state in states)


def test_the_version_is_the_same_everywhere() -> None:
    assert tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"] == __version__
    newest = re.search(r"^## (\S+)", (ROOT / "docs" / "changelog.md").read_text(), re.MULTILINE)
    assert newest is not None
    assert newest[1] == __version__


def test_every_dependency_has_its_reason() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    page = (ROOT / "docs" / "explain" / "decisions.md").read_text()
    reasons = re.findall(r"^\| (\w+) \|", page.partition("## Dependencies")[2].partition("\n## ")[0], re.MULTILINE)
    assert set(reasons) - {"package"} == {re.split(r"[<>=]", one)[0] for one in project["dependencies"]}


def _directives(name: str) -> list[str]:
    lines = [line.strip() for line in (UNITS / name).read_text().splitlines()]
    return [line for line in lines if line and not line.startswith("#")]


def _values(name: str, directive: str) -> list[str]:
    return [line.partition("=")[2] for line in _directives(name) if line.startswith(f"{directive}=")]


@pytest.mark.parametrize(("name", "instance"), [("srvd.service", "srvd"), ("srvd@.service", "%i")])
def test_the_unit_starts_and_reloads_with_commands_that_exist(name: str, instance: str) -> None:
    program, *words = _values(name, "ExecStart")[0].split()
    assert program.endswith("/srvd")
    asked = read_plain(words)
    assert asked is not None
    assert asked.path == f"/etc/srvd/{instance}.toml"
    program, option, socket, command = _values(name, "ExecReload")[0].split()
    assert program.endswith("/srvctl")
    assert option in {way for param in srvctl.params for way in param.opts}
    assert f"SRVD_SOCKET={socket}" in " ".join(_values(name, "Environment")).split()
    assert command in srvctl.list_commands(click.Context(srvctl))


def test_the_unit_of_instances_differs_from_the_other_in_names_only() -> None:
    single, several = _directives("srvd.service"), _directives("srvd@.service")
    different = [(a, b) for a, b in zip(single, several, strict=True) if a != b]
    assert len(different) == 8
    assert all("%i" in b and a.partition("=")[0] == b.partition("=")[0] for a, b in different)


def test_the_fd_store_takes_what_the_daemon_is_told_it_takes() -> None:
    assert f"FDSTORE={_values('srvd.service', 'FileDescriptorStoreMax')[0]}" in _values("srvd.service", "Environment")


def _security(drop_in: str, folder: Path) -> str:
    """What `systemd-analyze security` says of the unit."""
    unit = (UNITS / "srvd.service").read_text().partition("[Install]")[0]
    (folder / "srvd.service").write_text(unit + ((UNITS / drop_in).read_text() if drop_in else ""))
    command = ["systemd-analyze", "security", "--offline=true", "--no-pager", str(folder / "srvd.service")]
    return subprocess.run(command, capture_output=True, text=True, timeout=60).stdout


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="systemd-analyze is not installed")
@pytest.mark.parametrize("drop_in", ["", "change-user.conf"])
def test_the_page_explains_each_directive_that_is_relaxed(drop_in: str, tmp_path: Path) -> None:
    page = (ROOT / "docs" / "howto" / "systemd.md").read_text()
    section = page.partition("## Hardening")[2].partition("\n## ")[0]
    relaxed = re.findall(r"^\u2717 (\w+)=(~@\w+)?", _security(drop_in, tmp_path), re.MULTILINE)
    assert relaxed
    words = {group or name for name, group in relaxed} - {"User"}  # that the drop-in is for
    assert sorted(word for word in words if word not in section) == []


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="systemd-analyze is not installed")
@pytest.mark.parametrize(("drop_in", "words"), [("", "rates `srvd.service`"), ("change-user.conf", "The rating is")])
def test_the_unit_exposes_no_more_than_its_page_says(drop_in: str, words: str, tmp_path: Path) -> None:
    said = _security(drop_in, tmp_path)
    score = re.search(r"Overall exposure level for \S+: ([\d.]+)", said)
    assert score, said
    page = re.search(rf"{words} ([\d.]+\d)", (ROOT / "docs" / "howto" / "systemd.md").read_text())
    assert page
    assert float(score[1]) <= float(page[1]), said


# -- promises -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("page", ["reliability", "security"])
def test_every_promise_names_a_test_that_exists(page: str) -> None:
    text = (ROOT / "docs" / "explain" / f"{page}.md").read_text()
    named = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", text)
    assert len(named) > 30
    for path, name in named:
        assert re.search(rf"^def {name}\(", (ROOT / path).read_text(), re.M), f"{path}::{name}"


def test_each_promise_of_a_border_names_its_test() -> None:
    text = (ROOT / "docs" / "explain" / "security.md").read_text()
    promises = re.split(r"^\d+\. |^#+ ", text[text.index("## Promises") : text.index("## What is not")], flags=re.M)
    for promise in promises[2:]:
        assert "`tests/" in promise or "\n" not in promise.strip(), promise


def test_every_test_of_a_fault_keeps_a_promise() -> None:
    text = (ROOT / "docs" / "explain" / "reliability.md").read_text()
    for path in sorted((ROOT / "tests" / "faults").glob("test_*.py")):
        for name in re.findall(r"^def (test_\w+)\(", path.read_text(), re.M):
            assert f"`tests/faults/{path.name}::{name}`" in text, f"reliability.md: say what {name} holds us to"
