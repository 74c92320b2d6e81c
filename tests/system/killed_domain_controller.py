"""A whole controller as a program, to be killed at a step of its writer: `CONFIG STEP COUNT`."""

from __future__ import annotations

import functools
import json
import os
import signal
import sys
from pathlib import Path

from packetcloud.domain_controller import daemon
from packetcloud.domain_controller.config import DomainConfig
from packetcloud.domain_controller.state.writer import Writer


def main(config: Path, step: str, count: int) -> None:
    """Run until the step was reached so many times after the start; die there."""
    left = [0]

    def at_step(name: str) -> None:
        if name == step and left[0]:
            left[0] -= 1
            if left[0] == 0:
                os.kill(os.getpid(), signal.SIGKILL)

    def started(running: daemon.DomainDaemon) -> None:
        left[0] = count
        print(json.dumps({"api": running.url}), flush=True)

    daemon.Writer = functools.partial(Writer, at_step=at_step)  # type: ignore[misc, assignment]
    daemon.run_domain(DomainConfig.load(config), started)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]))
