"""Expressions on which backtracking engines take for ever, each with what it takes for ever on.

The families (nested repeats, overlapping alternatives, neighbouring repeats, counted repeats), each
over several sets of bytes, and expressions of the kinds that were found in programs: addresses,
numbers, dates, markup, log lines, user agents, paths.
"""

from __future__ import annotations

from dataclasses import dataclass

PAYLOAD_BYTES = 100_000


@dataclass(frozen=True)
class Catastrophe:
    """One expression."""

    expression: bytes
    prefix: bytes
    pump: bytes
    """Repeated until there are 100 KB."""
    suffix: bytes = b"!"

    @property
    def payload(self) -> bytes:
        room = PAYLOAD_BYTES - len(self.prefix) - len(self.suffix)
        count = room // len(self.pump) + 1
        return self.prefix + (self.pump * count)[:room] + self.suffix


_FAMILIES = (
    rb"(X+)+$",
    rb"(X*)*$",
    rb"^(X+)+Y",
    rb"^(X*)*Y",
    rb"(X|X)+$",
    rb"(X|XX)+$",
    rb"(X|X?)+$",
    rb"^((X+)*)+$",
    rb"(X+X+)+Y",
    rb"X*X*X*X*X*Y",
    rb"^X+X+X+$",
    rb"(.*X){12}",
    rb"(.*X){25}Y",
    rb"(X?){30}X{30}",
    rb"(X{1,30}){1,30}Y",
    rb"(X{2,})+$",
    rb"^(X+.)+Y$",
    rb"(?:X|.)*Y",
    rb"X{50,100}Y",
    rb"(XX?)*Y",
    rb"(X*)\1Y",
    rb"(?=(X+)+)Y",
)
_SETS = ((rb"a", b"a"), (rb"\w", b"z"), (rb"[0-9]", b"7"), (rb"\s", b" "), (rb"[^<]", b"x"))

