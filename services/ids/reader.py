"""Reads rule files: each line becomes a rule, a definition, or a refusal that says where and why.

    ACTION PROTOCOL SOURCE PORT -> DESTINATION PORT (OPTIONS)

What is about the IP world (protocols, ports, addresses, lists that nobody defined) is refused, or,
where the operator says so, read as `any`: a rule then applies to more than its author meant.
Source: Suricata user guide, "Rules Format"; docs/reference/ids.md.
"""

from __future__ import annotations

import bisect
import re
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from packetcloud.services.ids.errors import RuleError, RuleFileError
from packetcloud.services.ids.guid_sets import (
    EVERYBODY,
    GuidSet,
    Lists,
    NotOursError,
    is_name,
    parse_guids,
)
from packetcloud.services.ids.options import STANDARD_CLASSES, Options
from packetcloud.services.ids.rule import Action, Content, Rule

MAX_FILE_BYTES = 16 << 20
"""Unpacked. A thousand rules have 200 KB."""
MAX_RULE_BYTES = 8192
"""With the lines that it goes on over: Suricata's own limit."""
MAX_RULES_COUNT = 20_000
MAX_UNSEEN_COUNT = 64
"""Rules without a content that must be there: each chunk pays for each of them."""
MAX_DEFINITIONS_COUNT = 1024
"""Lists and class types that a file defines."""

OURS = "chunk"
_ANY_PROTOCOL = (OURS, "ip", "any")
_IP_PROTOCOLS = frozenset(
    re.findall(
        r"\S+",
        "tcp udp icmp icmpv4 icmpv6 sctp ipv4 ip4 ipv6 ip6 pkthdr tcp-pkt tcp-stream ether arp "
        "http http1 http2 ftp ftp-data tls ssl smb dns dcerpc dhcp ssh smtp imap pop3 modbus dnp3 "
        "enip nfs ike ikev2 krb5 ntp snmp tftp sip rfb mqtt rdp quic telnet bittorrent-dht pgsql "
        "file ldap websocket doh2",
    )
)
_DIRECTIONS = ("->", "<>")
_REFUSED_ACTIONS = {
    "rejectdst": "who receives a chunk cannot be told why it does not come",
    "rejectboth": "who receives a chunk cannot be told why it does not come",
    "log": "there is one log, that of alerts; write alert",
    "activate": "rules do not switch on others; use flowbits",
    "dynamic": "rules do not switch on others; use flowbits",
    "sdrop": "write drop, with noalert",
    "block": "write drop",
    "config": "payloads and routers are not changed",
}
_DEFINITION = re.compile(r"(var|ipvar|portvar)\s+(\S+)\s+(\S.*)", re.DOTALL)
_CLASS = re.compile(r"config\s+classification\s*:\s*([^,\s]+)\s*,\s*([^,]*?)\s*,\s*(\d{1,3})\s*")


@dataclass(frozen=True, slots=True)
class Refusal:
    """A line that is not taken."""

    line: int
    column: int
    reason: str

    def __str__(self) -> str:
        return f"line {self.line}, column {self.column}: {self.reason}"


@dataclass(frozen=True, slots=True)
class Note:
    """What of a line that is taken has no effect, or was read as more than it says."""

    line: int
    text: str


@dataclass(frozen=True, slots=True)
class RuleFile:
    """What a file says."""

    rules: tuple[Rule, ...]
    refusals: tuple[Refusal, ...]
    notes: tuple[Note, ...]

    def problem(self) -> str:
        """Return one line about what is refused; empty: nothing is."""
        if not self.refusals:
            return ""
        count = len(self.refusals)
        more = f" (and {count - 1} more)" if count > 1 else ""
        return f"{self.refusals[0]}{more}"


@dataclass(slots=True)
class _Line:
    """One line with those that it goes on over, and where each of them begins."""

    text: str
    number: int
    starts: list[int] = field(default_factory=list)

    def place(self, at: int) -> tuple[int, int]:
        """Return line and column, from 1, of a character."""
        row = bisect.bisect_right(self.starts, at) - 1
        return self.number + row, at - self.starts[row] + 1


