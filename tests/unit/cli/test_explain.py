"""`packetcloud rule explain`; at a router that runs: see tests/functional."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from packetcloud.chunk import pcapng
from packetcloud.chunk.identity import create_identity_file
from packetcloud.cli.main import main
from tests.unit.cli.test_captures import BEGINNING, packet_of
from tests.unit.router.router_fakes import A, B, C, S, T, chunk

Streams = pytest.CaptureFixture[str]
HEAD = 'format = "packetcloud-rules-1"\nset = "{}"\nserial = {}\naudience = "any"\n'


def document(path: Path, *rules: str, serial: int = 1, head: str = "") -> Path:
    text = HEAD.format(path.stem.split("-")[0], serial) + head
    path.write_text(text + "".join(f"[[rule]]\n{rule}\n" for rule in rules))
    return path


def rule(name: str, service: str = S.hex, **fields: object) -> str:
    values = {"name": name, "service": service, "destination": B.hex} | fields
    return "\n".join(f"{key} = {json.dumps(value)}" for key, value in values.items())


def explain(*options: object) -> int:
    return main(["rule", "explain", *map(str, options)])


def explained(capsys: Streams, *options: object, code: int = 0) -> dict[str, Any]:
    assert explain(*options, "--format", "json") == code
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


FROM_TO = ("--source", A.hex, "--destination", B.hex)


@pytest.fixture
def web(tmp_path: Path) -> Path:
    return document(
        tmp_path / "web.toml",
        rule("visit"),
        rule("pass", action="pass", size_min=10, priority=3),
        rule("words", T.hex) + '\npatterns = { text = "secret" }',
        rule("elsewhere", destination=C.hex),
    )


def outcomes(told: dict[str, Any]) -> list[tuple[str, str]]:
    return [(one["name"], one["missed"] or one["outcome"]) for one in told["rules"]["findings"]]


def test_a_chunk_of_fields(web: Path, tmp_path: Path, capsys: Streams) -> None:
    """Rules by rank with what each misses; the services in the order of the visit."""
    told = explained(capsys, "--rules", web, *FROM_TO)
    assert outcomes(told) == [("pass", "size"), ("visit", "decides"), ("words", "pattern")]
    assert told["rules"]["others"] == 1
    assert [one["service"] for one in told["steps"]] == [S.hex]
    assert told["steps"][0]["rule"] == "web/visit"
    payload = tmp_path / "payload"
    payload.write_bytes(b"a secret of some length")
    told = explained(capsys, "--rules", web, *FROM_TO, "--payload-file", payload)
    assert outcomes(told) == [("pass", "decides"), ("visit", "outranked"), ("words", "decides")]
    assert [one["service"] for one in told["steps"]] == [T.hex]
    told = explained(capsys, "--rules", web, *FROM_TO, "--size", "10")
    assert told["rules"]["has_payload"] is False
    assert outcomes(told)[0] == ("pass", "decides")


def test_what_a_chunk_asks_for_is_visited_too(web: Path, capsys: Streams) -> None:
    """By its own wish and by rules, each once; what is asked for twice is refused: exit code 1."""
    told = explained(capsys, "--rules", web, *FROM_TO, "--sid", T.hex, "--sid", S.hex)
    assert [(one["service"], one["is_asked"]) for one in told["steps"]] == [
        (S.hex, True),
        (T.hex, True),
    ]
    told = explained(capsys, "--rules", web, *FROM_TO, "--sid", S.hex, "--sid", S.hex, code=1)
    assert told["refused"] == "unsupported"


def test_a_config_says_priorities_and_which_services_there_are(
    web: Path, tmp_path: Path, capsys: Streams
) -> None:
    """The larger priority first; a rule to a service that is not listed is told."""
    create_identity_file(tmp_path / "r1.key")
    config = tmp_path / "r1.toml"
    config.write_text(
        '[router]\nname = "r1"\nkey_file = "r1.key"\nna = 1\n'
        f'[[service]]\nsid = "{T.hex}"\nname = "t"\npriority = 5\n'
    )
    more = document(tmp_path / "more.toml", rule("also", T.hex))
    told = explained(capsys, "--rules", web, "--rules", more, "--config", config, *FROM_TO)
    assert [(one["name"], one["priority"]) for one in told["steps"]] == [("t", 5)]
    assert told["notes"] == [f"the config does not list service {S.hex}, to which web/visit leads"]
    strict = document(tmp_path / "strict.toml", rule("must", S.hex, if_absent="refuse", priority=1))
    told = explained(capsys, "--rules", strict, "--config", config, *FROM_TO, code=1)
    assert told["refused"] == "unknown_sid" and told["steps"] == []
    assert told["detail"] == f"rule strict/must demands service {S.hex}"
    assert [one["if_absent"] for one in told["rules"]["findings"]] == ["refuse"]
    assert explain("--rules", strict, "--config", config, *FROM_TO) == 1
    assert "visit or refuse" in capsys.readouterr().out


def test_documents_are_taken_one_after_the_other(
    web: Path, tmp_path: Path, capsys: Streams
) -> None:
    """A later one of the same set changes, withdraws and replaces; ages stay."""
    second = tmp_path / "web-2.toml"
    document(second, rule("visit", T.hex), serial=2)
    second.write_text(
        second.read_text().replace("serial = 2\n", 'serial = 2\nwithdraw = ["words"]\n')
    )
    told = explained(capsys, "--rules", web, "--rules", second, *FROM_TO)
    assert outcomes(told) == [("pass", "size"), ("visit", "decides")]
    assert told["steps"][0]["service"] == T.hex
    third = document(tmp_path / "web-3.toml", rule("pass"), serial=3, head="replace = true\n")
    told = explained(capsys, "--rules", web, "--rules", third, *FROM_TO)
    assert outcomes(told) == [("pass", "decides")]
    twice = document(tmp_path / "web-4.toml", rule("pass"), rule("pass"), serial=4)
    for file, words in ((web, "replayed: serial 1"), (twice, "stands further up")):
        files = ["--rules", str(third), "--rules", str(file)]
        assert main(["rule", "explain", *files, *map(str, FROM_TO)]) == 2
        error = capsys.readouterr().err
        assert error.startswith(f"packetcloud: {file}: ") and words in error


def test_signed_documents_of_others_are_third_parties(tmp_path: Path, capsys: Streams) -> None:
    """With --router-key only what these keys signed is the ISP's."""
    create_identity_file(tmp_path / "isp.key")
    create_identity_file(tmp_path / "tenant.key")
    files = []
    for name, priority in (("isp", 0), ("tenant", 9)):
        written = document(tmp_path / f"{name}.toml", rule(name, priority=priority))
        files.append(tmp_path / f"{name}.rules")
        key = str(tmp_path / f"{name}.key")
        assert main(["rule", "sign", str(written), "--key", key, "-o", str(files[-1])]) == 0
    capsys.readouterr()
    options = ("--rules", files[0], "--rules", files[1], *FROM_TO)
    assert outcomes(explained(capsys, *options))[0] == ("tenant", "decides")
    told = explained(capsys, *options, "--router-key", tmp_path / "isp.key")
    assert outcomes(told) == [("isp", "decides"), ("tenant", "outranked")]
    assert [one["is_own"] for one in told["rules"]["findings"]] == [True, False]


