"""Writes rules into the store in a thread of its own, while the next ones are read.

SQLite lets the interpreter go while it works, so reading and writing take a processor each. All of
it is part of the change that the caller began and ends. Source: docs/decisions/0012.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Self

QUEUED_COUNT = 2
"""Batches that wait; whoever puts one more waits."""

Work = Callable[[], None]


class RuleWriter:
    """A thread that does one work after the other, in the order in which they came.

    To be used as a context, and within a change of the store: at its end all is done; after an
    exception what waits is left undone, and nothing runs any more.
    """

    def __init__(self) -> None:
        self._works: queue.Queue[Work | None] = queue.Queue(QUEUED_COUNT)
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="rule-writer", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if error is not None and self._error is None:
            self._error = error  # what waits is not done
        self._works.put(None)
        self._thread.join()
        if error is None:
            self._raise()

    def put(self, work: Work) -> None:
        """Have something done. Raises: what an earlier work raised."""
        self._raise()
        self._works.put(work)

    def flush(self) -> None:
        """Wait until all is done. Raises: what one of them raised."""
        self._works.join()
        self._raise()

    def _raise(self) -> None:
        if self._error is not None:
            raise self._error

    def _run(self) -> None:
        while (work := self._works.get()) is not None:
            try:
                if self._error is None:
                    work()
            except BaseException as error:  # raised where the next work is put
                self._error = error
            finally:
                self._works.task_done()
