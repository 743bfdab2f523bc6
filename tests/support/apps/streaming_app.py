"""Streams of real packages, each of whose lines tells whom the package takes the request for. /PACKAGE?user=NAME

Flask's context, a cursor of sqlite3 (which checks its thread), Django's connection to PostgreSQL without and within a
transaction, the span of OpenTelemetry, the transaction of New Relic's agent. What is not installed is not served.
"""

from __future__ import annotations

import os
import sqlite3
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import django
import django.conf
from django.core.handlers.wsgi import WSGIHandler
from django.db import connection, transaction
from django.http import HttpRequest, StreamingHttpResponse
from django.urls import path
from flask import Flask, g, request, stream_with_context
from flask import Response as FlaskResponse

BLOCKS = 30
SIZE = 40_000
END = "end\n"

App = Callable[[dict[str, Any], Any], Iterable[bytes]]


def line(user: object) -> bytes:
    return f"{user} ".encode().ljust(SIZE - 1, b"x") + b"\n"


# Flask

flask = Flask(__name__)


@flask.get("/flask")
def flask_stream() -> FlaskResponse:
    g.user = request.args["user"]

    def lines() -> Iterator[bytes]:
        for _ in range(BLOCKS):
            yield line(g.user if g.user == request.args["user"] else f"{g.user}/{request.args['user']}")
        yield END.encode()

    return FlaskResponse(stream_with_context(lines()), mimetype="text/plain")


# sqlite3


def sqlite(environ: dict[str, Any], start_response: Any) -> Iterator[bytes]:
    database = sqlite3.connect(":memory:")
    start_response("200 OK", [("Content-Type", "text/plain")])
    numbers = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT ?) SELECT ? FROM n"
    for (user,) in database.execute(numbers, [BLOCKS, _user(environ)]):
        yield line(user)
    database.close()
    yield END.encode()


def _user(environ: dict[str, Any]) -> str:
    user: str = environ["QUERY_STRING"].removeprefix("user=")
    return user


# Django, with the default CONN_MAX_AGE: the end of any request closes the connection of its thread


def rows(user: str) -> Iterator[bytes]:
    with connection.chunked_cursor() as cursor:  # as QuerySet.iterator() has it
        cursor.execute("SELECT %s::text FROM generate_series(1, %s)", [user, BLOCKS])
        for (found,) in cursor:
            yield line(found)
    yield END.encode()


def rows_atomic(user: str) -> Iterator[bytes]:
    with transaction.atomic():
        yield from rows(user)


def django_stream(request: HttpRequest) -> StreamingHttpResponse:
    return StreamingHttpResponse(rows(request.GET["user"]), content_type="text/plain")


def django_atomic(request: HttpRequest) -> StreamingHttpResponse:
    return StreamingHttpResponse(rows_atomic(request.GET["user"]), content_type="text/plain")


urlpatterns = [path("django", django_stream), path("atomic", django_atomic)]


def _django() -> App:
    django.conf.settings.configure(
        ALLOWED_HOSTS=["*"], ROOT_URLCONF=__name__, SECRET_KEY="x", USE_TZ=True,
        DATABASES={"default": {
            "ENGINE": "django.db.backends.postgresql", "NAME": "postgres", "USER": "postgres",
            "HOST": os.environ["PGHOST"],
        }},
    )  # fmt: skip
    django.setup()
    handler: App = WSGIHandler()
    return handler


# OpenTelemetry: the name is the trace that the client says it is in


def _opentelemetry() -> App:
    from opentelemetry import trace
    from opentelemetry.instrumentation.wsgi import OpenTelemetryMiddleware
    from opentelemetry.sdk.trace import TracerProvider

    trace.set_tracer_provider(TracerProvider())

    def spans(environ: dict[str, Any], start_response: Any) -> Iterator[bytes]:
        start_response("200 OK", [("Content-Type", "text/plain")])
        for _ in range(BLOCKS):
            yield line(f"{trace.get_current_span().get_span_context().trace_id:032x}")
        yield END.encode()

    app: App = OpenTelemetryMiddleware(spans)
    return app


# New Relic


def _newrelic() -> App:
    import newrelic.agent

    newrelic.agent.global_settings().developer_mode = True  # it says nothing to anybody
    newrelic.agent.initialize()
    first = threading.Lock()
    registered: list[Any] = []

    def transactions(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        start_response("200 OK", [("Content-Type", "text/plain")])
        newrelic.agent.set_transaction_name(_user(environ))
        return lines()

    def lines() -> Iterator[bytes]:
        for _ in range(BLOCKS):
            found = newrelic.agent.current_transaction()
            yield line(found.name if found is not None else "none")
        yield END.encode()

    inner = newrelic.agent.WSGIApplicationWrapper(transactions)

    def app(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        with first:
            if not registered:
                registered.append(newrelic.agent.register_application(timeout=10))
        result: Iterable[bytes] = inner(environ, start_response)
        return result

    return app


APPS: dict[str, App] = {"flask": flask.wsgi_app, "sqlite": sqlite}
if "PGHOST" in os.environ:
    APPS["django"] = APPS["atomic"] = _django()
for name, make in (("opentelemetry", _opentelemetry), ("newrelic", _newrelic)):
    try:
        APPS[name] = make()
    except ImportError as missing:
        print(f"not served: {name}: {missing}", file=sys.stderr)  # noqa: T201


def app(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
    return APPS[environ["PATH_INFO"][1:]](environ, start_response)
