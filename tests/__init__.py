"""Tests; shared doubles are imported by their full name, `tests.unit.<room>.<module>`."""
