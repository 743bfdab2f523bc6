"""The application of the framework tests in Falcon."""

from __future__ import annotations

from typing import Any

import falcon

from tests.support.apps import shared


class Index:
    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        resp.content_type = "text/plain"
        resp.text = "hello from falcon"


class Hello:
    def on_get(self, req: falcon.Request, resp: falcon.Response, name: str) -> None:
        resp.content_type = "text/plain; charset=utf-8"
        resp.text = f"hello {name}"


class About:
    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        query = {name: value if isinstance(value, list) else [value] for name, value in req.params.items()}
        resp.media = {"url": req.uri, "query": query, "agent": req.get_header("X-Agent")}


class Form:
    def on_post(self, req: falcon.Request, resp: falcon.Response) -> None:
        fields: dict[str, Any] = req.get_media()
        resp.media = {name: value if isinstance(value, list) else [value] for name, value in fields.items()}


class Upload:
    def on_post(self, req: falcon.Request, resp: falcon.Response) -> None:
        told: dict[str, Any] = {}
        for part in req.get_media():
            if part.name == "file":
                told |= {"name": part.filename, **shared.digest(part.stream)}
            else:
                told[part.name] = part.text
        resp.media = told


class Raw:
    def on_put(self, req: falcon.Request, resp: falcon.Response) -> None:
        resp.media = shared.digest(req.bounded_stream)


class Stream:
    def on_get(self, req: falcon.Request, resp: falcon.Response, count: int) -> None:
        resp.content_type = "application/octet-stream"
        resp.stream = shared.blocks(count)


class Steps:
    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        resp.content_type = "text/plain"
        resp.stream = shared.in_two_steps()


class SetCookies:
    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        resp.content_type = "text/plain"
        resp.text = "set"
        resp.set_cookie("plain", "1", secure=False, http_only=True, same_site="Lax")
        resp.set_cookie("words", "two words; quoted", secure=False, max_age=60)


class Cookies:
    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        resp.media = req.cookies


class Redirect:
    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        raise falcon.HTTPFound("/hello/there")


class Nothing:
    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        resp.status = falcon.HTTP_204


class Boom:
    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        raise RuntimeError(shared.SECRET)


class Half:
    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        resp.content_type = "text/plain"
        resp.stream = shared.cut_short()


falcon_app = falcon.App()
falcon_app.add_route("/", Index())
falcon_app.add_route("/hello/{name}", Hello())
falcon_app.add_route("/request", About())
falcon_app.add_route("/form", Form())
falcon_app.add_route("/upload", Upload())
falcon_app.add_route("/raw", Raw())
falcon_app.add_route("/stream/{count:int}", Stream())
falcon_app.add_route("/steps", Steps())
falcon_app.add_route("/cookies/set", SetCookies())
falcon_app.add_route("/cookies", Cookies())
falcon_app.add_route("/redirect", Redirect())
falcon_app.add_route("/nothing", Nothing())
falcon_app.add_route("/boom", Boom())
falcon_app.add_route("/half", Half())
falcon_app.add_static_route("/static", shared.STATIC.absolute())

app = shared.served(falcon_app)
