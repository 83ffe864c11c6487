"""What rules take, one table: for our own matchers, and for the real Traefik, which the same requests are sent to.

`traefik` is what Traefik does where that is something else: takes it or not, refuses the request (a status), or
refuses the rule (None). Each of these is explained in docs/explanation/traefik-differences.md.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from attrs import frozen

from trio_wsb.addresses import IPAddress, parse_ip
from trio_wsb.http.forward import ForwardPolicy, believed_values
from trio_wsb.http.head import parse_request_head
from trio_wsb.routing.request import RequestView
from trio_wsb.routing.rules import parse_rule

Field = tuple[str, str]

LOOPBACK: Final = parse_ip("127.0.0.1")


@frozen
class Case:
    rule: str
    taken: bool
    traefik: bool | int | None
    target: str = "/"
    host: str = "example.com"
    fields: tuple[Field, ...] = ()
    method: str = "GET"

    def __str__(self) -> str:
        fields = "".join(f" {name}={value}" for name, value in self.fields)
        return f"{self.rule} <- {self.method} {self.host} {self.target}{fields}"

    @property
    def request(self) -> bytes:
        fields = "".join(f"{name}: {value}\r\n" for name, value in self.fields)
        return f"{self.method} {self.target} HTTP/1.1\r\nHost: {self.host}\r\n{fields}\r\n".encode("latin-1")

    def view(self, client: IPAddress | None = LOOPBACK) -> RequestView:
        """Return the request as a connection shows it to the rules."""
        head = parse_request_head(self.request)

        def believed(lower: str) -> list[str]:
            return believed_values(
                head,
                lower,
                upgrade=False,
                policy=ForwardPolicy(),
                peer=client,
                entry_scheme="http",
                entry_port=80,
            )

        return RequestView.of_request(head, client, believed)

    def decide(self) -> bool:
        return parse_rule(self.rule).matches(self.view())


def same(rule: str, yes: str = "", no: str = "") -> Iterator[Case]:
    """Yield cases of paths on which both agree, separated by spaces."""
    for taken, targets in ((True, yes), (False, no)):
        for target in targets.split():
            yield Case(rule, taken, taken, target)


def hosts(rule: str, yes: str = "", no: str = "") -> Iterator[Case]:
    for taken, names in ((True, yes), (False, no)):
        for name in names.split():
            yield Case(rule, taken, taken, host=name)


def fields(rule: str, taken: bool, *values: Field) -> Case:
    return Case(rule, taken, taken, fields=values)


def queries(rule: str, yes: str = "", no: str = "") -> Iterator[Case]:
    for case in same(rule, yes, no):
        yield Case(rule, case.taken, case.traefik, f"/?{case.target}")


def methods(rule: str, yes: str = "", no: str = "") -> Iterator[Case]:
    for case in same(rule, yes, no):
        yield Case(rule, case.taken, case.traefik, method=case.target)


def networks(yes: str = "", no: str = "") -> Iterator[Case]:
    """Yield cases of a client at 127.0.0.1."""
    for case in same("", yes, no):
        yield Case(f"ClientIP(`{case.target}`)", case.taken, case.traefik)


CASES: Final = [
    *hosts("Host(`example.com`)", "example.com EXAMPLE.com:8080 example.com.", "www.example.com example.org"),
    *hosts("Host(`Example.Com.`)", "example.com example.com.", "com"),
    *hosts("Host(`*.example.com`)", "www.example.com WWW.EXAMPLE.COM:1", "a.b.example.com example.com wwwexample.com"),
    *hosts("Host(`*`)", "x x.y.z 10.0.0.1 [::1]"),
    *hosts("Host(`10.0.0.1`)", "10.0.0.1:80", "10.0.0.2"),
    *hosts("Host(`::1`)", "[::1]:80 [::1]", "[::2]"),
    *hosts("Host(`a_b.example`)", "a_b.example"),
    *hosts(r"HostRegexp(`^.+\.example\.com$`)", "WWW.example.com:80 a.b.example.com", "example.com www.example.com.org"),
    *hosts("HostRegexp(`example`)", "anexample.org", "exam.ple"),
    *hosts("HostRegexp(`EXAMPLE`)", "", "EXAMPLE"),
    *hosts("HostRegexp(`(?i)EXAMPLE`)", "EXAMPLE"),
    *hosts("HostRegexp(`^::1$`)", "[::1]:80"),
    *hosts("HostRegexp(`^[a-z]{2}[.]example$`)", "de.example", "deu.example"),
    *same("Path(`/ws`)", "/ws /ws?token=1 //ws /%77s /%77%73 /x/../ws /./ws /x/%2e%2E/ws", "/ws/ /WS /ws-foo /ws%2F"),
    *same("Path(`/ws/`)", "/ws/ /ws// /ws/./ /ws/a/../", "/ws"),
    *same("Path(`/`)", "/ // /. /.. /a/.. /../.."),
    *same("Path(`/a b`)", "/a%20b", "/a+b"),
    *same("Path(`/a%2Fb`)", "/a%2Fb /a%2fb", "/a/b /a%252Fb"),
    *same("Path(`/a%252Fb`)", "/a%252Fb", "/a%2Fb"),
    *same("Path(`/a%2F..%2Fb`)", "/a%2F..%2Fb", "/b"),
    *same('Path(`/a"b`)', '/a%22b /a"b'),
    *same(r"Path(`/a\b`)", r"/a%5Cb /a\b"),
    *same("Path(`/a|b`)", "/a|b /a%7Cb"),
    *same("Path(`/a[b]`)", "/a[b]", "/a%5Bb%5D"),
    *same("Path(`/a;b`)", "/a;b", "/a%3Bb"),
    *same("Path(`/a'b`)", "/a'b", "/a%27b"),
    *same("Path(`/a%3Fb`)", "/a%3Fb", "/a?b"),
    *same("Path(`/a%25b`)", "/a%25b"),
    *same("Path(`/grün`)", "/gr%C3%BCn /gr%c3%bcn", "/gr%FCn"),
    *same("PathPrefix(`/ws`)", "/ws /ws/room /ws-foo /ws/ //ws/room", "/w /WS /x/ws"),
    *same("PathPrefix(`/`)", "/ /x /%00 /%0A"),
    *same("PathPrefix(`/public`)", "/public/x", "/public/../admin /public/%2e%2e/admin /public/..//admin"),
    *same("PathPrefix(`/.`)", "/.well-known", "/x"),
    *same("PathPrefix(`/a/..`)", "/a/..b", "/a/../b"),
    *same("PathRegexp(`room`)", "/x/rooms /room?x", "/ROOM /x?room"),
    *same("PathRegexp(`(?i)room`)", "/ROOM"),
    *same("PathRegexp(`^/a b$`)", "/a%20b"),
    *same("PathRegexp(`^/a%2Fb$`)", "/a%2Fb /a%2fb", "/a/b"),
    *same("PathRegexp(`^/gr.n$`)", "/gr%C3%BCn /gr%FFn", "/gr%0An"),
    *same("PathRegexp(`^/admin$`)", "/x/../admin //admin /%61dmin", "/admin/"),
    *same(r"PathRegexp(`\.php$`)", "/x.php /x.php?y", "/x.phps"),
    *same(r"PathRegexp(`^/\pL+$`)", "/gr%C3%BCn", "/1"),
    *same("PathRegexp(`^/[[:alpha:]]{3}$`)", "/abc", "/abcd"),
    *same(r"PathRegexp(`^/(?P<room>[^/]+)/ws\z`)", "/lobby/ws", "/ws /lobby/ws/x"),
    fields("Header(`X-A`, `b`)", True, ("x-a", "b")),
    fields("Header(`x-a`, `b`)", True, ("X-A", "  b ")),
    fields("Header(`X-A`, `b`)", True, ("X-A", "c"), ("X-A", "b")),
    fields("Header(`X-A`, `b`)", False, ("X-A", "c, b")),
    fields("Header(`X-A`, `b`)", False, ("X-A", "B")),
    fields("Header(`X-A`, `b`)", False, ("X-B", "b")),
    fields("Header(`X-A`, ` b`)", False, ("X-A", " b")),
    fields("Header(`X-A`, `grün`)", True, ("X-A", "gr\xc3\xbcn")),
    fields("Header(`X-A`, `grün`)", False, ("X-A", "gr\xfcn")),
    fields("Header(`Upgrade`, `websocket`)", True, ("Upgrade", "websocket")),
    fields("HeaderRegexp(`X-A`, `b`)", True, ("X-A", "abc")),
    fields("HeaderRegexp(`x-a`, `^b$`)", True, ("X-A", "a"), ("X-A", "b")),
    fields("HeaderRegexp(`X-A`, `^b$`)", False, ("X-A", "abc")),
    fields("HeaderRegexp(`X-A`, `.*`)", True, ("X-A", "")),
    fields("HeaderRegexp(`X-A`, `.*`)", False),
    fields("HeaderRegexp(`X-A`, `^gr.n$`)", True, ("X-A", "gr\xc3\xbcn")),
    fields("HeaderRegexp(`X-A`, `^gr.n$`)", True, ("X-A", "gr\xfcn")),
    # What a stranger says about itself is not believed; what we know is there.
    fields("Header(`X-Forwarded-Proto`, `https`)", False, ("X-Forwarded-Proto", "https")),
    fields("Header(`X-Forwarded-Proto`, `http`)", True),
    fields("Header(`X-Forwarded-For`, `10.0.0.1`)", False, ("X-Forwarded-For", "10.0.0.1")),
    fields("HeaderRegexp(`X-Forwarded-For`, `.`)", False),
    fields("Header(`X-Forwarded-Host`, `example.com`)", True),
    fields("Header(`X-Real-Ip`, `10.0.0.1`)", False, ("X-Real-Ip", "10.0.0.1")),
    fields("Header(`X-Real-Ip`, `127.0.0.1`)", True),
    fields("Header(`X_Forwarded_For`, `10.0.0.1`)", False, ("X_Forwarded_For", "10.0.0.1")),
    *queries("Query(`a`, `b`)", "a=b a=c&a=b a=%62 %61=b a=b&c=%zz c=%zz&a=b a=b;c=d x&&a=b", "A=b a=B a b=a a=b%"),
    *queries("Query(`a`)", "a a= a&& a=b&a=", "a=b b"),
    *queries("Query(`a b`, `c d`)", "a+b=c%20d a%20b=c+d", "ab=cd"),
    *queries("Query(`a`, `+`)", "a=%2B", "a=+"),
    *queries("Query(`a`, `b=c`)", "a=b=c a=b%3Dc", "a=b"),
    *queries("Query(`a`, `b;c`)", "a=b%3Bc", "a=b;c"),
    *queries("Query(`a`, `grün`)", "a=gr%C3%BCn", "a=gr%FCn"),
    *queries("QueryRegexp(`a`, `b`)", "a=abc a=x&a=b", "a=x b=b"),
    *queries("QueryRegexp(`a`, `^b.$`)", "a=bc a=b%FF", "a=b"),
    *queries("QueryRegexp(`a`)", "a a=", "a=b"),
    *methods("Method(`GET`)", "GET", "HEAD get POST"),
    *methods("Method(`get`)", "GET", "get"),
    *methods("Method(`PURGE`)", "PURGE", "GET"),
    *networks(
        "127.0.0.1 127.0.0.0/8 127.1.2.3/8 0.0.0.0/0 ::ffff:127.0.0.1 ::ffff:127.0.0.0/104",
        "127.0.0.2 10.0.0.0/8 ::1 ::/0",
    ),
    *same("Path(`/x`) && Path(`/y`) || Path(`/z`)", "/z", "/x"),
    *same("Path(`/z`) || Path(`/x`) && Path(`/y`)", "/z", "/x"),
    *same("(Path(`/z`) || Path(`/x`)) && !Host(`example.com`)", "", "/z /x"),
    *same("!(Path(`/x`) && Host(`example.com`))", "/y", "/x"),
    *same("!(Path(`/x`) || Path(`/y`))", "/z", "/x /y"),
    *same("!!Path(`/x`)", "/x", "/y"),
    *same("!Header(`X-A`, `b`)&&\nPATHPREFIX( `/` )", "/"),
    *same(r'Path("/a\"b") || PathRegexp("^/\\d$")', "/a%22b /7", "/x"),
    # From here on the two differ.
    Case("Host(`[::1]`)", True, False, host="[::1]"),
    Case(r"HostRegexp(`^www\.example\.com$`)", True, False, host="www.example.com."),
    Case("Path(`/a%20b`)", True, False, "/a%20b"),
    Case("Path(`/a%2fb`)", True, False, "/a%2Fb"),
    Case("Path(`/%61`)", True, False, "/a"),
    Case("Path(`/a/`)", True, False, "/a/b/.."),
    Case("Path(`/a`)", False, True, "/a/b/.."),
    Case("Path(`/a%2Fb|c`)", True, False, "/a%2Fb|c"),
    Case("Path(`/a/b|c`)", False, True, "/a%2Fb|c"),
    Case("PathPrefix(`/`)", True, 400, "/100%"),
    Case("Path(`/100%`)", True, 400, "/100%"),
    Case("PathPrefix(`/`)", False, 200, "*", method="OPTIONS"),
    Case("pathPREFIX(`/`)", True, None),
    Case("Path(`/`)\n&& Host(`example.com`)", True, None),
    Case("HeaderRegexp(`Forwarded`, `.`)", False, True, fields=(("Forwarded", "for=10.0.0.1"),)),
    Case("Header(`Connection`, `x`)", True, False, fields=(("Connection", "x"),)),
    Case(r"PathRegexp(`^/\C$`)", True, None, "/a"),
]  # fmt: skip

REFUSED: Final = [
    "Host(``)",
    "Host(`exämple.com`)",
    "HostRegexp(`ä`)",
    "Path(``)",
    "PathPrefix(`ws`)",
    "PathRegexp(``)",
    "PathRegexp(`(a`)",
    "PathRegexp(`a)`)",
    "PathRegexp(`[a`)",
    "PathRegexp(`a**`)",
    "PathRegexp(`a{1001}`)",
    "PathRegexp(`a(?=b)`)",
    r"PathRegexp(`(a)\1`)",
    r"PathRegexp(`\Z`)",
    r"PathRegexp(`a\`)",
    "Header(`X-A`)",
    "Header(`X-A`, ``)",
    "Header(``, `b`)",
    "Header(`X-A`, `a`, `b`)",
    "HeaderRegexp(`X-A`, ``)",
    "Query(``)",
    "Query(`a`, ``)",
    "Query(`a`, `b`, `c`)",
    "QueryRegexp(`a`, `(`)",
    "Method(``)",
    "Method(`GET`, `POST`)",
    "ClientIP(`x`)",
    "ClientIP(`127.0.0.1/33`)",
    "ClientIP(`127.0.0.1,10.0.0.1`)",
    "ClientIP(` 127.0.0.1`)",
    "Headers(`a`, `b`)",
    "HeadersRegexp(`a`, `b`)",
    "HostHeader(`example.com`)",
    "HostSNI(`*`)",
    "Host('example.com')",
    "Host(example.com)",
    "Path(`/`) & Host(`example.com`)",
    "Path(`/`) | Host(`example.com`)",
    "Path(`/`) Host(`example.com`)",
    "Path(`/`",
    "Path(`/",
    "Path(`/x`+`y`)",
    r'Path("/\d")',
    "()",
    "!",
    "Path",
]
"""Rules that both refuse."""

OURS_REFUSES: Final = [
    "Host(`a.b:80`)",
    "Host(`a b`)",
    "Host(`*.*.com`)",
    "Host(`*x.com`)",
    "Host(`**.example.com`)",
    "Host(`{sub:[a-z]+}.example.com`)",
    "HostRegexp(`{sub:[a-z]+}.example.com`)",
    "Path(`/a?b`)",
    "Path(`/a#b`)",
    "Path(`//a`)",
    "PathPrefix(`/a/../b`)",
    "Path(`/{id}`)",
    "PathPrefix(`/{id:[0-9]+}`)",
    "Header(`Host`, `example.com`)",
    "Header(`X A`, `b`)",
    "Query(`a=b`)",
    "Method(`g t`)",
    "Path(`/`,)",
    "Path(`/`) /* everything */",
    r'Path("/\x61")',
    r"PathRegexp(`\pL{50}`)",
]
"""Rules that only we refuse: because no request fits them in Traefik, or as the table of differences says."""
