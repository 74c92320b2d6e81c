"""The hop protocol: reliable transfer of whole bodies between two neighbours, over UDP.

- `api`     what other rooms program against: Body, Neighbour, HopReceiver, HopConfig
"""
