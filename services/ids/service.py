"""The NetworkService: asks the rules about every chunk, tells alerts, refuses what they refuse."""

from __future__ import annotations

import logging
import time

from packetcloud.chunk.errors import ProtocolError
from packetcloud.chunk.header import ChunkHeader
from packetcloud.chunk.names import GUID
from packetcloud.services.errors import ParameterError
from packetcloud.services.ids import eve
from packetcloud.services.ids.flows import FLOW_SHARE, FlowTable
from packetcloud.services.ids.guid_sets import parse_lists
from packetcloud.services.ids.inspection import COUNTED, Decision, Doubt, Inspection, Policy
from packetcloud.services.ids.outlet import LineFile, Outlet
from packetcloud.services.ids.rates import Rates
from packetcloud.services.ids.state import export_state, import_state
from packetcloud.services.ids.versions import Reading, Version, Watcher, load_version
from packetcloud.services.parameters import Parameters
from packetcloud.services.sdk import (
    ChunkContext,
    EmittedChunk,
    NetworkService,
    ServiceChunk,
    ServiceContext,
    Verdict,
)

EMIT_ALLOWANCE_BYTES = 1024
"""What a verdict may carry however small its chunk is. Source: the reference of manifests."""
DOUBTS = {
    Doubt.OVER_BUDGET: "ids: over the work for one chunk",
    Doubt.OTHER_CONTENT: "ids: another content where one was before",
    Doubt.WRONG_DIGEST: "ids: its digest is not that of its payload",
    Doubt.NO_ROOM: "ids: no room for its ends now",
    Doubt.SEALED: "ids: encrypted or compressed before it came here",
}


class Ids(NetworkService):
    """Looks at every chunk and changes none."""

    def start(self, context: ServiceContext) -> None:
        parameters = context.parameters
        self._sid = context.sid
        self._log = context.log
        self._collector = _collector(parameters.text("collector"))
        self._excerpt_bytes = parameters.integer("payload_excerpt_bytes")
        self._stats_interval_s = parameters.integer("stats_interval_s")
        path = parameters.path("rules")
        how = Reading(
            parse_lists(parameters.text("lists")),
            parameters.text("ip_headers") == "widen",
            parameters.text("on_refused") == "skip",
        )
        self._watcher = Watcher(
            path, how, context.log
        )  # before the file is read: no change is lost
        self._version = load_version(path, how, context.log)
        flows = _flow_table(parameters)
        self._inspection = Inspection(
            self._version.ruleset,
            flows,
            Rates(parameters.integer("max_counted")),
            parameters.integer("budget_mib") << 20,
            policy=_policy(parameters),
        )
        self._outlet = Outlet(
            _alert_file(parameters, context.log),
            context.log,
            logs=parameters.flag("alert_log"),
            collects=self._collector is not None,
            lines_per_s=parameters.integer("alerts_per_s"),
        )
        self._switched_count = 0
        self._told_stats_at = time.monotonic()
        self._watcher.start()
        _log_version(context.log, self._version)

    def process(self, chunk: ServiceChunk, context: ChunkContext) -> Verdict:
        now = time.monotonic()
        if (version := self._watcher.take()) is not None:
            self._switch(version)
        decision = self._inspection.inspect(chunk.header, chunk.payload, now)
        if decision.alerts or decision.anomalies:
            self._tell(decision, chunk.header, chunk.payload, now)
        if self._stats_interval_s and now - self._told_stats_at >= self._stats_interval_s:
            self._tell_stats(now)
        if (rule := decision.refused_by) is not None:
            return Verdict.drop(f"ids: sid {rule.sid}: {rule.msg}")
        if decision.doubt is not None and decision.is_doubt_refused:
            # Runs grow old, so a later copy finds room; nothing else makes it another chunk.
            is_for_now = decision.doubt is Doubt.NO_ROOM
            return Verdict.drop(DOUBTS[decision.doubt], again=is_for_now)
        return (
            self._with_lines(len(chunk.payload)) if self._outlet.has_queued else Verdict.forward()
        )

    def stop(self) -> None:
        self._watcher.stop()
        if self._stats_interval_s:
            self._tell_stats(time.monotonic())
        self._outlet.close()

    def export_state(self) -> bytes:
        return export_state(self._inspection.flows, self._inspection.rates, time.monotonic())

    def import_state(self, state: bytes) -> None:
        import_state(state, self._inspection.flows, self._inspection.rates, time.monotonic())

    def stats(self) -> dict[str, object]:
        """Return all counters, and which rules are in force."""
        inspection, flows = self._inspection, self._inspection.flows
        return {
            "rules": self._version.rules_count,
            "rules_refused": self._version.refused_count,
            "rules_digest": self._version.digest,
            "rules_switched": self._switched_count,
            "rules_not_taken": self._watcher.failed_count,
            **{name: inspection.counts[name] for name in COUNTED},
            **self._outlet.figures(),
            "flows": len(flows),
            "flows_forgotten": flows.forgotten_flows_count,
            "borders_bytes": flows.kept_bytes,
            "borders_forgotten": flows.forgotten_borders_count,
            "alert_shares_forgotten": self._outlet.shares.forgotten_count,
            "alerts_most_suppressed": self._outlet.most_suppressed(),
            "marks_refused": flows.unmarked_count,
            "counted": len(inspection.rates),
            "counted_forgotten": inspection.rates.forgotten_count,
        }

    def _switch(self, version: Version) -> None:
        self._version = version
        self._inspection.switch(version.ruleset)
        self._switched_count += 1
        _log_version(self._log, version)

    def _tell(
        self, decision: Decision, header: ChunkHeader, payload: memoryview, now: float
    ) -> None:
        wall_s, source, outlet = time.time(), header.source.value, self._outlet
        for event in decision.anomalies:
            if (untold := outlet.alert(event, source, now)) is not None:
                side = decision.side
                outlet.write(eve.anomaly_line(event, header, side, self._sid, wall_s, untold))
        for alert in decision.alerts:
            if (untold := outlet.alert(alert.rule.key, source, now)) is not None:
                excerpt = bytes(payload[: self._excerpt_bytes])
                outlet.write(
                    eve.alert_line(alert, header, decision.side, self._sid, wall_s, excerpt, untold)
                )

    def _tell_stats(self, now: float) -> None:
        self._told_stats_at = now
        self._outlet.write(eve.stats_line(self._sid, time.time(), self.stats()))

    def _with_lines(self, payload_bytes: int) -> Verdict:
        """Forward the chunk, and send the collector what has room beside it."""
        assert self._collector is not None
        lines = self._outlet.take(payload_bytes + EMIT_ALLOWANCE_BYTES)
        if not lines:
            return Verdict.forward()
        return Verdict.emit([EmittedChunk(self._collector, lines)], keep=True)


