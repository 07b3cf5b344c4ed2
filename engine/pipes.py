"""Commands whose output is cut off by its reader, as `| head` does, end quietly."""

import os
import select
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress

EXIT_CODE = 141  # 128 + SIGPIPE, as a shell gives it for other programs


@contextmanager
def quiet_pipes() -> Iterator[None]:
    """Exit with 141 where standard output or error has no reader any more; other broken pipes are raised as ever."""
    try:
        try:
            yield
        except SystemExit:
            sys.stdout.flush()
            raise
        sys.stdout.flush()  # here: at the interpreter's exit it could not be caught
    except BrokenPipeError:
        left = [stream for stream in (1, 2) if _reader_left(stream)]
        if not left:  # a worker's pipe, say
            raise
        nowhere = os.open(os.devnull, os.O_WRONLY)
        for stream in left:
            os.dup2(nowhere, stream)
        sys.exit(EXIT_CODE)


def _reader_left(stream: int) -> bool:
    if not hasattr(select, "poll"):
        return True
    poll = select.poll()
    with suppress(OSError):
        poll.register(stream, 0)
        return any(state & (select.POLLERR | select.POLLHUP) for _, state in poll.poll(0))
    return False
