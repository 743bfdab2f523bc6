"""Finds out what a gunicorn configuration sets, and what that depends on, by executing it in throw-away processes.

`reader.py` executes; `settings.py` translates. A file is executed with one variable changed at a time, and with 1, 4
and 16 processors: the settings that differ tell what depends on what. One that acts while it is read is executed once.
"""

from __future__ import annotations

import json
import subprocess
import tempfile
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, Final

from srvd.config.spelling.formula import evaluate
from srvd.errors import ConfigInvalid
from srvd.migrate.report import Finding
from srvd.migrate.syntax import Syntax
from srvd.record import Record

__all__ = ["Found", "Setter", "examine"]

_READER: Final = Path(__file__).with_name("reader.py")
_LIMIT: Final = 30
"""Seconds that one execution may take."""

_LONGEST: Final = 65_536  # bytes that are shown of what it printed

_CPUS: Final = (1, 4, 16)
_MARKS: Final = ("7331", "zz7331")
"""Values for a variable: a number first, since most are numbers or part of a text."""

_OTHERS: Final = ("7332", "zz7332")  # for a variable that has to have a value
_MOST: Final = 40  # variables


class Found(Record):
    """One setting. value: of a run in which no variable was set. spelled: with `${…}` or a formula; "": neither."""

    value: Any
    spelled: str = ""


class Setter(Record):
    """What a file sets, by name, and what was noticed on the way."""

    settings: Mapping[str, Found]
    findings: tuple[Finding, ...]


class _Run(Record):
    values: Mapping[str, Any]
    asked: Mapping[str, bool]
    counted: bool
    missing: str
    absent: str
    error: str


def examine(path: str, python: str, folder: str, names: Collection[str], syntax: Syntax) -> Setter:
    """Executes the file at `path` in `folder` with the interpreter `python`, and returns what it sets of `names`.

    Raises `ConfigInvalid` with its traceback if it cannot be executed.
    """
    return _Examination(path, python, folder, names, syntax).result()


