"""Versioned wire vectors: bytes, the fields they mean, and bytes that must be refused and why.

- `chunk_v1`          what is in chunk-v1.json, and `python -m tests.vectors.chunk_v1 --write`
- `chunk_v1_valid`    the values behind the good vectors
- `chunk_v1_invalid`  the bad ones, made by hand
- `fields`            the values as JSON and back

The JSON files are the specification by example, for any implementation in any language. They change
only on purpose: a changed vector is a changed protocol.
"""
