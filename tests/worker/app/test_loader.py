"""Loading an application by its name: what comes of it, and what is said when nothing does."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from srvd.errors import LoadFailed
from srvd.worker.app.loader import load
from srvd.worker.tracebacks import format_traceback


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where the source of module `shop` is written."""
    monkeypatch.syspath_prepend(str(tmp_path))
    yield tmp_path / "shop.py"
    sys.modules.pop("shop", None)


def failure(target: str) -> LoadFailed:
    with pytest.raises(LoadFailed) as failed:
        load(target)
    return failed.value


def test_an_attribute_a_factory_and_a_dotted_path_are_loaded(module: Path) -> None:
    module.write_text("def app(*given): return make\nclass make:\n    @staticmethod\n    def it(): return app\n")
    assert getattr(load("shop:app"), "__name__", "") == "app"
    assert getattr(load("shop:app()"), "__name__", "") == "make"
    assert getattr(load("shop:make.it()"), "__name__", "") == "app"


def test_a_module_alone_stands_for_its_application_or_app(module: Path) -> None:
    module.write_text("def app(*given): ...\napplication = None\n")
    assert getattr(load("shop"), "__name__", "") == "app"
    sys.modules.pop("shop")
    module.write_text("def app(*given): ...\ndef application(*given): ...\n")
    assert getattr(load("shop"), "__name__", "") == "application"
    sys.modules.pop("shop")
    module.write_text("def server(*given): ...\n")
    failed = failure("shop")
    assert failed.message == "load 'shop': the module has neither application nor app; nothing was loaded"
    assert failed.hint == "name it, as in shop:server"


def test_a_factory_is_called_with_its_arguments(module: Path) -> None:
    module.write_text(
        "def make(name, *, debug=True):\n    def app(*given): ...\n    app.made = (name, debug)\n    return app\n"
    )
    assert getattr(load("shop:make('prod', debug=False)"), "made", None) == ("prod", False)
    failed = failure("shop:make()")
    assert "the factory raised" in failed.message
    assert "missing 1 required positional argument" in failed.message


@pytest.mark.parametrize(
    "target", ["", "shop:", ":app", "shop:app(x)", "shop.py", "shop app:x", "shop:app()()", "os.system('x'):y"]
)
def test_what_is_no_name_is_refused_before_anything_is_imported(module: Path, target: str) -> None:
    module.write_text("raise RuntimeError('imported')")
    failed = failure(target)
    assert "does not name an application" in failed.message
    assert "MODULE:ATTRIBUTE" in failed.hint


def test_a_missing_module_says_where_to_look(module: Path) -> None:
    failed = failure("absent.wsgi:app")
    assert "ModuleNotFoundError: No module named 'absent'" in failed.message
    assert f"looked for in {os.getcwd()} first" in failed.hint
    assert "pythonpath" in failed.hint
    assert "traceback" not in failed.detail  # it would have nothing but the way to the import


def test_a_module_that_misses_another_is_not_told_to_check_its_own_name(module: Path) -> None:
    module.write_text("import absent\n")
    failed = failure("shop:app")
    assert "No module named 'absent'" in failed.message
    assert failed.hint.startswith(f"{sys.prefix} has no absent: install it there")


def test_a_misspelt_part_of_a_package_is_no_missing_package(module: Path) -> None:
    module.write_text("import importlib.absent\n")
    failed = failure("shop:app")
    assert "No module named 'importlib.absent'" in failed.message
    assert failed.hint == ""


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("1 / 0", "ZeroDivisionError: division by zero"),
        ("import sys\nsys.exit('no licence')", "SystemExit: no licence"),
        ("def app(:", "SyntaxError: invalid syntax"),
        ("class Own(Exception): pass\nraise Own('mine')", "shop.Own: mine"),
    ],
)
def test_an_import_that_raises_is_told_with_its_traceback(module: Path, source: str, said: str) -> None:
    module.write_text(source)
    failed = failure("shop:app")
    assert said in failed.message
    assert said in str(failed.detail["traceback"])
    assert "shop.py" in str(failed.detail["traceback"])


