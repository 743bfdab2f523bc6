"""The WebSocket protocol, the server's side (RFC 6455, and compression as in RFC 7692): theory of operation.

Nothing here reads a socket or a clock, or starts a thread. The owner of the connection gives bytes and is given events,
gives messages and is given bytes, and decides when those are sent.

**Opening.** `http/h1` reads the head of the request as of any other. `handshake.asks_for_websocket` tells an opening
handshake from other requests; `handshake.judge` refuses a bad one (by a `Refusal`, which h1 answers) or returns a
`Handshake`: the subprotocols to choose from, and what is agreed on about compression (`extensions`). The application
may still refuse it with a response of its own; `Handshake.accept` is the 101. What the reader of heads has left over
(`Inbound.rest`) are the first frames, as a client need not wait for the 101.

**Reading.** `WebSocket.receive` takes bytes in any pieces and returns events. A message is its text or its bytes,
whole. A frame is taken apart as it comes (`reader`): each part of a payload is unmasked (`mask`), inflated (`deflate`),
checked and added to the message (`message`). So what is kept is one message and less than one header. Nothing that the
client does raises: a violation is the last event, after the messages before it, and names the rule.

**Ends.** `closing` has the states of a WebSocket as a table. After an end that the client causes – its close frame or a
violation – comes a `Closed` event, and a close frame is owed to the client. It is not sent by itself: the application
may have answers to the messages before it, and no client reads what follows a close frame. `WebSocket.close` writes it
when the application has taken the events. After the server's own close frame, the client's messages are dropped up to
its close frame; how long to wait for that is for the owner of the connection to say.

**Pings** of the client are kept until `WebSocket.pongs` is called, which is when the connection takes bytes again. Only
the newest few are, since the newest pong answers all pings before it: a client that sends pings and reads nothing costs
nothing.

**Bounds.** `limits` has all numbers. A message is measured after it was inflated, and before it is kept. zlib is asked
for 64 KiB at a time, so a bomb is noticed when it has come to the limit, and never exists as a whole. One call of
`receive` inflates a bounded number of bytes; the rest of what came waits (`has_more`), so that many small bombs in one
read do not add up to a large one. Fragments are counted as well: those without bytes could go on for ever.
"""
