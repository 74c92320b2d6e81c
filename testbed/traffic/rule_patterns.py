"""Payload patterns as operators write them, payloads to look in, and expressions that hurt.

All made from a seed: two runs look for the same in the same. Source of the hurtful expressions:
OWASP, "Regular expression Denial of Service"; the examples of CWE-1333; those that have taken down
Stack Overflow (2016) and Cloudflare (2019).
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

from packetcloud.router.rules.rule import Pattern

SEED = 4
HURTFUL_BYTES = 100_000
_REGEX_SHARE = 0.3
_IGNORE_CASE_SHARE = 0.3
_RANGE_SHARE = 0.05
_RANGE_BYTES = (64, 1024, 16_384)
_WORDS_TEXT = """
    account admin alert archive backup banner billing browse cache cart catalog check client
    config contact content control cookie custom daemon data debug default delete detail display
    docs domain download driver edit email engine error event export feed field file filter
    flash forum frame gallery gateway global group guest handler help history home host image
    import index info input install invoice item journal kernel language layout library link
    list load local login logout mail main manage master media member menu message mobile module
    monitor network news node notice object office option order package page panel parser
    password patch payment photo plugin portal post print privacy process product profile
    project proxy public query queue read record redirect register remote report request reset
    resource result review root router sample save schedule script search secure select send
    server service session set setup share shell shop site source staff start state static
    status storage store stream style submit support switch system table tag task template test
    theme thread ticket title token tool track transfer tree update upload user util value
    vendor version video view virtual vote web widget window worker write zone
"""
_WORDS = _WORDS_TEXT.split()
_SYLLABLES_TEXT = """
    a al an ar be ca ce co de di do e en er es fa fi ful ga go ha he i in ing is la le li lo ly
    ma me ment mi mo na ne ness ni no o of on or ou pa pe pi po pre pro ra re ri ro sa se si so
    ta te ter th ti tion to tu u un ur ve vi wa we y
"""
_SYLLABLES = _SYLLABLES_TEXT.split()
_KNOWN_SHARE = 0.25
_EXTENSIONS = ("php", "asp", "html", "cgi", "js", "exe", "dll", "zip", "jpg", "pdf")


def make_patterns(count: int) -> tuple[Pattern, ...]:
    """Return `count` different patterns: seven literals to three regular expressions.

    Some ignore case, some are looked for in the first bytes only.
    """
    generator = random.Random(SEED)
    found = []
    for number in range(count):
        is_regex = generator.random() < _REGEX_SHARE
        make = generator.choice(_REGEXES if is_regex else _LITERALS)
        ends_early = generator.random() < _RANGE_SHARE
        found.append(
            Pattern(
                make(generator, number),
                is_regex=is_regex,
                ignore_case=generator.random() < _IGNORE_CASE_SHARE,
                end=generator.choice(_RANGE_BYTES) if ends_early else None,
            )
        )
    return tuple(found)


def random_payload(count: int) -> bytes:
    """Bytes as of something encrypted or compressed."""
    return random.Random(SEED).randbytes(count)


def text_payload(count: int) -> bytes:
    """Bytes as of web traffic: request heads and pages; one word in four is of the patterns'."""
    generator = random.Random(SEED)
    parts, size = [], 0
    while size < count:
        part = _request(generator) if generator.random() < 0.4 else _page(generator)
        parts.append(part)
        size += len(part)
    return b"".join(parts)[:count]


def near_miss_payload(count: int, patterns: Sequence[Pattern]) -> bytes:
    """Text in which every other piece is a literal pattern whose last byte is another one."""
    generator = random.Random(SEED)
    literals = [one.expression for one in patterns if not one.is_regex]
    parts, size = [], 0
    while size < count:
        literal = generator.choice(literals)
        part = literal[:-1] + bytes([literal[-1] ^ 0x55]) + _words(generator, 3).encode()
        parts.append(part)
        size += len(part)
    return b"".join(parts)[:count]


