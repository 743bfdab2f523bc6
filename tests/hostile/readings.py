"""What a hostile network client sends to be read in two ways, or to be taken for another: the rest of the table of
clients.py, with what its abuses choose from. Claims nothing.
"""

from __future__ import annotations

__all__ = ["ODD_BYTES", "READINGS"]

ODD_BYTES = r"""
HELLO = bytes.fromhex("16030100c8010000c40303") + bytes(32)
NO_TLS = (
    b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", bytes(5000),
    b"\x16\x03\x01\xff\xff" + bytes(70000), b"\x16\x03\x01\0\0" * 2000,
    b"\x15\x03\x03\0\x02\x02\x28" * 500, b"\x17\x03\x03\0\x10" + bytes(16), b"\x14\x03\x03\0\x01\x01" * 500,
    b"\x80\x2e\x01\0\x02" + bytes(50), HELLO + bytes(1000), b"\x18\x03\x02\0\x03\x01\x40\0",
)
FRAMES = '''
Content-Length: 5|Transfer-Encoding: chunked
Transfer-Encoding: chunked|Content-Length: 5
Content-Length: 5|Content-Length: 6
Content-Length: 5|Content-Length: 5
Content-Length: 5, 6
Content-Length: 5, 5
Content-Length: +5
Content-Length: -5
Content-Length: 0x5
Content-Length: 5e0
Content-Length: 0_5
Content-Length: 5;
Content-Length:
Content-Length : 5
Content-Length\\t: 5
Content-Length: 5\\x0b
Content_Length: 5|Transfer-Encoding : chunked
Transfer-Encoding: xchunked
Transfer-Encoding: chunked, identity
Transfer-Encoding: identity
Transfer-Encoding: identity, chunked
Transfer-Encoding: chunked, chunked
Transfer-Encoding: chunked|Transfer-Encoding: chunked
Transfer-Encoding: chunked|Transfer-Encoding: identity
Transfer-Encoding: chunked;a=b
Transfer-Encoding: "chunked"
Transfer-Encoding: \\x0bchunked
Transfer-Encoding: chunked\\x0c
Transfer-Encoding: gzip, chunked
Transfer-Encoding:|  chunked
Transfer-Encoding|: chunked
Transfer-Encoding : chunked
Transfer-Encoding\\x00: chunked
Transfer-Encoding: chunked\\x00
Transfer-Encoding: chun\\x00ked
Transfer-Encoding: chunk
Transfer-Encoding:
X: y\\rTransfer-Encoding: chunked
X: y\\nTransfer-Encoding: chunked
X: y|\\x0bTransfer-Encoding: chunked
X: y| Transfer-Encoding: chunked
\\x00Transfer-Encoding: chunked
Host: b|Content-Length: 5
'''
BODIES = (
    b"5 \r\nhello\r\n0\r\n\r\n", b"5\nhello\r\n0\r\n\r\n", b"5\r\nhello\n0\r\n\r\n", b"+5\r\nhello\r\n0\r\n\r\n",
    b"0x5\r\nhello\r\n0\r\n\r\n", b"5\r\nhelloXX0\r\n\r\n", b"5;a\rb\r\nhello\r\n0\r\n\r\n", b"5\r\nhello\r\n0\n\n",
    b"ffffffffffffffff5\r\nhello\r\n0\r\n\r\n", b"\r\n0\r\n\r\n", b"-0\r\n\r\n", b"0\r\nContent-Length: 0\n\n\r\n",
)
LINES = (
    b"GET / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked", b"CONNECT a:80 HTTP/1.1\r\nHost: a",
    b"GET /\r\nHost: a",
    b"PRI * HTTP/2.0\r\nHost: a", b"GET /a HTTP/1.1 HTTP/1.1\r\nHost: a", b"GET /\tHTTP/1.1\r\nHost: a",
)
V1 = b"PROXY TCP4 6.6.6.6 1.1.1.1 1 80\r\n"
_V2 = b"\r\n\r\n\0\r\nQUIT\n"
V2 = _V2 + b"\x21\x11\0\x0c\x06\x06\x06\x06\x01\x01\x01\x01\0\x01\0\x50"
NO_PROXY = (
    b"", b"PROXY\r\n", b"PROXY TCP4\r\n", b"PROXY TCP4 a b c d\r\n", b"PROXY " + b"x" * 200 + b"\r\n",
    b"PROXY TCP4 6.6.6.6 1.1.1.1 1 65536\r\n", b"PROXY TCP5 6.6.6.6 1.1.1.1 1 80\r\n", V1[:-2] + b"\n", V1[1:],
    b"proxy TCP4 6.6.6.6 1.1.1.1 1 80\r\n", b"PROXY TCP4 06.6.6.6 1.1.1.1 1 80\r\n", b"PROXY TCP4 ::1 ::1 1 80\r\n",
    b"PROXY TCP4  6.6.6.6 1.1.1.1 1 80\r\n", _V2 + b"\x31" + V2[13:], _V2 + b"\x22" + V2[13:],
    _V2 + b"\x21\x11\0\x04" + V2[16:], _V2 + b"\x21\x11\xff\xff", _V2 + b"\x21\x99" + V2[14:],
    V1 + V1, V2 + V2, V1 + V2,
)
FORWARDED = '''
X-Forwarded-For: 6.6.6.6
X-Forwarded-For: 127.0.0.1
X-Forwarded-For: unix:
X-Forwarded-Proto: https
X-Forwarded-Host: evil.example
X-Forwarded-Prefix: /evil
X-Forwarded-Port: 1
X-Forwarded-Ssl: on
X-Real-IP: 6.6.6.6
X-Scheme: https
Forwarded: for=6.6.6.6;proto=https;host=evil.example
Forwarded: for="[::1]"
X_Forwarded_For: 6.6.6.6
X_Forwarded_Proto: https
Remote_Addr: 6.6.6.6
Remote-Addr: 6.6.6.6
Script-Name: /evil
Wsgi.Url-Scheme: https
Https: on
'''.strip().splitlines()
BEFORE = (
    "6.6.6.6", "127.0.0.1", "127.0.0.1, 127.0.0.1", "unknown", "", '"', "6.6.6.6\t", "<script>", "::1", "6.6.6.6:99999",
    "," * 50,
)
"""

