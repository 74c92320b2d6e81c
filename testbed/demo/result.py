"""What a scenario gave, and whether anything was lost, doubled or altered."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

Figures = Mapping[str, Any]

_OUT = ("sent_on", "delivered", "replaced", "refused", "expired", "dropped", "held")


@dataclass(frozen=True, slots=True)
class ScenarioResult:
    """One file's journey."""

    name: str
    sha256: str
    """Of the file before anybody touched it."""
    sent: Figures
    """What host A says."""
    received: Figures
    """What host B says."""
    conservation: Figures
    """The router's sums over every chunk, reports and answers included."""
    services: Mapping[str, Figures] = field(default_factory=dict)
    """What the router says about each service, in the order of the sequence."""

    @property
    def goodput_gbps(self) -> float:
        """Bytes of the file per second, from A's first question to B's last answer."""
        seconds = float(self.sent["seconds"])
        return self.sent["bytes"] * 8e-9 / seconds if seconds > 0 else 0.0

    @property
    def chunks_sent(self) -> int:
        sums = self.conservation
        return int(sums["taken_in"] + sums["originated"])

    @property
    def chunks_refused(self) -> int:
        """Everything that was given up, with its reason."""
        sums = self.conservation
        return int(sums["refused"] + sums["expired"] + sums["dropped"])

    @property
    def problems(self) -> list[str]:
        """Everything that is not as it must be; empty for a journey without fault."""
        found = []
        if not self.sha256 == self.sent["sha256"] == self.received["sha256"]:
            found.append(
                f"altered: SHA-256 {self.sha256}, host A says {self.sent['sha256']}, "
                f"host B says {self.received['sha256']}"
            )
        if self.sent["bytes"] != self.received["bytes"]:
            sent, received = self.sent["bytes"], self.received["bytes"]
            found.append(f"lost or doubled: {sent} bytes sent, {received} received")
        sums = self.conservation
        if self.chunks_sent != sum(sums[name] for name in _OUT) or sums["balance"]:
            found.append(f"lost or doubled: the router's sums do not agree: {dict(sums)}")
        if self.chunks_refused:
            found.append(f"lost: {self.chunks_refused} chunks were given up on the way")
        if sums["held"]:
            found.append(f"lost: {sums['held']} chunks are still held after the end")
        for name, figures in self.services.items():
            if figures["skipped"]:
                found.append(f"{name} was skipped for {figures['skipped']} chunks")
        return found

    def to_document(self) -> dict[str, Any]:
        """The result as plain values, for the report."""
        return {
            "scenario": self.name,
            "ok": not self.problems,
            "problems": self.problems,
            "goodput_gbps": self.goodput_gbps,
            "sha256": self.sha256,
            "sent": dict(self.sent),
            "received": dict(self.received),
            "conservation": dict(self.conservation),
            "services": [
                {"service": name, **service_times(figures), **figures}
                for name, figures in self.services.items()
            ],
        }


def service_times(figures: Figures) -> dict[str, float]:
    """Median and 99th percentile of what one visit took, in ms."""
    return {
        "processing_p50_ms": figures["processing"]["p50_s"] * 1e3,
        "delivery_p50_ms": figures["delivery"]["p50_s"] * 1e3,
        "delay_penalty_p50_ms": figures["delay_penalty"]["p50_s"] * 1e3,
        "delay_penalty_p99_ms": figures["delay_penalty"]["p99_s"] * 1e3,
    }
