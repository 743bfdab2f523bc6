"""The tutorial, done as it is written: each file, each command and each line of output. And the page for developers."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import sysconfig
import urllib.request
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.support.daemon import free_port
from tests.support.waiting import wait_for

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "tutorial.md"

STEP = re.compile(r"(?:`(?P<file>[\w./]+)`:\n\n)?^```(?P<language>\w+)\n(?P<text>.*?)^```", re.DOTALL | re.MULTILINE)


class Command(NamedTuple):
    words: str
    output: list[str]  # lines that it shows, of which the page may leave some out


def steps(page: str) -> list[Command]:
    """What the page says, in its order; a file that it shows is a command that writes it."""
    found = []
    for step in STEP.finditer(page):
        if step["file"]:
            found.append(Command(f"cat > {step['file']} <<'END_OF_FILE'\n{step['text']}END_OF_FILE", []))
            continue
        assert step["language"] == "console", step["text"]
        for part in re.split(r"^\$ ", step["text"], flags=re.MULTILINE)[1:]:
            words, *output = part.splitlines()
            found.append(Command(words, output))
    return found


def script(commands: list[Command]) -> str:
    """All of them in one shell, as in one terminal: a byte 1 and the exit code stand after the output of each."""
    ends = 'code=$?; printf "\\1%d\\n" $code; (exit $code)'
    return "\n".join(f"{command.words}\n{ends}" for command in commands) + "\n"


def shown(line: str) -> str:
    """The line without what differs from machine to machine: times, counts of probes and folders."""
    line = line.replace(", the last time without an answer", "")  # a slow machine
    for pattern in (r"\d+(\.\d+)? m?s\b", r"\d{4}-\d\d-\d\d \d\d:\d\d", r"\S*/(?=shop\b)", r"asked \d+ times"):
        line = re.sub(pattern, "…", line)
    return line


@pytest.mark.system
@pytest.mark.slow
def test_the_tutorial_works_as_written(tmp_path: Path) -> None:
    commands = [
        Command(words.replace("127.0.0.1:8000", address), output)
        for address in (f"127.0.0.1:{free_port()}",)
        for words, output in steps(PAGE.read_text())
    ]
    assert len(commands) > 30
    (tmp_path / "srvd").symlink_to(ROOT)
    # Packages of this environment stand for those that pip would fetch; srvd itself is built and installed.
    here = tmp_path / "here.pth"
    here.write_text(sysconfig.get_path("purelib") + "\n")
    made = next(number for number, command in enumerate(commands) if "-m venv" in command.words)
    lends = Command(f"cp {here} .venv/lib/python3.*/site-packages/", [])
    commands.insert(made + 1, lends)
    environ = {name: value for name, value in os.environ.items() if not name.startswith(("SRVD_", "PYTHON", "VIRTUAL"))}
    environ |= {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "SRVD_SOCKET": str(tmp_path / "s"),
        "PIP_NO_INDEX": "1",
        "PIP_NO_BUILD_ISOLATION": "0",  # pip reads it as the answer to "isolate?"
        "PYTHONDONTWRITEBYTECODE": "1",  # edits follow each other within a second
    }
    try:
        done = subprocess.run(["bash"], input=script(commands), cwd=tmp_path, env=environ, stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT, text=True, timeout=400)  # fmt: skip
    finally:
        srvctl = Path(sys.executable).parent / "srvctl"  # of a daemon that is left when a step fails
        subprocess.run([srvctl, "stop", "--now"], env=environ, capture_output=True, timeout=60)
    outputs = re.findall(r"(.*?)\x01(\d+)\n", done.stdout, re.DOTALL)
    assert len(outputs) == len(commands), done.stdout
    for number, (command, (output, code)) in enumerate(zip(commands, outputs, strict=True)):
        lines = [shown(line) for line in output.splitlines()]
        for line in command.output:
            assert shown(line) in lines, (command.words, line, output)
        fails = "$?" in commands[number + 1].words if number + 1 < len(commands) else False
        assert (code != "0") == fails, (command.words, code, output)


@pytest.mark.system
def test_the_command_for_developers_serves_each_saved_file(tmp_path: Path) -> None:
    page = (ROOT / "docs" / "howto" / "developing.md").read_text()
    command = page.partition("```sh\n")[2].partition("\n```")[0]
    assert command == "srvd start shop:app --reload"
    port = free_port()
    environ = {name: value for name, value in os.environ.items() if not name.startswith("SRVD_")} | {
        "PORT": str(port),
        "SRVD_SOCKET": str(tmp_path / "s"),
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
    }

    def says(text: str) -> bool:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=60) as answer:
                return bool(answer.read().decode() == text)
        except OSError:
            return False

    code = "def app(environ, start):\n    start('200 OK', [])\n    return [b'one']\n"
    (tmp_path / "shop.py").write_text(code)
    with (tmp_path / "printed").open("wb") as printed, subprocess.Popen(
        ["sh", "-c", f"exec {command}"], cwd=tmp_path, env=environ, stdin=subprocess.DEVNULL, stdout=printed,
        stderr=printed,
    ) as process:  # fmt: skip
        try:
            wait_for(lambda: says("one"), within=60)
            (tmp_path / "shop.py").write_text(code.replace("one", "two"))
            wait_for(lambda: says("two"), within=60)
        finally:
            process.terminate()
