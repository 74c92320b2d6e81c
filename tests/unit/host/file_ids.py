"""The transfer, the file and the source that the tests of file transfers name."""

ID, KEY, SOURCE = b"i" * 16, b"k" * 16, b"s" * 20
