"""Rules as people write them, and payloads, made up: the same for the same seed.

Paths, headers, commands, byte strings of programs, with one to three contents each, a third of them
without regard to case, half of the later ones near the one before. Text is of other words mostly.
"""

from __future__ import annotations

import random
from collections.abc import Iterator

PAYLOAD_BYTES = 1 << 20
KINDS = ("text", "random", "near_misses")
NEAR_MISS_EVERY_BYTES = 1024
"""In `near_misses`: a content of a rule, its last byte altered, in this many bytes of text."""

_LETTERS = "etaoinshrdlcumwfgypbvk"
_HEADERS = ("User-Agent", "Host", "Cookie", "Referer", "X-Request", "Content-Type")
_ENDINGS = (".php", ".exe", ".cgi", ".asp", ".jsp", ".dll", ".bin", ".sh")


def site_rules(count: int, seed: int = 1) -> str:
    """Return a file of `count` rules."""
    source = random.Random(seed)
    words = _words(source, 600)
    lines = []
    for sid in range(1, count + 1):
        parts = []
        for number in range(source.choice((1, 1, 2, 2, 3))):
            case = " nocase;" if source.random() < 1 / 3 else ""
            near = number and source.random() < 0.5
            place = f" distance:0; within:{source.choice((64, 200, 400))};" if near else ""
            parts.append(f'content:"{_content(source, words)}";{case}{place}')
        body = " ".join(parts)
        lines.append(
            f'alert chunk any any -> any any (msg:"made up {sid}"; {body} '
            f"classtype:misc-activity; sid:{sid}; rev:1;)"
        )
    return "\n".join(lines) + "\n"


def corpus(kind: str, contents: list[bytes], count: int) -> list[bytes]:
    """Return payloads of a kind, each of other words: the same ones each time."""
    return [payload(kind, contents, seed) for seed in range(1, count + 1)]


def payload(kind: str, contents: list[bytes], seed: int = 1) -> bytes:
    """Return 1 MiB of a kind.

    Args:
        contents: of the rules, for near misses.
    """
    source = random.Random(seed + 1)
    if kind == "random":
        return source.randbytes(PAYLOAD_BYTES)
    # Every tenth word is one of the rules' own.
    words = _words(random.Random(seed + 2), 3000) + _words(random.Random(1), 600)[:300]
    text = bytearray()
    while len(text) < PAYLOAD_BYTES:
        sentence = " ".join(source.choices(words, k=12))
        text += sentence.encode() + source.choice((b".\n", b", ", b" "))
    del text[PAYLOAD_BYTES:]
    if kind == "near_misses":
        for start in range(0, PAYLOAD_BYTES - NEAR_MISS_EVERY_BYTES, NEAR_MISS_EVERY_BYTES):
            content = source.choice(contents)
            miss = content[:-1] + bytes([content[-1] ^ 1])
            text[start : start + len(miss)] = miss
    return bytes(text)


def _content(source: random.Random, words: list[str]) -> str:
    one, two = source.choices(words, k=2)
    match source.randrange(6):
        case 0:
            return f"/{one}/{two}{source.choice(_ENDINGS)}"
        case 1:
            return f"{source.choice(_HEADERS)}|3a 20|{one.capitalize()}{two}"
        case 2:
            return f"{one}={two}&{source.choice(words)[:3]}="
        case 3:
            return f"|{source.randbytes(source.randint(6, 16)).hex(' ')}|"
        case 4:
            return f"{one.upper()} {two}|0d 0a|"
        case _:
            return f"{one}_{two}|00|{source.choice(words)}"


def _words(source: random.Random, count: int) -> list[str]:
    def letters() -> Iterator[str]:
        for _ in range(source.randint(4, 10)):
            yield _LETTERS[int(source.random() ** 1.5 * len(_LETTERS))]

    return ["".join(letters()) for _ in range(count)]