class _Examination:
    def __init__(self, path: str, python: str, folder: str, names: Collection[str], syntax: Syntax) -> None:
        self.path, self.python, self.folder, self.names, self.syntax = path, python, folder, names, syntax
        self.given: dict[str, str] = {}  # variables without which the file fails
        self.absent: list[str] = []
        self.unset: list[str] = []
        self.findings: list[Finding] = []
        self.alone: dict[str, tuple[str, _Run]] = {}  # by variable: another value of it, and the run with that
        self.base = self._first()

    def result(self) -> Setter:
        spelled: dict[str, str] = {}
        if self.syntax.acts:
            what = f"executed once, with this environment: it acts while it is read ({self.syntax.acts[0]})"
            self._tell("asked for", f"{what}; values that were computed are those of this machine")
        else:
            spelled.update(self._formulas())
            self._variables(spelled)
        found = {name: Found(self.base.values[name], spelled.get(name, "")) for name in self._known(self.base)}
        return Setter(found, tuple(self.findings))

    def _first(self) -> _Run:
        """Executes it until it ends well: with stand-ins for missing modules, and values for missing variables."""
        for _ in range(_MOST):
            run = self._run()
            new = [name for name in run.asked if name not in self.unset and name not in self.given]
            if run.absent and run.absent not in self.absent:
                self.absent.append(run.absent)
                self._tell("asked for", f"module {run.absent} is not installed here; --python names the application's")
            elif run.missing and run.missing not in self.given:
                self.given[run.missing] = _MARKS[0]
            elif new and not self.syntax.acts:
                self.unset += new  # again without them, to learn the defaults
            elif run.error:
                break
            else:
                return run
        raise ConfigInvalid(
            f"read {self.path}: executing it raised an error; nothing was written",
            hint="--python names the interpreter of the application, in which gunicorn runs",
            detail={"traceback": run.error},
        )

    def _formulas(self) -> dict[str, str]:
        if not self.base.counted:
            return {}
        runs = [self._run(cpus=cpus) for cpus in _CPUS]
        if any(run.error for run in runs):
            return {}
        formulas = {}
        for name in self._known(self.base):
            numbers = [_number(run.values.get(name)) for run in runs]
            if len(set(numbers)) > 1 and None not in numbers:
                formula = _formula([one for one in numbers if one is not None])
                if formula:
                    formulas[name] = formula
                else:
                    self._tell("changed", f"{name} follows from the processors in a way that is not understood", name)
        return formulas

    def _variables(self, spelled: dict[str, str]) -> None:
        influences: dict[str, dict[str, tuple[str, str]]] = {}
        for variable in [*self.given, *self.unset][:_MOST]:
            mark, run = self._marked(variable)
            if run is None:
                continue
            self.alone[variable] = mark, run
            changed = [name for name in self._known(run) if run.values[name] != self._plain(name)]
            for name in changed:
                parts = _around(run.values[name], mark)
                if parts is not None:
                    influences.setdefault(name, {})[variable] = parts
                else:
                    self._tell("changed", f"{name} depends on ${variable} and is as without it", name)
            if not changed:
                self._branches(variable)
        for name, found in influences.items():
            self._combine(name, found, spelled)

    def _marked(self, variable: str) -> tuple[str, _Run | None]:
        """Executes the file with another value of a variable: the value, and the run; None if none ends well."""
        for mark in _OTHERS if variable in self.given else _MARKS:
            run = self._run({variable: mark})
            if not run.error:
                return mark, run
        return "", None

    def _branches(self, variable: str) -> None:
        """Looks for values of a variable that the file compares it with."""
        for word in self.syntax.words:
            run = self._run({variable: word})
            changed = [] if run.error else [one for one in self._known(run) if run.values[one] != self._plain(one)]
            if changed:
                text = (
                    f"with {variable}={word} it sets {', '.join(changed)} otherwise: a second file, or SRVD_ variables"
                )
                self._tell("changed", text, changed[0])

    def _combine(self, name: str, found: dict[str, tuple[str, str]], spelled: dict[str, str]) -> None:
        """Spells a setting that variables influence, if each is a part of it or all of it."""
        parts = {variable: around for variable, around in found.items() if around != ("", "")}
        template = ""
        used = parts if parts and len(found) > 1 else found
        if len(used) == 1:
            ((variable, (before, after)),) = used.items()
            template = self._reference(variable, name, before, after, spelled.get(name, ""))
        elif len(used) == 2 and name not in spelled:
            template = self._pair(name, *used)
        if template:
            spelled[name] = template
        others = [f"${variable}" for variable in found if not template or variable not in used]
        if others:
            self._tell("changed", f"{name} depends on {', '.join(others)} and is as without", name)

    def _reference(self, variable: str, name: str, before: str, after: str, default: str) -> str:
        base = self._plain(name)
        if variable in self.given:
            return f"{before}${{{variable}}}{after}"
        if base is None:
            return f"{before}${{{variable}:-}}{after}"
        text = default or _text(base)
        if text is None or not (text.startswith(before) and text.endswith(after)):
            return ""
        middle = text[len(before) : len(text) - len(after)]
        return "" if "}" in middle else f"{before}${{{variable}:-{middle}}}{after}"

    def _pair(self, name: str, first: str, second: str) -> str:
        """A value of two variables, such as HOST and PORT."""
        run = self._run({first: _MARKS[0], second: _OTHERS[0]})
        text, base = _text(run.values.get(name)), _text(self._plain(name))
        if run.error or text is None or base is None or text.count(_MARKS[0]) != 1 or text.count(_OTHERS[0]) != 1:
            return ""
        for variable, mark in ((first, _MARKS[0]), (second, _OTHERS[0])):
            single, alone = self.alone[variable]
            before, _, after = (_text(alone.values.get(name)) or "").partition(single)
            if not (base.startswith(before) and base.endswith(after)):
                return ""
            text = text.replace(mark, f"${{{variable}:-{base[len(before) : len(base) - len(after)]}}}")
        return text

    def _plain(self, name: str) -> Any:
        return self.base.values.get(name)

    def _known(self, run: _Run) -> list[str]:
        return [name for name in run.values if name in self.names]

    def _run(self, environ: Mapping[str, str] | None = None, cpus: int = 0) -> _Run:
        wanted = {
            "environ": {**self.given, **(environ or {})},
            "unset": [name for name in self.unset if name not in (environ or {})],
            "absent": self.absent,
            "cpus": cpus,
        }
        # In files, which hold any length, and whose readers wait for nothing that the configuration has started.
        with tempfile.TemporaryFile() as answer, tempfile.TemporaryFile() as printed:
            command = [self.python, str(_READER), self.path, str(answer.fileno()), json.dumps(wanted)]
            try:
                subprocess.run(
                    command, cwd=self.folder, pass_fds=[answer.fileno()], stdin=subprocess.DEVNULL, stdout=printed,
                    stderr=subprocess.STDOUT, timeout=_LIMIT, check=False,
                )  # fmt: skip
                error = "it ended the process"
            except subprocess.TimeoutExpired:
                error = f"it was not over after {_LIMIT} s"
            except OSError as exc:
                error = f"execute {self.python}: {exc.strerror}"
            answer.seek(0)
            text = answer.read()
            if not text:
                printed.seek(0)
                return _Run({}, {}, False, "", "", printed.read(_LONGEST).decode("utf-8", "replace") or error)
        return _Run(**json.loads(text))

    def _tell(self, category: str, text: str, name: str = "") -> None:
        self.findings.append(Finding(category, self.syntax.where(name), text))


def _number(value: object) -> int | None:
    if isinstance(value, str) and value.strip().isdecimal():
        return int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _text(value: object) -> str | None:
    """A value in the spelling of a file, a list with commas; None for what is no text or number, or a list of them."""
    if isinstance(value, list):
        texts = [_text(item) for item in value]
        return None if None in texts else ",".join(text for text in texts if text is not None)
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float) and value == int(value):
        return str(int(value))
    return str(value) if isinstance(value, (str, int, float)) else None


def _around(value: object, mark: str) -> tuple[str, str] | None:
    """What stands before and after the mark in a value; None if it is not there, or several times."""
    text = _text(value)
    if text is None or text.count(mark) != 1:
        return None
    before, _, after = text.partition(mark)
    return before, after


def _formula(numbers: list[int]) -> str:
    """The formula that gives these numbers for `_CPUS`, perhaps with a bound; "": none was found."""
    one, four, many = numbers
    lower = _line(1, one, 4, four)
    if lower and evaluate(lower, 16) >= many:
        return lower if evaluate(lower, 16) == many else f"min({lower}, {many})"
    upper = _line(4, four, 16, many)
    return f"max({upper}, {one})" if upper and evaluate(upper, 1) < one else ""


def _line(x: int, at_x: int, y: int, at_y: int) -> str:
    """The straight line through two points, as a formula; "" unless its slope is a whole number above 0."""
    slope, rest = divmod(at_y - at_x, y - x)
    if rest or slope <= 0:
        return ""
    start = at_x - slope * x
    product = "cpus" if slope == 1 else f"{slope} * cpus"
    return product if not start else f"{product} {'+' if start > 0 else '-'} {abs(start)}"
