"""The cloudlet's end of the channel to the domain controller; what it decides is in the core.

- `settings`     `[domain]` of the config file, checked
- `translation`  frames of the channel, and the core's events and commands
- `report`       what the cloudlet says of itself
- `link`         opens the channel, again and again; sends, receives, reports, has meters read

Source: docs/decisions/0015-domain-controller.md; docs/protocol/channel.md.
"""
