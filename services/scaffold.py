"""`service new`: a folder with a service to start from, its manifest and its test."""

from __future__ import annotations

import re
from pathlib import Path

from packetcloud.services.errors import ServiceConfigError

_MANIFEST = """\
manifest = 1

[service]
name = "{name}"
version = "0.1.0"
summary = "Says in one line what it does."
entry_point = "{module}:{class_name}"

[parameters.greeting]
type = "string"
default = "hello"
summary = "What is put before every payload."

[resources]
memory_mib = 128

[behaviour]
# No verdict from any VI: "open" sends the chunk on without the service, "closed" refuses it.
fail_policy = "open"
idempotent = true
deadline_ms = 2000
max_expansion_ratio = 1.5
"""

_MODULE = '''\
"""{class_name}: a PacketCloud service. Try it: packetcloud service test manifest.toml"""

from __future__ import annotations

from packetcloud.services.sdk import (
    ChunkContext,
    NetworkService,
    ServiceChunk,
    ServiceContext,
    Verdict,
)


class {class_name}(NetworkService):
    """Puts a greeting before every payload."""

    def start(self, context: ServiceContext) -> None:
        self._greeting = context.parameters.text("greeting").encode() + b" "

    def process(self, chunk: ServiceChunk, context: ChunkContext) -> Verdict:
        if not chunk.payload:
            return Verdict.drop("nothing to greet")
        length = len(self._greeting) + len(chunk.payload)
        output = context.output_buffer(length)
        output[: len(self._greeting)] = self._greeting
        output[len(self._greeting) :] = chunk.payload
        return Verdict.update(output)
'''

_TEST = '''\
"""The service without a network."""

from pathlib import Path

from packetcloud.chunk.messages import VerdictCode
from packetcloud.services.testing import ServiceHarness

MANIFEST = Path(__file__).with_name("manifest.toml")


def test_greets() -> None:
    with ServiceHarness(MANIFEST, {{"greeting": "good day"}}) as harness:
        result = harness.process(b"world")
        assert (result.code, result.payload) == (VerdictCode.UPDATE, b"good day world")


def test_drops_the_empty_payload_with_a_reason() -> None:
    with ServiceHarness(MANIFEST) as harness:
        result = harness.process(b"")
        assert (result.code, result.reason) == (VerdictCode.DROP, "nothing to greet")
'''


def create_service(name: str, parent: Path) -> list[Path]:
    """Write the folder `parent/name` and return its files; nothing existing is overwritten.

    Raises:
        ServiceConfigError: not a name, or the folder exists.
    """
    if not re.fullmatch(r"[a-z][a-z0-9]*(-[a-z0-9]+)*", name) or len(name) > 63:
        raise ServiceConfigError(
            f"{name!r} is not a service name: lower-case words joined by '-', at most 63 letters"
        )
    folder = parent / name
    words = {
        "name": name,
        "module": f"{name.replace('-', '_')}_service",
        "class_name": "".join(word.capitalize() for word in name.split("-")),
    }
    files = {
        folder / "manifest.toml": _MANIFEST,
        folder / f"{words['module']}.py": _MODULE,
        folder / f"test_{words['module']}.py": _TEST,
    }
    try:
        folder.mkdir(parents=True)
    except FileExistsError:
        raise ServiceConfigError(f"{folder} exists already; choose another name") from None
    for path, text in files.items():
        path.write_text(text.format(**words))
    return list(files)
