"""Applications of ASGI for the system tests, as source: a bare one, one of Starlette and one of FastAPI.

Each answers `/` with its release, the worker's name and its pid, as the good ones of WSGI do.
"""

from __future__ import annotations

BARE = """
import asyncio, os, time
RELEASE = {release!r}
async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        while True:
            kind = (await receive())["type"]
            await send({{"type": kind + ".complete"}})
            if kind == "lifespan.shutdown":
                return
    if scope["type"] == "websocket":
        await receive()
        await send({{"type": "websocket.accept"}})
        while (message := await receive())["type"] == "websocket.receive":
            await send({{**message, "type": "websocket.send"}})
        return
    path = scope["path"]
    if path.startswith("/sleep/"):
        await asyncio.sleep(float(path[7:]))
    if path.startswith("/block/"):
        time.sleep(float(path[7:]))
    if path == "/stubborn":
        while True:
            try:
                await asyncio.sleep(3600)
            except asyncio.CancelledError:
                pass
    if path.startswith(("/stream/", "/quiet/")):
        kind, number = path[1:].split("/")
        fields = [(b"content-type", b"text/event-stream" if kind == "quiet" else b"text/plain")]
        await send({{"type": "http.response.start", "status": 200, "headers": fields}})
        for _ in range(int(number) if kind == "stream" else 1):
            await asyncio.sleep(0.2 if kind == "stream" else float(number))
            await send({{"type": "http.response.body", "body": b"data: event\\n\\n", "more_body": True}})
        await send({{"type": "http.response.body"}})
        return
    body = f"{{RELEASE}} {{scope['srvd.worker']}} {{os.getpid()}}".encode()
    await send({{"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/plain")]}})
    await send({{"type": "http.response.body", "body": body}})
"""

STARLETTE = """
import asyncio, contextlib, os
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.responses import FileResponse, JSONResponse, PlainTextResponse, StreamingResponse
from starlette.routing import Route
RELEASE = {release!r}
@contextlib.asynccontextmanager
async def lifespan(app):
    yield {{"started": True}}
async def home(request):
    assert request.state.started
    return PlainTextResponse(f"{{RELEASE}} {{request.scope['srvd.worker']}} {{os.getpid()}}")
async def echo(request):
    return PlainTextResponse(await request.body())
async def stream(request):
    async def parts():
        for number in range(100):
            yield b"x" * 10_000
            await asyncio.sleep(0)
    return StreamingResponse(parts())
async def form(request):
    form = await request.form()
    return JSONResponse(dict(form))
async def back(request):
    async def work():
        await asyncio.sleep(0.2)
        open("worked", "w").close()
    return PlainTextResponse("ok", background=BackgroundTask(work))
async def file(request):
    return FileResponse(__file__)
async def events(request):
    async def parts():
        try:
            while True:
                yield b"data: event\\n\\n"
                await asyncio.sleep(0.05)
        finally:
            open("cleaned", "w").close()
    return StreamingResponse(parts(), media_type="text/event-stream")
async def fail(request):
    raise ValueError("mine")
routes = [Route("/", home), Route("/echo", echo, methods=["POST"]), Route("/stream", stream), Route("/back", back),
          Route("/file", file), Route("/fail", fail), Route("/events", events), Route("/form", form, methods=["POST"])]
app = Starlette(routes=routes, lifespan=lifespan)
"""

FASTAPI = """
import contextlib, os
from fastapi import Depends, FastAPI, Request
from fastapi.responses import FileResponse, PlainTextResponse, StreamingResponse
from pydantic import BaseModel
RELEASE = {release!r}
@contextlib.asynccontextmanager
async def lifespan(app):
    app.state.started = True
    yield
app = FastAPI(lifespan=lifespan)
class Item(BaseModel):
    name: str
    price: float
def settings():
    return RELEASE
@app.get("/", response_class=PlainTextResponse)
def home(request: Request, release: str = Depends(settings)):  # in a thread
    assert request.app.state.started
    return f"{{release}} {{request.scope['srvd.worker']}} {{os.getpid()}}"
@app.post("/items")
async def create(item: Item):
    return {{"name": item.name, "total": item.price * 2}}
@app.post("/echo", response_class=PlainTextResponse)
async def echo(request: Request):
    return PlainTextResponse(await request.body())
@app.get("/stream")
async def stream():
    def parts():
        for number in range(100):
            yield b"x" * 10_000
    return StreamingResponse(parts())
@app.middleware("http")
async def pass_on(request, call_next):  # between two tasks
    return await call_next(request)
@app.get("/file")
def file():
    return FileResponse(__file__)
@app.get("/fail")
async def fail():
    raise ValueError("mine")
"""

ALL = {"bare": BARE, "starlette": STARLETTE, "fastapi": FASTAPI}


def source(name: str, release: str = "one") -> str:
    return ALL[name].format(release=release)