class _Reading:
    """One file while it is read."""

    def __init__(self, lists: Lists, widens: bool) -> None:
        self._lists = dict(lists)
        self._widens = widens
        self._classes: dict[str, tuple[str, int]] = dict(STANDARD_CLASSES)
        self._definition_count = 0
        self._unseen_count = 0
        self.rules: dict[tuple[int, int], Rule] = {}
        self.refusals: list[Refusal] = []
        self.notes: list[Note] = []

    def take(self, line: _Line) -> None:
        """Take one line, or note why it is refused."""
        text = line.text
        start = len(text) - len(text.lstrip())
        try:
            if len(text) > MAX_RULE_BYTES:
                raise RuleError(0, f"{len(text)} bytes; allowed: {MAX_RULE_BYTES}")
            if "\0" in text:
                raise RuleError(text.index("\0"), "a zero byte; this is no rule file")
            if defined := _DEFINITION.fullmatch(text.strip()):
                self._define(defined[1], defined[2], defined[3], start, start + defined.start(3))
            elif classified := _CLASS.fullmatch(text.strip()):
                self._count_definition(start)
                self._classes[classified[1].lower()] = (classified[2], int(classified[3]))
            else:
                self._take_rule(text, start, line.number)
        except RuleError as error:
            row, column = line.place(min(error.at, len(text)))
            self.refusals.append(Refusal(row, column, str(error)))

    def _count_definition(self, at: int) -> None:
        self._definition_count += 1
        if self._definition_count > MAX_DEFINITIONS_COUNT:
            raise RuleError(at, f"over {MAX_DEFINITIONS_COUNT} lists and class types")

    def _define(self, kind: str, name: str, value: str, at: int, value_at: int) -> None:
        self._count_definition(at)
        if kind == "portvar":
            if not self._widens:
                raise RuleError(at, "portvar: chunks have no ports")
            return
        if not is_name(name):
            raise RuleError(at, f"{kind}: {name!r} is no name of a list")
        if name in self._lists:
            raise RuleError(at, f"{kind}: there is a list {name} already")
        try:
            self._lists[name] = parse_guids(value.strip(), value_at, self._lists)
        except NotOursError:
            if not self._widens:
                raise
            self._lists[name] = EVERYBODY

    def _take_rule(self, text: str, start: int, number: int) -> None:
        words, opening = _head(text, start)
        end = len(text.rstrip()) - 1
        if text[end] != ")":
            raise RuleError(end + 1, "a rule ends with )")
        notes: list[str] = []
        action = _action(*words[0])
        self._protocol(*words[1], notes)
        source = self._guids(*words[2], notes)
        self._port(*words[3], notes)
        direction, direction_at = words[4]
        if direction not in _DIRECTIONS:
            raise RuleError(direction_at, f"direction {direction!r}; allowed: -> and <>")
        destination = self._guids(*words[5], notes)
        self._port(*words[6], notes)
        options = Options(self._classes)
        options.read(text, opening + 1, end)
        rule = _rule(number, action, source, destination, direction == "<>", options, start)
        self._add(rule, start)
        self.notes += [Note(number, note) for note in (*notes, *options.notes)]

    def _add(self, rule: Rule, at: int) -> None:
        known = self.rules.get(rule.key)
        if known is not None and rule.rev <= known.rev:
            raise RuleError(
                at, f"sid {rule.sid}: line {known.line} has it, with rev {known.rev}, not less"
            )
        if known is None and len(self.rules) >= MAX_RULES_COUNT:
            raise RuleError(at, f"over {MAX_RULES_COUNT} rules")
        if not has_wanted_content(rule):
            if self._unseen_count >= MAX_UNSEEN_COUNT:
                raise RuleError(
                    at, f"over {MAX_UNSEEN_COUNT} rules without a content that must be there"
                )
            self._unseen_count += 1
            self.notes.append(Note(rule.line, "without a content: asked of every chunk"))
        if known is not None:
            self.notes.append(Note(known.line, f"sid {rule.sid}: line {rule.line} takes its place"))
        self.rules[rule.key] = rule

    def _protocol(self, word: str, at: int, notes: list[str]) -> None:
        if word.lower() in _ANY_PROTOCOL:
            return
        if word.lower() not in _IP_PROTOCOLS:
            raise RuleError(at, f"unknown protocol {word!r}; allowed: {', '.join(_ANY_PROTOCOL)}")
        self._widen(f"protocol {word}", at, "is one of the IP world", notes)

    def _port(self, word: str, at: int, notes: list[str]) -> None:
        if word.lower() != "any":
            self._widen(f"port {word}", at, "chunks have no ports", notes)

    def _guids(self, word: str, at: int, notes: list[str]) -> GuidSet:
        try:
            return parse_guids(word, at, self._lists)
        except NotOursError as error:
            self._widen(f"address {word}", error.at, str(error), notes)
            return EVERYBODY

    def _widen(self, what: str, at: int, reason: str, notes: list[str]) -> None:
        """Read something of the IP world as `any`, if that is wanted.

        Raises:
            RuleError: it is not.
        """
        if not self._widens:
            raise RuleError(at, f"{what}: {reason}; ip_headers=widen reads it as any")
        notes.append(f"{what} read as any")


