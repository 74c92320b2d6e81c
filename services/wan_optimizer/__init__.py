"""Bundled service: compresses payloads before an expensive link, and restores them behind it.

- `service`  WanOptimizer, the NetworkService
- `framing`  the head that marks a payload as compressed or raw, and its limits

Source: MobiArch'13 paper, section 3.4 (WAN optimizer) and 4.1; docs/how-to/write-a-service.md.
"""