def test_a_traceback_begins_where_the_applications_own_code_does(module: Path) -> None:
    module.write_text("import importlib\nimportlib.import_module('absent')\n")
    lines = str(failure("shop:app").detail["traceback"]).splitlines()
    assert lines[0] == "Traceback (most recent call last):"
    assert lines[1] == f'  File "{module}", line 1, in <module>'.replace("line 1", "line 2")
    assert "importlib/__init__.py" in next(
        line for line in lines[2:] if line.startswith("  File ")
    )  # what it has called
    module.write_text("def app(:")
    assert str(failure("shop:app").detail["traceback"]).startswith(f'  File "{module}", line 1')


def test_a_factory_that_raises_is_told_with_its_traceback(module: Path) -> None:
    module.write_text("def make():\n    raise KeyError('port')\n")
    failed = failure("shop:make()")
    assert "the factory raised “KeyError: 'port'”" in failed.message
    assert "in make" in str(failed.detail["traceback"])


def test_a_missing_attribute_names_what_is_there(module: Path) -> None:
    module.write_text("def application(): pass\ndef _private(): pass\n")
    failed = failure("shop:app")
    assert "module shop has no 'app'" in failed.message
    assert failed.hint == "shop has application"
    module.write_text(
        "from typing import Any, Callable\nfrom os.path import join\nclass App:\n def __call__(self): pass\n"
        "Pairs = dict[str, Any]\nwsgi = App()\ndef make(): pass\n"
    )
    sys.modules.pop("shop")
    assert failure("shop:app").hint == "shop has wsgi, make"


def test_what_cannot_be_called_is_no_application(module: Path) -> None:
    module.write_text("app = 3\ndef make(): return 'x'\n")
    assert "an object of type int, which cannot be called" in failure("shop:app").message
    assert "an object of type str, which cannot be called" in failure("shop:make()").message
    assert failure("shop:app()").hint == "leave out the ()"


def test_a_traceback_is_the_interpreters_own_with_causes_and_notes() -> None:
    try:
        try:
            raise ValueError("first")
        except ValueError as exc:
            raise RuntimeError("second") from exc
    except RuntimeError as exc:
        exc.add_note("a note")
        text = format_traceback(exc)
    before, _, after = text.partition("The above exception was the direct cause of the following exception:")
    assert before.startswith("Traceback (most recent call last):\n")
    assert "ValueError: first" in before
    assert after.endswith("RuntimeError: second\na note")
    assert 'raise RuntimeError("second") from exc' in after


@pytest.mark.parametrize(
    ("source", "hint"),
    [
        ("def app(config=None): return lambda e, s: []", "did you mean shop:app()?"),
        ("def app(): return lambda e, s: []", "did you mean shop:app()?"),
        ("def app(*, config=None): return lambda e, s: []", "did you mean shop:app()?"),
        ("def app(config): return lambda e, s: []", ""),
        ("class App:\n    def __call__(self, environ): pass\napp = App()", ""),
        ("class App:\n    def wsgi(self, environ): pass\napp = App().wsgi", ""),
        ("def app(environ, start, more): pass", ""),
    ],
)
def test_a_factory_without_its_call_is_told_from_an_application(module: Path, source: str, hint: str) -> None:
    """By the arguments that it takes, before it answers each request with an error."""
    module.write_text(source)
    found = failure("shop:app")
    assert "an application takes two (environ, start_response)" in found.message
    assert (hint in found.hint) if hint else found.hint == ""


@pytest.mark.parametrize(
    "source",
    [
        "def app(e, s): pass",
        "def app(*both): pass",
        "def app(e, s, more=None): pass",
        "import functools\napp = functools.partial(lambda x, e, s: [], 1)",
        "class App:\n    def __call__(self, e, s): pass\n    wsgi = __call__\napp = App()",
        "class App:\n    def wsgi(self, e, s): pass\napp = App().wsgi",
        "class App:\n    @classmethod\n    def wsgi(cls, e, s): pass\napp = App.wsgi",
        "class app:\n    def __init__(self, e, s): pass\n    def __iter__(self): return iter(())",
    ],
)
def test_what_can_be_called_with_two_arguments_is_an_application(module: Path, source: str) -> None:
    module.write_text(source)
    assert callable(load("shop:app"))
