"""Errors of the testbed: every one is for the person at the keyboard."""

from __future__ import annotations

from packetcloud.chunk.errors import PacketCloudError


class TestbedError(PacketCloudError):
    """Something that an experiment needs is not there or did not work; the text says what to do."""

    __test__ = False


class MissingToolError(TestbedError):
    """A peer program is not installed; the comparison with it is left out."""


class ChildError(TestbedError):
    """A process that we started ended early or said nothing in time; the text quotes it."""


class TopologyError(TestbedError):
    """The file of a topology says something that cannot be; the text names table and key."""
