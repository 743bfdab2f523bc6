"""A hostile network client: a table of channel × abuse, each a function of one program.

To add an abuse, add a function `CHANNEL__ABUSE(dice)` to the text below, or to that of
readings.py; `test_clients.py` tries each alone. Arguments
of the program: ports of the listeners `LISTENERS`, in their order. Claims nothing.

What has a test of its own is not here: heads that are refused, one by one (tests/http/test_guard.py), what can be read
in two ways, compared with h11 (tests/http/test_fuzz.py), single kinds of slowness (tests/worker/test_slow_peers.py), a
crowd of them (tests/system/test_slow_crowd.py), TLS of one worker (tests/worker/test_front.py), silent connections that
fill a worker (tests/worker/test_max_connections.py), who is believed for which chain (tests/http/test_forwarded.py).
"""

from __future__ import annotations

from tests.hostile.attackers import ATTEMPTS, DICE, abuses_of
from tests.hostile.readings import ODD_BYTES, READINGS

__all__ = ["ABUSES", "LIMITS", "LISTENERS", "PROGRAM"]

LISTENERS = {
    "web": "",
    "tls": 'certificate = "tls.pem"',
    "proxied": 'proxy_protocol = true\nproxy_from = ["127.0.0.1"]',
    "unproxied": 'proxy_protocol = true\nproxy_from = ["10.0.0.0/8"]',
    "trusted": 'trusted_proxies = ["127.0.0.1"]',
    "untrusted": 'trusted_proxies = ["10.0.0.0/8"]',
}
"""Listeners of the pool under attack, with what each is set to."""

LIMITS = """
threads = 4
max_connections = 200
max_body = "1MiB"
header_timeout = "2s"
body_timeout = "2s"
send_timeout = "2s"
keepalive_timeout = "4s"
"""