def _collector(text: str) -> GUID | None:
    if not text:
        return None
    try:
        return GUID.from_hex(text)
    except ProtocolError as error:
        raise ParameterError(
            f"collector = {text!r}: {error}; allowed: a GUID, or nothing"
        ) from None


def _policy(parameters: Parameters) -> Policy:
    sealed = parameters.text("on_sealed")
    return Policy(
        drops_doubtful=parameters.text("on_overload") == "drop",
        drops_without_room=parameters.text("on_no_room") == "drop",
        drops_sealed=sealed == "drop",
        tells_sealed=sealed == "alert",
    )


def _flow_table(parameters: Parameters) -> FlowTable:
    edge_bytes, mib = parameters.integer("border_bytes"), parameters.integer("border_mib")
    least_mib = -(-FLOW_SHARE * 4 * edge_bytes >> 20)
    if mib < least_mib:
        raise ParameterError(
            f"border_mib = {mib}: one flow would have no room for ends of {edge_bytes} bytes; "
            f"allowed with border_bytes = {edge_bytes}: {least_mib} and more"
        )
    return FlowTable(
        parameters.integer("max_flows"), mib << 20, edge_bytes, parameters.integer("max_runs")
    )


def _alert_file(parameters: Parameters, log: logging.Logger) -> LineFile | None:
    if not parameters.text("alert_file"):
        return None
    max_bytes = parameters.integer("alert_file_mib") << 20
    return LineFile(parameters.path("alert_file"), max_bytes, log)


def _log_version(log: logging.Logger, version: Version) -> None:
    scanner = version.ruleset.scanner
    log.info(
        "rules %s in force: %d, by %s, %d bytes compiled",
        version.digest,
        version.rules_count,
        scanner.engine if scanner is not None else "no engine",
        scanner.size_bytes if scanner is not None else 0,
    )
