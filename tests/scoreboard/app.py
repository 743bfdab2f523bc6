"""The application of the scoreboard. Its path says what it does; it needs nothing but the standard library."""

from __future__ import annotations

import asyncio
import json
from typing import Any

Scope = dict[str, Any]
SEEN: dict[str, str] = {}


def _plain(value: Any) -> Any:
    if isinstance(value, bytes):
        return {"bytes": value.decode("latin-1")}
    if isinstance(value, dict):
        return {str(key): _plain(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(each) for each in value]
    return value if isinstance(value, (str, int, float, bool, type(None))) else repr(value)


async def start(send: Any, status: int = 200, *fields: tuple[bytes, bytes]) -> None:
    await send({"type": "http.response.start", "status": status, "headers": list(fields)})


async def body(send: Any, data: bytes = b"", *, more: bool = False) -> None:
    await send({"type": "http.response.body", "body": data, "more_body": more})


async def answer(send: Any, data: bytes, status: int = 200) -> None:
    await start(send, status, (b"content-length", str(len(data)).encode()))
    await body(send, data)


async def read(receive: Any) -> bytes:
    pieces, more = [], True
    while more:
        message = await receive()
        pieces.append(message.get("body", b""))
        more = message.get("more_body", False)
    return b"".join(pieces)


async def _lifespan(scope: Scope, receive: Any, send: Any) -> None:
    await receive()
    if "state" in scope:
        scope["state"]["of"] = "lifespan"
    await send({"type": "lifespan.startup.complete"})
    await receive()
    await send({"type": "lifespan.shutdown.complete"})


async def _websocket(scope: Scope, receive: Any, send: Any) -> None:
    await receive()
    path = scope["path"]
    if path == "/ws/refuse":
        await send({"type": "websocket.close"})
        return
    chosen = (scope["subprotocols"] or [None])[-1]
    await send({"type": "websocket.accept", "subprotocol": chosen})
    if path == "/ws/scope":
        await send({"type": "websocket.send", "text": json.dumps(_plain(scope))})
    if path == "/ws/close":
        await send({"type": "websocket.close", "code": 4001, "reason": "enough"})
    if path == "/ws/raise":
        raise RuntimeError("on purpose")
    while (message := await receive())["type"] == "websocket.receive":
        told = {key: message.get(key) for key in ("text", "bytes") if message.get(key) is not None}
        await send({"type": "websocket.send", **told})
    SEEN["ws"] = str(message.get("code"))


async def _wrong(path: str, send: Any) -> None:
    if path == "/wrong/short":
        await start(send, 200, (b"content-length", b"10"))
        await body(send, b"12345")
    elif path == "/wrong/long":
        await start(send, 200, (b"content-length", b"5"))
        await body(send, b"12345HTTP/1.1 200 OK\r\n\r\n")
    elif path == "/wrong/204":
        await start(send, 204)
        await body(send, b"not wanted")
    elif path == "/wrong/split":
        await start(send, 200, (b"x-a", b"b\r\nx-c: d"))
        await body(send)
    elif path == "/wrong/both":
        await start(send, 200, (b"content-length", b"2"), (b"transfer-encoding", b"chunked"))
        await body(send, b"ok")
    elif path == "/wrong/late":
        await start(send)
        await body(send, b"12345", more=True)
        raise RuntimeError("on purpose")


async def _http(scope: Scope, receive: Any, send: Any) -> None:
    path = scope["path"]
    if path.startswith("/wrong/"):
        await _wrong(path, send)
    elif path == "/echo":
        await answer(send, await read(receive))
    elif path == "/parts":
        await start(send)
        for piece in (b"one", b"two"):
            await body(send, piece, more=True)
        await body(send)
    elif path == "/cookies":
        await start(send, 200, (b"set-cookie", b"a=1"), (b"set-cookie", b"b=2"), (b"content-length", b"0"))
        await body(send)
    elif path == "/raise":
        raise RuntimeError("on purpose")
    elif path == "/exit":
        raise SystemExit(3)
    elif path == "/cancel":
        raise asyncio.CancelledError
    elif path == "/silent":
        return
    elif path == "/wait":
        await read(receive)
        SEEN["http"] = (await receive())["type"]
    elif path == "/seen":
        await answer(send, json.dumps(SEEN).encode())
    elif path == "/now":
        await answer(send, b"now")
    else:
        await answer(send, json.dumps(_plain(scope)).encode())


async def app(scope: Scope, receive: Any, send: Any) -> None:
    part = {"lifespan": _lifespan, "websocket": _websocket}.get(scope["type"], _http)
    await part(scope, receive, send)