_TABLE = """
import re, ssl, threading
WEB, TLS, PROXIED, UNPROXIED, TRUSTED, UNTRUSTED = map(int, sys.argv[1:7])
GET = b"GET / HTTP/1.1\\r\\nHost: a\\r\\n\\r\\n"
SMUGGLED = b"GET /smuggled HTTP/1.1\\r\\nHost: a\\r\\n\\r\\n"
CHUNKED = b"POST /echo HTTP/1.1\\r\\nHost: a\\r\\nTransfer-Encoding: chunked\\r\\n\\r\\n"
PATIENCE = 60
'''Seconds within which a connection is ended whose limit is 2 or 4 s, on a busy machine.'''

def connect(port=WEB):
    sock = socket.create_connection(("127.0.0.1", port), PATIENCE)
    return sock

def reset(sock):
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()

def put(sock, data):
    '''Whether all of it was taken.'''
    try:
        sock.sendall(data)
    except OSError:
        return False
    return True

def rest(sock, enough=1 << 24):
    '''What comes until the end. A connection that stays open is an error.'''
    got = bytearray()
    try:
        while len(got) < enough and (more := sock.recv(65536)):
            got += more
    except TimeoutError:
        raise
    except OSError:  # it ends with a reset, or an alert of TLS
        pass
    sock.close()
    return bytes(got)

def asked(data, port=WEB):
    '''All that is answered to this on a connection whose sending side is closed then.'''
    sock = connect(port)
    put(sock, data)
    try:
        sock.shutdown(socket.SHUT_WR)
    except OSError:
        pass
    return rest(sock)

def answers(got):
    return re.findall(rb"HTTP/1.1 (\\d+) ", got)

def told(port, *fields, before=b""):
    '''What the application is told of the client, as a map; None if it was not asked.'''
    head = "\\r\\n".join(["GET /told HTTP/1.1", "Host: shop", "Connection: close", *fields, "", ""]).encode("latin-1")
    got = asked(before + head, port)
    if answers(got) != [b"200"]:
        must(answers(got) in ([b"400"], []), f"{fields}: {got[:200]}")
        return None
    return dict(line.split("=", 1) for line in got.partition(b"\\r\\n\\r\\n")[2].decode().splitlines())

def at_once(*acts):
    threads = [threading.Thread(target=act) for act in acts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

def is_open(sock):
    return sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1) == b"\\x01"  # TCP_ESTABLISHED

def crowd(count, data, port=WEB, more=b""):
    '''So many connections send this, and more of it now and then, and read nothing: time alone must end each.'''
    peers = [connect(port) for _ in range(count)]
    for peer in peers:
        put(peer, data)
    until = time.monotonic() + PATIENCE
    while (still := [peer for peer in peers if is_open(peer)]) and time.monotonic() < until:
        time.sleep(0.2)
        for peer in still:
            put(peer, more)
    must(not still, f"{len(still)} of {count} that sent {data[:30]} are still connected")

# -- TLS ------------------------------------------------------------------------------------------------------------

def tls__garbage(dice):
    for data in (*NO_TLS, dice.randbytes(5000)):
        must(b"200 OK" not in (got := asked(data, TLS)), f"{data[:20]}: {got[:100]}")

def secured():
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context.wrap_socket(connect(TLS), server_hostname="shop.example")

def tls__handshakes_and_resets(dice):
    for _ in range(20):
        peer = secured()
        reset(peer)
    tried.append("handshakes")

def tls__ends_without_a_word(dice):
    for data in (GET, GET[:20], CHUNKED + b"5\\r\\nab"):
        peer = secured()
        peer.sendall(data)
        socket.socket(fileno=os.dup(peer.fileno())).shutdown(socket.SHUT_WR)
        must(b"whole=" not in rest(peer), "half a request is answered as a whole")

def tls__garbage_after_the_handshake(dice):
    for _ in range(20):
        peer = secured()
        raw = socket.socket(fileno=os.dup(peer.fileno()))
        raw.settimeout(PATIENCE)
        put(raw, dice.randbytes(2000))
        must(b"200 OK" not in rest(raw), "garbage is answered")
        peer.close()

# -- slow peers -----------------------------------------------------------------------------------------------------

BIG = b"GET /big HTTP/1.1\\r\\nHost: a\\r\\n\\r\\n"

SLOW = (  # listener, what is sent, and what is sent of it now and then
    (WEB, b"", b""),
    (WEB, GET, b""),
    (WEB, b"GET / HTTP/1.1\\r\\nX: ", b"x"),
    (WEB, b"POST /echo HTTP/1.1\\r\\nHost: a\\r\\nContent-Length: 100000\\r\\n\\r\\n", b""),
    (WEB, CHUNKED + b"5\\r\\nab", b""),
    (WEB, CHUNKED + b"0\\r\\nX: ", b""),
    (PROXIED, b"PROXY TCP4 1.2.3.4", b"4"),
    (TLS, HELLO[:40], b""),
    (TLS, HELLO[:5], b"\\x01"),
)

def slow__of_each_kind(dice):
    at_once(*(lambda row=row: crowd(25, row[1], row[0], row[2]) for row in SLOW))

def slow__readers(dice):
    crowd(10, BIG)

# -- half-closed ----------------------------------------------------------------------------------------------------

def half__after_the_request(dice):
    for count in (1, 2, 50):
        must(answers(asked(GET * count)) == [b"200"] * count, f"{count} requests before a half-close")

def half__anywhere(dice):
    whole = b"POST /echo HTTP/1.1\\r\\nHost: a\\r\\nContent-Length: 5\\r\\n\\r\\nhello"
    for cut in range(len(whole)):
        must(b"whole=" not in (got := asked(whole[:cut])), f"cut at {cut}: {got[:100]}")
    must(b"whole=5" in asked(whole), "the whole is answered")

def half__in_a_chunked_body(dice):
    whole = CHUNKED + b"5\\r\\nhello\\r\\n0\\r\\n\\r\\n"
    for cut in range(len(whole)):
        must(b"whole=" not in (got := asked(whole[:cut])), f"cut at {cut}: {got[:100]}")

def half__resets(dice):
    for data in (b"", GET[:9], GET, BIG, CHUNKED + b"5\\r\\nab", GET * 100):
        for _ in range(20):
            peer = connect()
            put(peer, data)
            reset(peer)
    tried.append("resets")

# -- pipelines ------------------------------------------------------------------------------------------------------

def pipeline__twenty_thousand(dice):
    peer = connect()
    last = GET.replace(b"Host", b"Connection: close\\r\\nHost")
    sender = threading.Thread(target=put, args=(peer, GET * 19_999 + last))
    sender.start()
    got = rest(peer, 1 << 26)
    sender.join()
    must(answers(got) == [b"200"] * 20_000, f"{len(answers(got))} answers")

def pipeline__unread(dice):
    peers = [connect() for _ in range(5)]
    for peer in peers:
        peer.settimeout(0.1)
        put(peer, GET * 200_000)
    tried.append("unread")

def pipeline__behind_an_error(dice):
    for bad in (b"GET / HTTP/1.1\\r\\n\\r\\n", b"x\\r\\n\\r\\n", b"GET  / HTTP/1.1\\r\\nHost: a\\r\\n\\r\\n"):
        must(answers(got := asked(GET + bad + SMUGGLED)) == [b"200", b"400"], f"{bad}: {got[:200]}")

# -- dear requests, and those without an end ------------------------------------------------------------------------

def dear__chunks(dice):
    must(answers(asked(CHUNKED + b"1\\r\\nx\\r\\n" * 60_000 + b"0\\r\\n\\r\\n")) != [b"500"], "chunks")

def dear__heads(dice):
    for fields, statuses in (
        (b"".join(b"X-%d: y\\r\\n" % number for number in range(5000)), (b"431",)),
        (b"X: " + b"y" * 1_000_000 + b"\\r\\n", (b"431",)),
        (b"X" * 1_000_000 + b": y\\r\\n", (b"431",)),
        (b"Cookie: " + b"a=b; " * 1500 + b"\\r\\n", (b"200", b"431")),
        (b"Accept: " + b"," * 7000 + b"\\r\\n", (b"200", b"431")),
        (b"X-Forwarded-For: " + b"1.2.3.4, " * 800 + b"5.6.7.8\\r\\n", (b"200", b"400", b"431")),
        (b"Forwarded: " + b"for=a;" * 1200 + b"\\r\\n", (b"200", b"400", b"431")),
        (b"Range: bytes=" + b"0-0," * 1500 + b"1-1\\r\\n", (b"200", b"431")),
    ):
        for port in (WEB, TRUSTED):
            got = answers(asked(b"GET / HTTP/1.1\\r\\nHost: a\\r\\n" + fields + b"\\r\\n", port))
            must(got in [[one] for one in statuses] or got == [], f"{fields[:20]}: {got}")

def dear__targets(dice):
    for target in (b"/" + b"a" * 1_000_000, b"/" + b"%41" * 300_000, b"/?" + b"&" * 500_000, b"/" + b"../" * 300_000):
        must(b"200" not in answers(asked(b"GET " + target + b" HTTP/1.1\\r\\nHost: a\\r\\n\\r\\n")), f"{target[:9]}")

def endless(begin, piece):
    '''Sent until the server has had enough: at most 64 MiB, of which far less may be taken.'''
    peer, sent = connect(), len(begin)
    put(peer, begin)
    while sent < 1 << 26 and put(peer, piece):
        sent += len(piece)
    must(sent < 1 << 26, f"{begin[:30]} {piece[:10]}: all was taken")
    peer.settimeout(0.5)
    try:
        got = peer.recv(1000)
    except OSError:
        got = b""
    must(b"200" not in answers(got), f"{begin[:30]} {piece[:10]}: answered")

ENDLESS = (  # what begins, and what never ends
    (CHUNKED + b"5;a=", b"x" * 65536),
    (CHUNKED + b'5;a="', b"x\\\\\\"" * 30000),
    (CHUNKED, b"1;a=" + b"x" * 60 + b"\\r\\ny\\r\\n"),
    (CHUNKED, b"0" * 65536),
    (CHUNKED, b"10000\\r\\n" + bytes(65536) + b"\\r\\n"),
    (CHUNKED + b"0\\r\\n", b"X: y\\r\\n" * 5000),
    (CHUNKED + b"0\\r\\nX: ", b"y" * 65536),
    (b"GET / HTTP/1.1\\r\\n", b"X: y\\r\\n" * 5000),
    (b"GET /", b"y" * 65536),
    (b"", b"\\r\\n" * 30000),
)

def endless__of_each_kind(dice):
    at_once(*(lambda row=row: endless(*row) for row in ENDLESS))

# -- floods ---------------------------------------------------------------------------------------------------------

def flood__connections(dice):
    for _ in range(2000):
        connect().close()
    tried.append("connections")

def flood__resets(dice):
    for _ in range(1000):
        peer = connect()
        reset(peer)
    tried.append("resets")

def flood__silent_ones(dice):
    '''More than all workers have room for.'''
    held = [connect() for _ in range(600)]
    time.sleep(0.5)
    for peer in held:
        peer.close()
    tried.append("silent")

def flood__answers_to_the_dead(dice):
    for _ in range(100):
        peer = connect()
        put(peer, BIG)
        peer.close()
    tried.append("big answers")
"""

PROGRAM = DICE + ATTEMPTS + ODD_BYTES + _TABLE + READINGS

ABUSES = abuses_of(_TABLE + READINGS)