READINGS = r"""
# -- requests that two servers would read in two ways ---------------------------------------------------------------

def smuggle__frames(dice):
    '''By one reading the body ends before a second request, by another it does not: that is never served.'''
    for frame in FRAMES.strip().splitlines():
        fields = frame.encode().decode("unicode_escape").replace("|", "\r\n").encode("latin-1")
        got = asked(b"POST /echo HTTP/1.1\r\nHost: a\r\n" + fields + b"\r\n\r\n0\r\n\r\n" + SMUGGLED)
        must(b"smuggled" not in got and answers(got) in ([b"400"], [b"501"]), f"{fields}: {answers(got)}")

def smuggle__bodies(dice):
    for body in BODIES:
        got = asked(CHUNKED + body + SMUGGLED)
        must(answers(got) == [b"400"] and b"smuggled" not in got, f"{body}: {answers(got)}")

def smuggle__lines(dice):
    for line in LINES:
        got = asked(line + b"\r\n\r\n0\r\n\r\n" + SMUGGLED)
        must(b"smuggled" not in got and b"200" not in answers(got), f"{line}: {answers(got)}")

# -- proxies that are none ------------------------------------------------------------------------------------------

def proxy__where_none_is_expected(dice):
    for header in (V1, V2):
        for port in (WEB, TRUSTED, UNTRUSTED, TLS):
            must(b"200" not in answers(got := asked(header + GET, port)), f"{header}: {got[:100]}")

def proxy__from_a_stranger(dice):
    for header in (V1, V2, b""):
        must(asked(header + GET, UNPROXIED) == b"", f"{header} of a stranger")

def proxy__malformed(dice):
    for header in NO_PROXY:
        must(b"200" not in answers(got := asked(header + GET, PROXIED)), f"{header}: {got[:100]}")

def proxy__and_the_client_behind_it(dice):
    '''Its header is believed; what the client itself says of its address, behind it, is not.'''
    for header in (V1, V2):
        of = told(PROXIED, "X-Forwarded-For: 7.7.7.7", "Forwarded: for=7.7.7.7;proto=https", before=header)
        must(of is not None and (of["addr"], of["scheme"]) == ("6.6.6.6", "http"), f"{header}: {of}")

def forward__from_a_stranger(dice):
    for port in (WEB, UNTRUSTED):
        for field in FORWARDED:
            of = told(port, field)
            plain = {"addr": "127.0.0.1", "scheme": "http", "host": "shop", "script": ""}
            must(of is None or {**of, **plain} == of, f"{field}: {of}")

def forward__words_before_the_proxys_own(dice):
    '''What a client has sent through a proxy, which adds the client's own address behind it.'''
    for before in BEFORE:
        for own in (", ", "\r\nX-Forwarded-For: "):
            fields = f"X-Forwarded-For: {before}{own}7.7.7.7".split("\r\n")
            of = told(TRUSTED, *fields)
            must(of is not None and of["addr"] == "7.7.7.7", f"{fields}: {of}")

def forward__other_families_through_a_proxy(dice):
    for field in FORWARDED:
        if not field.startswith("X-Forwarded"):
            of = told(TRUSTED, field, "X-Forwarded-For: 7.7.7.7", "X-Forwarded-Proto: http")
            same = of is None or (of["addr"], of["scheme"], of["script"]) == ("7.7.7.7", "http", "")
            must(same and (of is None or "6.6.6.6" not in of["chain"]), f"{field}: {of}")
"""
