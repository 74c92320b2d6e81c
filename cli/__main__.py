"""Run the command as `python -m packetcloud.cli`."""

from __future__ import annotations

import sys

from packetcloud.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