def read_rules(
    data: bytes,
    lists: Lists,
    *,
    widens: bool = False,
    pause: Callable[[], object] = lambda: None,
) -> RuleFile:
    """Read a file, as it is or packed by gzip.

    Args:
        lists: what `$NAME` stands for, besides what the file defines.
        widens: read what is about the IP world as `any` instead of refusing it.
        pause: called after each line.

    Raises:
        RuleFileError: too large, or damaged.
    """
    reading = _Reading(lists, widens)
    for line in _lines(unpacked(data).decode("utf-8", "surrogateescape")):
        reading.take(line)
        pause()
    notes = sorted(reading.notes, key=lambda note: note.line)
    return RuleFile(tuple(reading.rules.values()), tuple(reading.refusals), tuple(notes))


def unpacked(data: bytes) -> bytes:
    """Return the text of a file that may be packed by gzip.

    Raises:
        RuleFileError: too large, or damaged.
    """
    if data[:2] == b"\x1f\x8b":
        unpacker = zlib.decompressobj(wbits=31)
        try:
            data = unpacker.decompress(data, MAX_FILE_BYTES + 1)
        except zlib.error as error:
            raise RuleFileError(f"damaged gzip file: {error}") from None
        if not unpacker.eof and len(data) <= MAX_FILE_BYTES:
            raise RuleFileError("damaged gzip file: it ends in the middle")
    if len(data) > MAX_FILE_BYTES:
        raise RuleFileError(f"over {MAX_FILE_BYTES >> 20} MiB of rules")
    return data


def has_wanted_content(rule: Rule) -> bool:
    """Tell whether one scan for all rules can look for bytes that must be there."""
    return any(isinstance(part, Content) and not part.is_negated for part in rule.parts)


def _lines(text: str) -> Iterator[_Line]:
    """Yield what is no comment, joined where a line ends with a backslash."""
    pending: _Line | None = None
    for number, physical in enumerate(text.split("\n"), 1):
        physical = physical.removesuffix("\r")
        if pending is None:
            if not physical.strip() or physical.lstrip().startswith("#"):
                continue
            pending = _Line("", number)
        pending.starts.append(len(pending.text))
        if physical.endswith("\\"):
            pending.text += physical[:-1] + " "
            continue
        pending.text += physical
        yield pending
        pending = None
    if pending is not None:
        yield pending


def _head(text: str, start: int) -> tuple[list[tuple[str, int]], int]:
    """Return the seven words before the bracket, each with its place, and where that is."""
    names = ("action", "protocol", "source", "port", "direction", "destination", "port")
    words: list[tuple[str, int]] = []
    offset = start
    for name in names:
        while text[offset : offset + 1].isspace():
            offset += 1
        begin = offset
        depth = 0
        while offset < len(text) and (depth or not (text[offset].isspace() or text[offset] == "(")):
            depth += {"[": 1, "]": -1}.get(text[offset], 0)
            offset += 1
        if depth:
            raise RuleError(begin, "a list of addresses without its ]")
        if offset == begin:
            raise RuleError(begin, f"expected {name}: {' '.join(names)} (options)")
        words.append((text[begin:offset], begin))
    while text[offset : offset + 1].isspace():
        offset += 1
    if not text.startswith("(", offset):
        raise RuleError(offset, "expected ( before the options")
    return words, offset


def _action(word: str, at: int) -> Action:
    if word == "rejectsrc":
        return Action.REJECT
    if reason := _REFUSED_ACTIONS.get(word):
        raise RuleError(at, f"{word}: {reason}")
    if word not in tuple(Action):
        raise RuleError(at, f"unknown action {word!r}; allowed: {', '.join(Action)}")
    return Action(word)


def _rule(
    number: int,
    action: Action,
    source: GuidSet,
    destination: GuidSet,
    is_two_way: bool,
    options: Options,
    at: int,
) -> Rule:
    if options.sid is None:
        raise RuleError(at, "no sid")
    if (options.rate is not None) != (action is Action.RATE_LIMIT):
        raise RuleError(at, "the action rate-limit and the option rate go together")
    return Rule(
        line=number,
        action=action,
        source=source,
        destination=destination,
        sid=options.sid,
        is_two_way=is_two_way,
        gid=options.gid,
        rev=options.rev,
        msg=options.msg,
        category=options.category,
        priority=options.priority if options.priority is not None else options.class_priority,
        metadata=tuple(options.metadata),
        parts=options.payload.parts(),
        size=options.payload.size,
        side=options.side,
        is_established=options.is_established,
        is_of_one_chunk=options.is_of_one_chunk,
        bits=tuple(options.bits),
        threshold=options.threshold,
        rate=options.rate,
        is_silent=options.is_silent,
    )
