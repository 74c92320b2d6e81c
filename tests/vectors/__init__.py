"""Versioned wire vectors: bytes, the fields they mean, and bytes that must be refused and why.

- `chunk_v1`, `hop_v2`   what is in chunk-v1.json and hop-v2.json; `python -m tests.vectors.hop_v2`
                         compares the file with the code, `--write` writes it anew
- `chunk_v1_valid`, `hop_v2_valid`      the values behind the good vectors
- `chunk_v1_invalid`, `hop_v2_invalid`  the bad ones, made by hand
- `rules_v1`             what is in rules-v1.json: grants and signed documents of rules
- `fields`, `file`       values as JSON and back; a vector file

The JSON files are the specification by example, for any implementation in any language. They change
only on purpose: a changed vector is a changed protocol.
"""
