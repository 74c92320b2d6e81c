"""Bundled service: looks in chunks for what rules describe, alerts, drops, limits rates.

What a rule file says
- `errors`            what is wrong with a rule, a file, an expression
- `guid_sets`         address fields: GUIDs, lists, all but some
- `rule`              a rule as a value
- `keywords`          keywords that are refused, and why
- `pcre`              the option `pcre`
- `byte_options`      the options `byte_test` and `byte_jump`
- `payload_options`   options about the payload
- `options`           all others
- `reader`            from a file to rules and refusals with line and column
- `check`             what of a file is taken, ignored and refused

What is done with a chunk
- `scanner`           one pass for the contents of all rules: the interface
- `hyperscan_scanner` by Hyperscan
- `windows`           the bytes by which it recognises a content
- `re2_scanner`       by RE2
- `byte_values`       numbers in payloads
- `matching`          exact confirmation of one rule, within a budget
- `ruleset`           compiled rules in their order
- `borders`           ends of chunks, for what lies over their border
- `flows`             who began a flow, its marks, its borders
- `rates`             thresholds and rates
- `shares`            who may tell how many alerts
- `inspection`        core: what becomes of one chunk
- `eve`               alerts and statistics as JSON

What touches files, clocks and threads
- `versions`          the rule file, read again when it changes
- `outlet`            where alerts go
- `state`             what a successor takes over
- `service`           Ids, the NetworkService

Source: docs/reference/ids.md; Suricata user guide.
"""