def hurtful_expressions() -> list[tuple[bytes, bytes]]:
    """Return expressions and for each the payload that is worst for engines that try again."""
    return [
        (expression, unit * (HURTFUL_BYTES // len(unit)) + tail)
        for expression, unit, tail in _HURTFUL
    ]


# --- patterns -------------------------------------------------------------------------------------

_Make = Callable[[random.Random, int], bytes]


def _word(generator: random.Random) -> str:
    return generator.choice(_WORDS)


def _path(generator: random.Random, number: int) -> bytes:
    extension = generator.choice(_EXTENSIONS)
    return f"/{_word(generator)}/{_word(generator)}{number}.{extension}".encode()


def _host(generator: random.Random, number: int) -> bytes:
    domain = generator.choice(("com", "net", "org", "info", "example"))
    return f"{_word(generator)}-{_word(generator)}{number}.{domain}".encode()


def _agent(generator: random.Random, number: int) -> bytes:
    return f"User-Agent: {_word(generator).title()}{number}/{generator.randint(1, 9)}.".encode()


def _key(generator: random.Random, number: int) -> bytes:
    return (
        f"{_word(generator)}_{_word(generator)}={number:x}{generator.getrandbits(24):06x}".encode()
    )


def _magic(generator: random.Random, number: int) -> bytes:
    return generator.randbytes(generator.randint(6, 16)) + number.to_bytes(2, "big")


_LITERALS: tuple[_Make, ...] = (_path, _host, _agent, _key, _magic)


def _script(generator: random.Random, number: int) -> bytes:
    word, other = _word(generator), _word(generator)
    return (
        rf"(GET|POST) /{word}{number}/[a-z0-9_]{{3,16}}\.(php|asp)\?{other}=[0-9]{{1,8}}".encode()
    )


def _program(generator: random.Random, number: int) -> bytes:
    return rf"{_word(generator)}[-_]?{_word(generator)}{number}\.(exe|dll|scr)".encode()


def _header(generator: random.Random, number: int) -> bytes:
    return rf"X-{_word(generator).title()}{number}: [^\r\n]{{0,40}}{_word(generator)}".encode()


def _parameter(generator: random.Random, number: int) -> bytes:
    return rf"[?&]{_word(generator)}{number}=[0-9a-f]{{8,32}}(&|\r\n)".encode()


def _record(generator: random.Random, number: int) -> bytes:
    begin, end = generator.randbytes(4), number.to_bytes(3, "big")
    return f"{_escaped(begin)}.{{4,12}}{_escaped(end)}".encode()


def _escaped(data: bytes) -> str:
    return "".join(f"\\x{byte:02x}" for byte in data)


_REGEXES: tuple[_Make, ...] = (_script, _program, _header, _parameter, _record)


# --- payloads -------------------------------------------------------------------------------------


def _words(generator: random.Random, count: int) -> str:
    return " ".join(_any_word(generator) for _ in range(count))


def _any_word(generator: random.Random) -> str:
    if generator.random() < _KNOWN_SHARE:
        return _word(generator)
    return "".join(generator.choices(_SYLLABLES, k=generator.randint(1, 4)))


def _request(generator: random.Random) -> bytes:
    query = f"{_any_word(generator)}={generator.getrandbits(32)}&{_word(generator)}=1"
    return (
        f"GET /{_any_word(generator)}/{_word(generator)}.{generator.choice(_EXTENSIONS)}?{query} "
        f"HTTP/1.1\r\nHost: {_any_word(generator)}.{_any_word(generator)}.example\r\n"
        "User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0\r\n"
        "Accept: text/html,application/xhtml+xml;q=0.9\r\nAccept-Language: en-US,en;q=0.5\r\n"
        f"Cookie: session={generator.getrandbits(128):032x}\r\n\r\n"
    ).encode()


def _page(generator: random.Random) -> bytes:
    paragraphs = "".join(
        f'<p class="{_word(generator)}">{_words(generator, generator.randint(20, 80))}.</p>\n'
        for _ in range(generator.randint(2, 6))
    )
    return f"<html><head><title>{_words(generator, 4)}</title></head>\n{paragraphs}".encode()


# --- expressions that hurt ------------------------------------------------------------------------

_HURTFUL = (
    (rb"(a+)+$", b"a", b"!"),
    (rb"([a-zA-Z]+)*$", b"a", b"!"),
    (rb"(a|aa)+$", b"a", b"!"),
    (rb"(a|a?)+$", b"a", b"!"),
    (rb"(.*a){12}", b"a", b"!"),
    (rb"(.*a){25}$", b"a", b"!"),
    (rb"^(([a-z])+.)+[A-Z]([a-z])+$", b"a", b""),
    (rb"^(a+)+b", b"a", b""),
    (rb"(x+x+)+y", b"x", b""),
    (rb"(x*)*y", b"x", b""),
    (rb"(0|1|2|3|4|5|6|7|8|9|\d)+z", b"7", b""),
    (rb"^([a-zA-Z0-9])(([\-.]|[_]+)?([a-zA-Z0-9]+))*(@){1}[a-z0-9]+[.]{1}[a-z]{2,3}$", b"a", b"!"),
    (rb"^\d*[0-9](|.\d*[0-9]|)*$", b"1", b"!"),
    (rb"\s+$", b" ", b"x"),
    (rb"[\s\u200c]+|[\s\u200c]+$", b" ", b"x"),
    (rb"(?:(?:\"|'|\]|\}|\\|\d|(?:nan|infinity|true|false|null|undefined|symbol|math)|\`|\-|\+)+"
     rb"[)]*;?((?:\s|-|~|!|{}|\|\||\+)*.*(?:.*=.*)))", b"x=", b"x"),
    (rb".*.*=.*", b"x", b""),
    (rb"(.+)+\.example", b"a.", b""),
    (rb"(\w+\s*)+:", b"word ", b"!"),
    (rb"<([a-z]+\s*)*>", b"<a ", b""),
    (rb"((a{1,50}){1,50}){1,50}b", b"a", b""),
    (rb"a{0,500}a{500}", b"a", b""),
    (rb"(a?){500}a{500}", b"a", b""),
    (rb"[ab]*a[ab]{500}c", b"ab", b""),
    (rb"(a|b|ab)*bc", b"ab", b""),
    (rb"(\d+)-\1", b"12", b"-"),
    (rb"(?=(a+))a*b\1", b"a", b""),
    (rb"(?<!a)a+b", b"a", b""),
)  # fmt: skip
"""Expression, what the payload repeats, how it ends."""
