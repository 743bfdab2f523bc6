"""A hostile viewer at the control socket: a table of channel × abuse, each a function of one program.

To add an abuse, add a function `CHANNEL__ABUSE(dice)` to the text below; `test_viewers.py` tries each alone. Arguments
of the program: the path of the socket, then what must never be read. Claims nothing.

What has a test of its own is not here: frames of all kinds against one server (tests/daemon/control/test_bounds.py),
random messages (test_fuzz.py), queries and passwords in deaths (tests/system/test_viewers.py).
"""

from __future__ import annotations

from tests.hostile.attackers import ATTEMPTS, DICE, PEER, abuses_of

__all__ = ["ABOVE", "ABUSES", "PROGRAM"]

ABOVE = (
    "scale", "reload", "rollback", "recycle", "pause", "resume", "reopen", "upgrade", "stop", "dump", "op.cancel",
    "config",
)  # fmt: skip
"""Commands that a viewer may not give."""

_TABLE = """
import threading
PATH, SECRETS = sys.argv[1], [text.encode() for text in sys.argv[2:]]
QUERIES = ("ping", "status", "workers", "why", "op.list", "history")

def ends(what, data):
    '''A frame that must be answered by one error and the end.'''
    with seat(PATH) as peer:
        peer.send(data)
        got = peer.rest()
        must(b"bad_frame" in got and b"result" not in got, f"answered {what}: {got[:200]}")

def answered():
    '''It still is a viewer like any other.'''
    with seat(PATH) as peer:
        must(b"result" in peer.ask("ping"), "a good request is answered")

# -- frames ---------------------------------------------------------------------------------------------------------

def frame__lengths(dice):
    for length in (65537, 1 << 24, 1 << 31, (1 << 32) - 1):
        ends(f"a length of {length}", length.to_bytes(4, "big") + b"\\x81" * 1000)
    ends("no length", bytes(8))

def frame__claims_of_more_than_there_is(dice):
    for claim in (b"\\xdd", b"\\xdf", b"\\xdb", b"\\xc6"):
        ends(f"a claim {claim}", framed(b"\\x81\\xa1a" + claim + b"\\xff" * 4))
    ends("a map of 2^32", framed(b"\\xdf\\xff\\xff\\xff\\xff"))

def frame__depth(dice):
    for opener in (b"\\x91", b"\\x81\\xa1a"):
        ends("depth", framed(b"\\x81\\xa1a" + opener * (60_000 // len(opener)) + b"\\xc0"))

def frame__numbers(dice):
    for number in (0, -1, 2**53 + 1, 2**64 - 1, -(2**63), True, None, "1", []):
        ends(f"an id {number}", request("ping", number))

def frame__no_numbers(dice):
    for octets in ("7ff8000000000000", "7ff0000000000000", "fff0000000000000"):
        ends("a float that is no number", request("op.wait", id=1, timeout=b"\\xcb" + bytes.fromhex(octets)))

def frame__absurd_arguments(dice):
    with seat(PATH) as peer:
        for args in (
            {"limit": 2**63}, {"limit": -1}, {"limit": 0.5}, {"limit": []}, {"offset": True}, {"pool": 1},
            {"pool": "x" * 9000}, {"pool": "../../etc/passwd"}, {"worker": "\\x1b[2J"}, {"no": "argument"},
        ):
            must(b"bad_args" in (got := peer.ask("workers", **args)) or b"no_such" in got, f"{args}: {got[:200]}")

def frame__keys_twice(dice):
    twice = pack("method") + pack("ping") + pack("method") + pack("stop")
    ends("a key twice", framed(b"\\x84" + pack("type") + pack("req") + pack("id") + pack(1) + twice))

def frame__no_text(dice):
    ends("a text that is none", framed(b"\\x81\\xa2\\xff\\xfe\\xc0"))
    ends("a surrogate", request("ping", lone="\\ud800"))
    ends("an extension", framed(b"\\x81\\xa1a\\xd4\\x01\\x00"))
    ends("a timestamp", framed(b"\\x81\\xa1a\\xd6\\xff\\x00\\x00\\x00\\x00"))

def frame__other_protocols(dice):
    for data in (b"GET / HTTP/1.1\\r\\nHost: a\\r\\n\\r\\n", b"\\x16\\x03\\x01\\x02\\x00\\x01", b'{"type":"req"}'):
        ends(data, data)

def frame__halves(dice):
    whole = request("stop", now=True)
    for _ in range(10):
        with seat(PATH) as peer:
            peer.send(whole[: 1 + dice.randrange(len(whole) - 1)])
    tried.append("halves")

def frame__half_closed(dice):
    for data in (request("ping")[:-1], request("stop")[:-1]):
        with seat(PATH) as peer:
            peer.send(data)
            peer.sock.shutdown(socket.SHUT_WR)
            must(b"result" not in peer.rest(), "half a request is answered")

def frame__byte_by_byte(dice):
    with seat(PATH) as peer:
        for octet in request("ping"):
            peer.send(bytes([octet]))
        must(b"result" in peer.frame(), "a request of single bytes is answered")

# -- floods ---------------------------------------------------------------------------------------------------------

def flood__pipelined(dice):
    with seat(PATH) as peer:
        sender = threading.Thread(target=peer.send, args=(request("ping") * 3000,))
        sender.start()
        must(sum(b"result" in peer.frame() for _ in range(3000)) == 3000, "each is answered")
        sender.join()

def flood__unread(dice):
    with seat(PATH) as peer:
        peer.sock.settimeout(1)
        peer.send(request("why", all=True, limit=100) * 5000)  # it is not read beyond some answers, so this ends early
    answered()

def flood__answers_to_the_dead(dice):
    for _ in range(20):
        with seat(PATH) as peer:
            peer.send(request("status") * 50)
    answered()

def flood__seats(dice):
    held, refusals = [], 0
    for _ in range(60):
        peer = Peer(PATH)
        refusals += b"busy" in peer.hello
        held.append(peer)
    must(refusals >= 60 - 16, f"of 60 connections {refusals} were refused")
    for peer in held:
        peer.sock.close()

def flood__connections(dice):
    for _ in range(1500):
        with socket.socket(socket.AF_UNIX) as peer:
            peer.connect(PATH)
    answered()

def flood__waiting(dice):
    with seat(PATH) as peer:
        for number in range(1, 200):
            peer.send(request("op.wait", number, id=2**50 + number))
        for _ in range(199):
            must(b"err" in peer.frame(), "an operation that is none is waited for")

def flood__ids_again(dice):
    with seat(PATH) as peer:
        peer.send(request("watch", 7, since=-1) + request("watch", 7, since=-1) + request("ping", 8))
        got = b"".join(peer.frame() for _ in range(3))
        must(b"err" in got and b"result" in got, "an id in use is taken again")

# -- orders above its role ------------------------------------------------------------------------------------------

def order__above_its_role(dice):
    for method in ABOVE:
        for args in ({}, {"pool": "other"}, {"id": 1}, {"pool": "other", "size": 0}, {"now": True}, {"check": True}):
            with seat(PATH) as peer:
                got = peer.ask(method, **args)
                must(b"permission" in got or b"bad_args" in got, f"{method} {args}: {got[:200]}")
                must(b"result" not in got, f"{method} {args} has a result")

def order__other_spellings(dice):
    for method in ("STOP", "Stop", " stop", "stop ", "stop\\0", "op_cancel", "op.cancel.", "__class__", "", "x" * 65):
        with seat(PATH) as peer:
            got = peer.ask(method, id=1)
            must(b"result" not in got, f"{method!r}: {got[:200]}")

def order__claims_a_role(dice):
    for more in ({"role": "admin"}, {"uid": 0}, {"peer": {"role": "admin", "uid": 0}}, {"actor": "root"}):
        with seat(PATH) as peer:
            peer.send(framed(pack({"type": "req", "id": 1, "method": "stop", "args": {}, **more})))
            must(b"result" not in (got := peer.frame()), f"{more}: {got[:200]}")
        with seat(PATH) as peer:
            must(b"result" not in (got := peer.ask("stop", **more)), f"{more}: {got[:200]}")

def order__cancels_others(dice):
    '''Operations 1 to 20, by what cancels an operation and by what takes a request back.'''
    with seat(PATH) as peer:
        for number in range(1, 21):
            must(b"permission" in (got := peer.ask("op.cancel", id=number)), f"op.cancel {number}: {got[:200]}")
            peer.send(framed(pack({"type": "cancel", "id": number})))
        must(b"result" in (got := peer.ask("ping")), f"a request that is none is taken back: {got[:200]}")

def order__the_key_of_another(dice):
    '''An admin has given an order with this key.'''
    with seat(PATH) as peer:
        asked = {"type": "req", "id": 1, "method": "scale", "args": {"pool": "other", "size": 2}, "idem": "of-an-admin"}
        peer.send(framed(pack(asked)))
        must(b"permission" in (got := peer.frame()) and b"result" not in got, f"the answer of another: {got[:200]}")

# -- watching -------------------------------------------------------------------------------------------------------

def watch__unread(dice):
    held = [seat(PATH) for _ in range(8)]
    for peer in held:
        peer.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
        peer.send(request("watch"))
    time.sleep(0.5)
    for peer in held:
        peer.sock.close()
    answered()

def watch__again_and_again(dice):
    with seat(PATH) as peer:
        for number in range(1, 300):
            peer.send(request("watch", number, since=-1) + framed(pack({"type": "cancel", "id": number})))
        peer.send(request("ping", 1000))
        peer.sock.shutdown(socket.SHUT_WR)
        must(b"result" in peer.rest(), "watches are answered")

def watch__absurd(dice):
    with seat(PATH) as peer:
        for args in ({"since": -2}, {"since": 2**60}, {"topics": ["secrets"]}, {"topics": [1]}, {"topics": "x"}):
            must(b"bad_args" in (got := peer.ask("watch", **args)), f"{args}: {got[:200]}")
        must(b"result" in peer.ask("ping"), "it is answered")

# -- what it must not read ------------------------------------------------------------------------------------------

def secret__in_no_answer(dice):
    '''Of `env`, query strings, cookies, passwords, tracebacks, what applications print: all a viewer can ask for.'''
    got = b""
    with seat(PATH) as peer:
        for method in QUERIES:
            got += peer.ask(method)
        for args in ({"all": True, "limit": 100}, {"pool": "web"}, {"pool": "other"}):
            got += peer.ask("why", **args)
        for number in range(1, 12):
            got += peer.ask("op.show", id=number) + peer.ask("op.wait", id=number, timeout=b"\\xcb" + bytes(8))
        for method in ABOVE:
            got += peer.ask(method)
    must(len(got) > 5000 and b"web" in got, f"answers of {len(got)} bytes")
    with seat(PATH) as peer:
        peer.send(request("watch"))
        for _ in range(50):  # the former ones come at once, and there are more of them
            got += peer.frame()
    must(got.count(b"topic") >= 49, "events come")
    for secret in SECRETS:
        must(secret not in got, f"{secret} at {got[max(0, got.find(secret) - 300):][:400]}")

def secret__in_no_error(dice):
    '''Refusals name what was asked for, and nothing that is there.'''
    with seat(PATH) as peer:
        got = b"".join(peer.ask("why", worker=name) for name in ("env", "TOKEN", "other/1#1", "1", "/proc/environ"))
    for secret in SECRETS:
        must(secret not in got, secret)

def escape__in_every_text(dice):
    '''Nothing of it may steer the terminal of an admin who reads the log: the test reads that.'''
    bad = "\\x1b]0;owned\\x07\\x1b[2J\\r\\n2026-01-01 00:00:00.000 ERROR forged\\x9b\\u202e"
    for message in ({"method": bad}, {"type": bad}, {"args": {bad: 1}}, {"args": {"pool": bad}}, {"idem": bad}):
        with seat(PATH) as peer:
            peer.send(framed(pack({"type": "req", "id": 1, "method": "workers", "args": {}, **message})))
            must(b"result" not in (got := peer.frame()) or "idem" in message, f"{message}: {got[:200]}")
"""

PROGRAM = f"ABOVE = {ABOVE!r}\n" + DICE + ATTEMPTS + PEER + _TABLE

ABUSES = abuses_of(_TABLE)
