"""A scoreboard of servers of ASGI: black-box checks over sockets, the same for each server."""
