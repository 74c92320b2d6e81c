"""Errors of the cloudlet room. Who is wrong decides the class.

`CloudletConfigError`: the operator wrote something that cannot be; the text names the file, the
key and what is allowed, and the command exits with 2. `NodeError` and what is under it: a node did
not do what was asked; each says whether asking again can help.
"""

from __future__ import annotations

from packetcloud.chunk.errors import PacketCloudError


class CloudletError(PacketCloudError):
    """Anything of the cloudlet's that the operator may have to read."""


class CloudletConfigError(CloudletError):
    """A file of the cloudlet cannot be used: file, table, key, what is allowed there."""


class NodeError(CloudletError):
    """A compute node did not do what was asked."""


class NodeUnreachableError(NodeError):
    """No answer, or none in time: it may have done it or not. Ask again; that is always safe.

    Look whether LXD runs on the node, and whether its address and certificate are as configured.
    """


class ContainerExistsError(NodeError):
    """Another container has this name. Asking again gives the same answer."""


class ContainerMissingError(NodeError):
    """The node has no container of this name."""


class NoRoomError(NodeError):
    """The node has too little memory, disk or addresses left for this. Try another node."""


class NodeRefusedError(NodeError):
    """The node will not do this, now or later; the text is its reason."""


class StoreError(CloudletError):
    """The controller's database does not take what must be kept: nothing more is done.

    Make room on its disk, or mend that; then start the controller again. VIs and router go on.
    """
