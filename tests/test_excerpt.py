"""What is shown of a long traceback."""

from __future__ import annotations

from srvd.excerpt import excerpt


def frame(path: str, line: int = 7) -> str:
    return f'  File "{path}", line {line}, in call\n    return call()\n           ^^^^^^\n'


PACKAGES = "".join(
    frame(path)
    for path in (
        "/venv/lib/python3.11/site-packages/django/core/handlers/base.py",
        "/usr/lib/python3/dist-packages/flask/app.py",
        "/usr/lib/python3.11/importlib/__init__.py",
        "<frozen importlib._bootstrap>",
        "/venv/src/srvd/worker/wsgi/exchange.py",
    )
)
HEAD = "Traceback (most recent call last):\n"


def test_frames_of_packages_are_left_out_and_counted() -> None:
    text = HEAD + PACKAGES + frame("/srv/shop/shop/views.py") + PACKAGES + "ValueError: no price\n  for this one"
    assert excerpt(text) == (
        HEAD + frame("/srv/shop/shop/views.py") + "ValueError: no price\n  for this one\n(30 lines are not shown: -v)"
    )


def test_of_a_chain_the_last_exception_is_shown() -> None:
    first = HEAD + PACKAGES + frame("/srv/first.py") + "KeyError: 'a'\n"
    then = "\nDuring handling of the above exception, another exception occurred:\n\n"
    second = HEAD + PACKAGES + frame("/srv/second.py") + "RuntimeError: b"
    shown = excerpt(first + then + second)
    assert "/srv/second.py" in shown
    assert "RuntimeError: b" in shown
    assert "/srv/first.py" not in shown
    packages_alone = HEAD + PACKAGES + "RuntimeError: b"
    shown = excerpt(first + then + packages_alone)  # then those of the one before say where it was
    assert "/srv/first.py" in shown
    assert "RuntimeError: b" in shown


def test_the_place_of_a_syntax_error_is_shown() -> None:
    place = '  File "/srv/shop/views.py", line 9\n    def broken(:\n               ^\nSyntaxError: invalid syntax'
    shown = excerpt(HEAD + PACKAGES + PACKAGES + frame("/srv/shop/urls.py") + place)
    assert shown.startswith(HEAD + frame("/srv/shop/urls.py") + place)


def test_what_is_short_or_no_traceback_stays() -> None:
    short = HEAD + frame("/usr/lib/python3.11/json/decoder.py") + "ValueError"
    assert excerpt(short) == short
    log = "\n".join(f"line {n}" for n in range(100))
    assert excerpt(log) == log
    foreign = excerpt("reason\n" + HEAD + PACKAGES * 2 + "OSError: x")
    assert foreign.startswith("reason\n" + HEAD + frame("/venv/src/srvd/worker/wsgi/exchange.py") + "OSError: x\n(")