_FOUND_IN_PROGRAMS: tuple[tuple[bytes, bytes, bytes], ...] = (
    (rb"^([a-zA-Z0-9])(([\-.]|[_]+)?([a-zA-Z0-9]+))*(@){1}[a-z0-9]+[.]{1}([a-z]{2,3})$", b"", b"a"),
    (rb"^(([a-z])+.)+[A-Z]([a-z])+$", b"", b"a"),
    (rb"^[\w.+-]+@(\w+\.)+\w{2,}$", b"a@", b"a."),
    (
        rb"^([\w\-.]+)@((\[[0-9]{1,3}\.){3}|([\w\-]+\.)+)([a-zA-Z]{2,4}|[0-9]{1,3})(\]?)$",
        b"a@",
        b"a.",
    ),
    (rb"^(https?://)?([\da-z.-]+)\.([a-z.]{2,6})([/\w .-]*)*/?$", b"http://a.aa/", b"a"),
    (rb"^((https?|ftp)://)?([\w-]+\.)+[\w-]+(/[\w- ./?%&=]*)?$", b"", b"a."),
    (rb"(\w+\s*)+:", b"", b"a "),
    (rb"^(\d+,?)+$", b"", b"1,"),
    (rb"^-?(\d+|\d{1,3}(,\d{3})*)(\.\d+)?$", b"", b"1"),
    (rb"^\s+|\s+$", b"x", b" "),
    (rb"\s*,\s*", b"", b" "),
    (rb"[ \t]+$", b"x", b" \t"),
    (rb"(\r\n|\n|\r|\s)+$", b"", b"\r\n"),
    (rb"^(?:[^\"\\]|\\.|\"\")*\"$", b"", b"\\a"),
    (rb'"(?:[^"\\]+|\\.)*"', b'"', b"a"),
    (rb"'([^'\\]|\\.|'')*'x", b"'", b"''"),
    (rb"<!--([^-]|-[^-])*-->", b"<!--", b"-a"),
    (rb"<(\w+)([^>]*\s+)*/?>", b"<a", b" a"),
    (rb"<[^>]+\s+([\w-]+\s*=\s*(\"[^\"]*\"|'[^']*')\s*)*>", b"<a ", b'a=""'),
    (rb"<script[^>]*>([\s\S]*?)</script\s*>", b"", b"<script>"),
    (rb"!?\[((?:\[(?:\\.|[^\[\]\\])*\]|\\.|[^\[\]])*)\]\(", b"[", b"[a]"),
    (rb"^(?:_|__)+((?:__|[\s\S])+?)_$", b"", b"__"),
    (rb"^ {0,3}((?:- *){3,}|(?:_ *){3,}|(?:\* *){3,})(?:\n+|$)", b"", b"- "),
    (rb"\{\{([^}]|\}[^}])*\}\}", b"{{", b"}a"),
    (rb"\$\{([^{}]|\{[^}]*\})*\}", b"${", b"{a"),
    (rb"/\*([^*]|\*+[^*/])*\*+/", b"/*", b"**a"),
    (rb"//.*?\n|/\*(.|\n)*?\*/", b"/*", b"a\n"),
    (rb"^(?:\.?[a-z0-9]+)+(?:-[a-z0-9]+)*$", b"", b"a"),
    (rb"^(([^:/?#]+):)?(//([^/?#]*))?([^?#]*)(\?([^#]*))?(#(.*))?x$", b"", b"a:"),
    (rb"(.+)+\.(jpg|png|gif)$", b"", b"a."),
    (rb"([^/]+/)*([^/]+)\.js$", b"", b"a/"),
    (rb"^(/[^/]+)+/index\.html$", b"", b"/a"),
    (rb"((\.\./)+|(\./)+)*etc/passwd", b"", b"../"),
    (rb"(?:\d{1,3}\.){3}\d{1,3}(?:,\s*(?:\d{1,3}\.){3}\d{1,3})*$", b"", b"1.1.1.1,"),
    (rb"^((([0-9A-Fa-f]{1,4}:){1,7}|:)((:[0-9A-Fa-f]{1,4}){1,7}|:))$", b"", b"a:"),
    (
        rb"^\d{4}-\d{2}-\d{2}([T ]\d{2}:\d{2}(:\d{2}(\.\d+)?)?)?(Z|[+-]\d+)?$",
        b"2020-01-01T00:00:00.",
        b"1",
    ),
    (rb"^(\w+ ?)*$", b"", b"a"),
    (rb"^([\w ]+)+ \d+$", b"", b"a "),
    (rb"(?:Mozilla|Opera)(?:[^(]*\([^)]*\))*.*?(?:Version|Chrome)/(\d+)", b"Mozilla", b"()"),
    (rb"iP(hone|od|ad)(?:.*?OS)?[ _](\d+(?:_\d+)*)*x", b"iPhone OS ", b"1_"),
    (rb"Android(?:\s+[\d.]+)*;.*?Build/.*?\)", b"Android", b" 1.1"),
    (rb"(([a-z]+)\s*=\s*([^;]*);?\s*)*$", b"", b"a=b; "),
    (rb"^(?:[a-z]+=[^;]*;\s*)+path=", b"", b"a=b; "),
    (rb"charset=((\"[^\"]*\")|([^;\s]+\s*)*);", b"charset=", b"a "),
    (rb"multipart/[^;]+;.*boundary=\"?([^\";]+)*\"", b"multipart/a;boundary=", b"a"),
    (rb"^bytes=(\d*-\d*,?\s*)+$", b"bytes=", b"1-1, "),
    (rb"^([a-z]{1,8}(-[a-z]{1,8})?(;q=[\d.]+)?,?\s*)+$", b"", b"a;q=1, "),
    (rb"^W/\"?(([^\"])*)*\"$", b"W/", b"a"),
    (rb"select\s+.*\s+from\s+.*\s+where\s+.*=.*", b"select ", b" from "),
    (rb"(union(\s|/\*.*?\*/)+)+select", b"", b"union/**/"),
    (rb"(['\"].*?['\"]\s*(or|and)\s*)+\d=\d", b"", b"'a' or "),
    (rb"on\w+\s*=\s*(['\"])?.*?alert\s*\(", b"", b"onx="),
    (rb"(%[0-9a-f]{2})+(%[0-9a-f]{2})+x", b"", b"%20"),
    (rb"^([A-Za-z0-9+/]{4})*([A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?$", b"", b"AAAA"),
    (rb"^data:([a-z]+/[a-z0-9.+-]+)?(;[a-z-]+=[^;,]+)*(;base64)?,x", b"data:a/b", b";a=b"),
    (rb"-----BEGIN [A-Z ]+-----(\s*[A-Za-z0-9+/=]+\s*)+-----END", b"-----BEGIN A-----", b"A\n"),
    (
        rb"^(\S+) (\S+) (\S+) \[([^\]]+)\] \"([^\"]*)\" (\d+|-) (\d+|-)( .*)*x$",
        b'a a a [a] "a" 1 1',
        b" a",
    ),
    (rb"(?:at .+\n)+Caused by", b"", b"at a\n"),
    (rb"^(\s*at\s+\S+\(.*?\)\s*)+$", b"", b" at a()\n"),
    (rb"(\w+::)+\w+\(", b"", b"a::"),
    (rb"^(?:(?:\w+\.)*\w+)+\(", b"", b"a."),
    (rb"^v?(\d+\.)*(\d+)(-[\w.]+)*(\+[\w.]+)*$", b"", b"1."),
    (rb"^[~^]?(\d+|\*|x)(\.(\d+|\*|x)){0,2}(\s*\|\|\s*.*)*y$", b"1", b" || 1"),
    (rb"^(rgb|hsl)a?\(\s*(-?\d+%?[,\s]+){2,3}\s*[\d.]+%?\s*\)$", b"rgb(", b"1 "),
    (rb"^#?([a-f0-9]{3}|[a-f0-9]{6})+$", b"#", b"abc"),
    (rb"^([MLHVCSQTAZ]\s*(-?\d*\.?\d+[,\s]*)*)+$", b"M", b"1 "),
    (rb"^(([01]?\d\d?|2[0-4]\d|25[0-5])\.?){4,}$", b"", b"1."),
    (rb"^\+?(\d[\s-]?)+\d$", b"", b"1 "),
    (rb"^(?:\(?\d{3}\)?[ -]?)*\d{4}x$", b"", b"(111)"),
    (rb"^[A-Z]{1,2}\d[A-Z\d]? ?\d([A-Z]{2})*$", b"A1 1", b"AA"),
    (rb"^(?:4\d{12}(?:\d{3})?|5[1-5]\d{14}|(?:\d{4}[ -]?)+)$", b"", b"1111 "),
    (rb"^([-+]?\d*\.?\d+([eE][-+]?\d+)?\s*[-+*/]?\s*)+=$", b"", b"1+"),
    (rb"^\s*(\w+)\s*=\s*(.*?)\s*(#.*)?$\n?", b"a=", b" "),
    (rb"^(?:\s*[\w-]+\s*:\s*[^;]+;?\s*)*\}", b"", b"a:b;"),
    (rb"@import\s+(url\()?\s*['\"]?([^'\");]+)*['\"]?\)?\s*;", b"@import ", b"a"),
    (rb"\[(\s*[^\[\]]+\s*,?)*\]\s*=", b"[", b"a,"),
    (rb"^(\[[^\]]*\]|\.\w+|\w+)+$", b"", b"[a]"),
    (rb"((?:\\[\s\S]|[^\\`])+?)`x", b"", b"\\`"),
    (rb"^(.*?),(.*?),(.*?),(.*?),(.*?),(.*?),(.*?),(.*?),(.*?),(.*?),P", b"", b"1,"),
    (rb"^(([^,]*),){11}P", b"", b"1,"),
    (rb"(a|b|ab)*c", b"", b"ab"),
    (rb"(0|1|01|10)*2$", b"", b"01"),
    (rb"(foo|foofoo|foofoofoo)*bar", b"", b"foo"),
    (rb"(ab?b?b?b?)*c", b"", b"abb"),
    (rb"([ab].){300}", b"", b"aab"),
    (rb".{1000}.{1000}", b"", b"a"),
    (rb"[ab]*a[ab]{200}c", b"", b"aab"),
    (rb"(a|b)*a(a|b){15}(a|b){15}c", b"", b"aab"),
    (rb"a.{999}b.{999}c", b"", b"a"),
    (rb"(?:a.{100}){9}b", b"", b"a"),
)


def _of_families() -> list[Catastrophe]:
    found = []
    for family in _FAMILIES:
        for written, pump in _SETS:
            end = b"#" if b"<" not in written else b"<"
            expression = family.replace(b"X", written).replace(b"Y", end)
            found.append(Catastrophe(expression, b"", pump, b"\x01"))
    return found


CATASTROPHES = _of_families() + [
    Catastrophe(expression, prefix, pump) for expression, prefix, pump in _FOUND_IN_PROGRAMS
]
