"""Options of a rule that are not about the payload: its number, flow, marks, thresholds.

Source: Suricata user guide, "Meta Keywords", "Flow Keywords", "Thresholding Keywords".
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from packetcloud.services.ids.errors import RuleError
from packetcloud.services.ids.keywords import reason_to_refuse
from packetcloud.services.ids.payload_options import PayloadOptions, quoted
from packetcloud.services.ids.rule import (
    DEFAULT_PRIORITY,
    BitOperation,
    FlowBits,
    Rate,
    Side,
    Threshold,
    ThresholdKind,
    Track,
)

MAX_NUMBER = (1 << 32) - 1
MAX_COUNT = 1_000_000
"""Of a threshold, or chunks of a rate."""
MAX_SECONDS = 7 * 86_400
MAX_METADATA_COUNT = 32
MAX_MSG_LETTERS = 512
MAX_BITS_COUNT = 16
"""Operations on marks in one rule, and names in one of them."""

CLASS_PRIORITIES = {
    1: "attempted-admin attempted-user command-and-control credential-theft domain-c2 exploit-kit "
    "inappropriate-content policy-violation shellcode-detect successful-admin successful-user "
    "targeted-activity trojan-activity unsuccessful-user web-application-attack",
    2: "attempted-dos attempted-recon bad-unknown coin-mining default-login-attempt "
    "denial-of-service external-ip-check misc-attack non-standard-protocol pup-activity "
    "rpc-portmap-decode social-engineering successful-dos successful-recon-largescale "
    "successful-recon-limited suspicious-filename-detect suspicious-login system-call-detect "
    "unusual-client-port-connection web-application-activity",
    3: "icmp-event misc-activity network-scan not-suspicious protocol-command-decode "
    "string-detect unknown",
    4: "tcp-connection",
}
"""Class types of Snort and Suricata by their priority; `config classification:` adds others."""
Classes = Mapping[str, tuple[str, int]]
"""Class type -> what people read, and its priority."""
STANDARD_CLASSES: Classes = {
    name: (name.replace("-", " ").capitalize(), priority)
    for priority, names in CLASS_PRIORITIES.items()
    for name in names.split()
}

_OPTION = re.compile(
    r"\s*([A-Za-z0-9_.-]+)\s*(?::((?:[^\";\\]|\\.|\"(?:[^\"\\;]|\\.)*\")*))?;", re.DOTALL
)
_BIT_NAME = re.compile(r"[A-Za-z0-9_./-]{1,64}")
_WITHOUT_EFFECT = ("reference", "target", "prefilter")
_SIDES = {
    "to_server": Side.TO_SERVER,
    "from_client": Side.TO_SERVER,
    "to_client": Side.TO_CLIENT,
    "from_server": Side.TO_CLIENT,
}


@dataclass(slots=True)
class Options:
    """What stands between the brackets of a rule."""

    classes: Classes
    payload: PayloadOptions = field(default_factory=PayloadOptions)
    sid: int | None = None
    gid: int = 1
    rev: int = 0
    msg: str = ""
    category: str = ""
    priority: int | None = None
    class_priority: int = DEFAULT_PRIORITY
    metadata: list[tuple[str, str]] = field(default_factory=list)
    side: Side | None = None
    is_established: bool | None = None
    is_of_one_chunk: bool = False
    bits: list[FlowBits] = field(default_factory=list)
    threshold: Threshold | None = None
    rate: Rate | None = None
    is_silent: bool = False
    notes: list[str] = field(default_factory=list)
    _given: set[str] = field(default_factory=set)

    def read(self, text: str, start: int, end: int) -> None:
        """Take every option of `text[start:end]`.

        Raises:
            RuleError: at the first one that is not taken.
        """
        offset = start
        while text[offset:end].strip():
            found = _OPTION.match(text, offset, end)
            if found is None:
                raise _broken(text, offset, end)
            self._take(found[1], found[2], found.start(1), found.start(2))
            offset = found.end()

    def _take(self, keyword: str, value: str | None, at: int, value_at: int) -> None:
        notes = self.payload.take(keyword, value, at, value_at)
        if notes is not None:
            self.notes += notes
            return
        if keyword in _WITHOUT_EFFECT:
            if keyword != "reference":
                self.notes.append(f"{keyword}: no effect here")
            return
        taken = _TAKERS.get(keyword)
        if taken is None:
            raise RuleError(at, f"{keyword}: {reason_to_refuse(keyword)}")
        if keyword in self._given and keyword not in ("metadata", "flowbits"):
            raise RuleError(at, f"{keyword}: given twice")
        self._given.add(keyword)
        taken(self, (value or "").strip(), at)

    def _take_msg(self, value: str, at: int) -> None:
        is_negated, text, _ = quoted("msg", value, at)
        if is_negated:
            raise RuleError(at, "msg: cannot be negated")
        self.msg = re.sub(r"\\(.)", r"\1", text).encode("utf-8", "replace").decode()
        if len(self.msg) > MAX_MSG_LETTERS:
            raise RuleError(at, f"msg: {len(self.msg)} letters; allowed: {MAX_MSG_LETTERS}")

    def _take_number(self, keyword: str, value: str, at: int, least: int) -> int:
        if not value.isascii() or not value.isdigit() or not least <= int(value) <= MAX_NUMBER:
            raise RuleError(at, f"{keyword}: {value!r}; allowed: {least} to {MAX_NUMBER}")
        return int(value)

    def _take_class(self, value: str, at: int) -> None:
        known = self.classes.get(value.lower())
        if known is None:
            self.notes.append(f"classtype {value}: unknown; priority {DEFAULT_PRIORITY}")
            self.category = value[:255]
        else:
            self.category, self.class_priority = known

    def _take_metadata(self, value: str, at: int) -> None:
        for item in filter(None, map(str.strip, value.split(","))):
            key, _, rest = item.partition(" ")
            self.metadata.append((key, rest.strip()))
        if len(self.metadata) > MAX_METADATA_COUNT:
            raise RuleError(
                at, f"metadata: {len(self.metadata)} items; allowed: {MAX_METADATA_COUNT}"
            )

    def _take_flow(self, value: str, at: int) -> None:
        for word in map(str.strip, value.split(",")):
            if side := _SIDES.get(word):
                if self.side is not None and self.side is not side:
                    raise RuleError(at, "flow: both directions at once")
                self.side = side
            elif word in ("established", "not_established"):
                if self.is_established is not None:
                    raise RuleError(at, "flow: established or not, not both")
                self.is_established = word == "established"
            elif word == "no_stream":
                self.is_of_one_chunk = True
            elif word == "only_frag":
                raise RuleError(at, "flow:only_frag: chunks are never fragments")
            elif word in ("stateless", "only_stream", "no_frag"):
                self.notes.append(f"flow:{word}: true of every chunk")
            else:
                raise RuleError(at, f"flow: unknown word {word!r}")

    def _take_bits(self, value: str, at: int) -> None:
        word, comma, names_text = value.partition(",")
        word = word.strip()
        if word == "noalert" and not comma:
            self.is_silent = True
            return
        if word not in tuple(BitOperation):
            raise RuleError(at, f"flowbits: {word!r}; allowed: {', '.join(BitOperation)}, noalert")
        operation = BitOperation(word)
        names = tuple(name.strip() for name in names_text.split("|"))
        for name in names:
            if not _BIT_NAME.fullmatch(name):
                raise RuleError(at, f"flowbits: {name!r} is no name of a mark")
        is_question = operation in (BitOperation.IS_SET, BitOperation.IS_NOT_SET)
        if len(names) > 1 and not is_question:
            raise RuleError(at, f"flowbits: {word} takes one name")
        self.bits.append(FlowBits(operation, names))
        if max(len(self.bits), len(names)) > MAX_BITS_COUNT:
            raise RuleError(at, f"flowbits: allowed: {MAX_BITS_COUNT}")

    def _take_threshold(self, value: str, at: int) -> None:
        items = _items("threshold", value, at)
        kind = items.pop("type", "")
        if kind not in ("limit", "threshold", "both"):
            raise RuleError(at, f"threshold: type {kind!r}; allowed: limit, threshold, both")
        self._set_threshold(ThresholdKind(kind), items, at)

    def _take_filter(self, value: str, at: int) -> None:
        self._set_threshold(ThresholdKind.FILTER, _items("detection_filter", value, at), at)

    def _set_threshold(self, kind: ThresholdKind, items: dict[str, str], at: int) -> None:
        if self.threshold is not None:
            raise RuleError(at, "threshold and detection_filter do not go together")
        keyword = "detection_filter" if kind is ThresholdKind.FILTER else "threshold"
        _check_keys(keyword, items, ("track", "count", "seconds"), at)
        track, count, seconds = _tracked(keyword, items, "count", MAX_COUNT, at)
        self.threshold = Threshold(kind, track, count, seconds)

    def _take_rate(self, value: str, at: int) -> None:
        items = _items("rate", value, at)
        what = "bytes" if "bytes" in items else "chunks"
        _check_keys("rate", items, ("track", what, "seconds"), at)
        largest = MAX_NUMBER if what == "bytes" else MAX_COUNT
        track, amount, seconds = _tracked("rate", items, what, largest, at)
        self.rate = Rate(track, amount, seconds, what == "bytes")

    def _take_silence(self, value: str, at: int) -> None:
        self.is_silent = True

    def _take_sid(self, value: str, at: int) -> None:
        self.sid = self._take_number("sid", value, at, 1)

    def _take_gid(self, value: str, at: int) -> None:
        self.gid = self._take_number("gid", value, at, 1)

    def _take_rev(self, value: str, at: int) -> None:
        self.rev = self._take_number("rev", value, at, 0)

    def _take_priority(self, value: str, at: int) -> None:
        self.priority = self._take_number("priority", value, at, 1)
        if self.priority > 255:
            raise RuleError(at, f"priority: {self.priority}; allowed: 1 to 255")


_TAKERS: Mapping[str, Callable[[Options, str, int], None]] = {
    "msg": Options._take_msg,
    "sid": Options._take_sid,
    "gid": Options._take_gid,
    "rev": Options._take_rev,
    "priority": Options._take_priority,
    "classtype": Options._take_class,
    "metadata": Options._take_metadata,
    "flow": Options._take_flow,
    "flowbits": Options._take_bits,
    "noalert": Options._take_silence,
    "threshold": Options._take_threshold,
    "detection_filter": Options._take_filter,
    "rate": Options._take_rate,
}


def _items(keyword: str, value: str, at: int) -> dict[str, str]:
    """Read `type limit, track by_src, ...`."""
    items: dict[str, str] = {}
    for item in value.split(","):
        words = item.split()
        if len(words) != 2 or words[0] in items:
            raise RuleError(at, f"{keyword}: {item.strip()!r}; expected each key once: KEY VALUE")
        items[words[0]] = words[1]
    return items


def _check_keys(keyword: str, items: dict[str, str], wanted: tuple[str, ...], at: int) -> None:
    if unknown := sorted(set(items) - set(wanted)):
        raise RuleError(at, f"{keyword}: {unknown[0]}; allowed: {', '.join(wanted)}")
    if missing := sorted(set(wanted) - set(items)):
        raise RuleError(at, f"{keyword}: {missing[0]} is missing")


def _tracked(
    keyword: str, items: dict[str, str], what: str, largest: int, at: int
) -> tuple[Track, int, int]:
    if items["track"] not in tuple(Track):
        raise RuleError(at, f"{keyword}: track {items['track']}; allowed: {', '.join(Track)}")
    numbers = []
    for name, most in ((what, largest), ("seconds", MAX_SECONDS)):
        text = items[name]
        if not text.isascii() or not text.isdigit() or not 1 <= int(text) <= most:
            raise RuleError(at, f"{keyword}: {name} {text}; allowed: 1 to {most}")
        numbers.append(int(text))
    return Track(items["track"]), numbers[0], numbers[1]


def _broken(text: str, offset: int, end: int) -> RuleError:
    """Say what is wrong where no option could be read."""
    while offset < end and text[offset].isspace():
        offset += 1
    word = re.match(r"[A-Za-z0-9_.-]*", text[offset:end])
    name = word[0] if word else ""
    if not name:
        return RuleError(offset, f"expected an option, found {text[offset : offset + 1]!r}")
    rest = text[offset + len(name) : end]
    is_quoted, place = False, 0
    while place < len(rest):
        letter = rest[place]
        if letter == "\\":
            place += 1
        elif letter == '"':
            is_quoted = not is_quoted
        elif letter == ";" and is_quoted:
            return RuleError(offset + len(name) + place, r"a ; in quotes is written \; or |3B|")
        elif letter == ";":
            return RuleError(offset, f"{name}: expected : or ; behind it")
        place += 1
    what = "quotes are not closed" if is_quoted else "the option does not end with ;"
    return RuleError(offset, f"{name}: {what}")