def test_another_time(tmp_path: Path, capsys: Streams) -> None:
    """Validity is judged by --at."""
    rules = document(tmp_path / "web.toml", rule("later", valid_from="2099-01-01T00:00:00Z"))
    assert outcomes(explained(capsys, "--rules", rules, *FROM_TO)) == [("later", "not yet valid")]
    told = explained(capsys, "--rules", rules, *FROM_TO, "--at", "2099-06-01T00:00:00Z")
    assert outcomes(told) == [("later", "decides")]


def test_a_chunk_of_a_capture(web: Path, tmp_path: Path, capsys: Streams) -> None:
    """By the packet that it begins in, from the neighbour that its comment names; one that is cut
    off has no payload to look into."""
    path = tmp_path / "seen.pcapng"
    secret = chunk(payload=b"secret")
    path.write_bytes(
        BEGINNING
        + packet_of(chunk(source=C), 1, f"taken; from=router {T.hex}; rules=4")
        + packet_of(secret, 2)
        + packet_of(secret, 3, kept=len(secret) - 2)
        + pcapng.statistics(0, 0)
    )
    told = explained(capsys, "--rules", web, "--capture", path)
    assert (told["ingress"], told["chunk"]["source"]) == (T.hex, C.hex)
    told = explained(capsys, "--rules", web, "--capture", path, "--packet", 2)
    assert (told["ingress"], told["rules"]["has_payload"]) == (A.hex, True)
    assert ("words", "decides") in outcomes(told)
    told = explained(capsys, "--rules", web, "--capture", path, "--packet", 3)
    assert told["rules"]["has_payload"] is False
    assert ("words", "pattern") in outcomes(told)
    assert explain("--rules", web, "--capture", path, "--packet", 9) == 2
    assert "no chunk begins in packet 9" in capsys.readouterr().err


def test_the_table_says_it_in_words(web: Path, capsys: Streams) -> None:
    """What people look for stands in the rows."""
    assert explain("--rules", web, *FROM_TO, "--size", "20") == 0
    out = " ".join(capsys.readouterr().out.split())
    for text in (
        "visits no service here",
        "web/pass 2 ISP 3 pass 73737373 decides",
        "web/visit 1 ISP 0 visit 73737373 outranked by web/pass",
        "that name nothing of it 1",
        "patterns not looked for",
    ):
        assert text in out


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ((), "or --live. Try"),
        (("--source", A.hex), "go together"),
        ((*FROM_TO, "--live", A.hex, B.hex), "give one of"),
        ((*FROM_TO, "--at", "2020-01-01T00:00:00Z"), "are for --rules"),
        ((*FROM_TO, "--url", "127.0.0.1:1"), "is the router running"),
        (("--live", A.hex, B.hex, "--rules", "x"), "does not go with --rules"),
    ],
)
def test_wrong_options_are_named(capsys: Streams, options: tuple[str, ...], text: str) -> None:
    """Exit code 2 and what goes together."""
    assert explain(*options) == 2
    assert text in capsys.readouterr().err


def test_a_refused_item_is_named(tmp_path: Path, capsys: Streams) -> None:
    """Explaining with half of the rules would mislead."""
    rules = document(tmp_path / "web.toml", rule("bad", colour="blue"))
    assert explain("--rules", rules, *FROM_TO) == 2
    assert "colour" in capsys.readouterr().err
