"""The application of the framework tests in Flask."""

from __future__ import annotations

from flask import Flask, Response, jsonify, redirect, request
from werkzeug.wrappers import Response as AnyResponse

from tests.support.apps import shared

flask_app = Flask(__name__, static_folder=str(shared.STATIC.absolute()), static_url_path="/static")


@flask_app.get("/")
def index() -> Response:
    return Response("hello from flask", content_type="text/plain")


@flask_app.get("/hello/<name>")
def hello(name: str) -> Response:
    return Response(f"hello {name}", content_type="text/plain; charset=utf-8")


@flask_app.get("/request")
def about() -> Response:
    return jsonify(url=request.url, query=request.args.to_dict(flat=False), agent=request.headers["X-Agent"])


@flask_app.post("/form")
def form() -> Response:
    return jsonify(request.form.to_dict(flat=False))


@flask_app.post("/upload")
def upload() -> Response:
    file = request.files["file"]
    return jsonify(name=file.filename, note=request.form["note"], **shared.digest(file))


@flask_app.put("/raw")
def raw() -> Response:
    return jsonify(shared.digest(request.stream))


@flask_app.get("/stream/<int:count>")
def stream(count: int) -> Response:
    return Response(shared.blocks(count), content_type="application/octet-stream")


@flask_app.get("/steps")
def steps() -> Response:
    return Response(shared.in_two_steps(), content_type="text/plain")


@flask_app.get("/cookies/set")
def set_cookies() -> Response:
    response = Response("set", content_type="text/plain")
    response.set_cookie("plain", "1", httponly=True, samesite="Lax")
    response.set_cookie("words", "two words; quoted", max_age=60)
    return response


@flask_app.get("/cookies")
def cookies() -> Response:
    return jsonify(request.cookies)


@flask_app.get("/redirect")
def redirection() -> AnyResponse:
    return redirect("/hello/there")


@flask_app.get("/nothing")
def nothing() -> Response:
    response = Response(status=204)
    del response.headers["Content-Type"]
    return response


@flask_app.get("/boom")
def boom() -> Response:
    raise RuntimeError(shared.SECRET)


@flask_app.get("/half")
def half() -> Response:
    return Response(shared.cut_short(), content_type="text/plain")


app = shared.served(flask_app)
