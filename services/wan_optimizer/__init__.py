"""Bundled service: makes payloads smaller before an expensive link, and restores them behind it.

- `service`      WanOptimizer, the NetworkService
- `compressing`  one direction: what becomes of a payload before the link
- `restoring`    the other one: what comes out behind it, or why nothing does
- `framing`      the heads that framed payloads begin with, and their limits
- `zstd`         zstandard, into given buffers, with what both sides know as its dictionary
- `anchors`      places in a payload that are found again wherever it was moved to
- `sent`         what compress sent and may refer to: histories, their blocks, where they are alike
- `peers`        what compress was told of the caches behind the link
- `kept`         what decompress keeps of each history
- `feedback`     what decompress tells compress
- `sealing`      keyed digests of frames and feedback
- `dictionaries` trained dictionaries for small payloads

Source: MobiArch'13 paper, sections 3.4 (WAN optimizer) and 4.1; docs/decisions/0018.
"""
