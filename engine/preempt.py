"""Stop at the end of a step, with a checkpoint, when a scheduler or a user asks for it.

SIGTERM (spot machines, torchrun), SIGUSR1 and SIGUSR2 (Slurm, submitit), SIGHUP (a lost terminal): exit code 85.
SIGINT (Ctrl-C): exit code 130; a second one aborts at once. Before the first step there is nothing new to save, so any
of them ends the run at once, with the same exit code: the checkpoint that it would go on from lies in the folder.

Nothing here imports torch at the top: the signals are heard while that is still loading.
"""

import os
import signal
import threading
import time
from types import FrameType, TracebackType
from typing import Any

SIGNALS = [
    getattr(signal, name) for name in ("SIGTERM", "SIGUSR1", "SIGUSR2", "SIGHUP", "SIGINT") if hasattr(signal, name)
]
EXIT_CODE = 85  # of a run that a signal stopped
INTERRUPTED = 130  # of a run that Ctrl-C stopped
ECHO = 1.0  # seconds in which a second SIGINT under torchrun is the same key: the terminal and torchrun both send it


class Preempted(BaseException):
    """A signal ended the run; its last checkpoint is of the step it had reached. `code` is the exit code.

    No Exception: it can be raised anywhere, also in a library that makes errors of its own of those.
    """

    def __init__(self, message: str, code: int = EXIT_CODE) -> None:
        super().__init__(message)
        self.code = code


class Preemption:
    """In its context a signal no longer kills: before `listen` it raises Preempted (Ctrl-C: KeyboardInterrupt), and
    from then on `agreed` says, on every rank at the same step, that the run has to end.

    Ranks get their signals at different times, and some get none. So every step each tells the others on the CPU
    whether it was asked, and reads the answer one step later: nobody waits, and no device is read.

    Outside the main thread, where Python takes no signals, it does nothing. An ignored SIGINT or SIGHUP (nohup, a job
    in the background) stays ignored.
    """

    def __init__(self) -> None:
        self.received: int | None = None
        self.since = 0.0
        self.listening = False
        self.ended: BaseException | None = None  # what a signal raised
        self.code = EXIT_CODE
        self.world = int(os.environ.get("WORLD_SIZE", "1"))
        self.group: Any = None
        self.asked: Any = None
        self.told: Any = None
        self.before: dict[int, Any] = {}

    def __enter__(self) -> "Preemption":
        if threading.current_thread() is threading.main_thread():
            for number in SIGNALS:
                before = signal.getsignal(number)
                if before is signal.SIG_IGN and number in (signal.SIGINT, getattr(signal, "SIGHUP", None)):
                    continue
                self.before[number] = before
                signal.signal(number, self._receive)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self.before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
        if self.ended is not None and isinstance(error, Exception):
            raise self.ended from error  # a library, interrupted in the middle, failed in its own way

    def listen(self, device: Any) -> None:
        """From now on a signal waits for the end of the step. Every rank has to call it, with its device."""
        if self.world > 1:
            import torch
            import torch.distributed as dist

            self.group = dist.new_group(backend="gloo") if device.type == "cuda" else None
            self.asked = torch.zeros((), dtype=torch.int32)
        self.listening = True

    def _receive(self, number: int, frame: FrameType | None) -> None:
        again, before, self.received = self.received == number, self.since, number
        self.since = time.monotonic()
        if number == signal.SIGINT:
            echo = self.world > 1 and self.since - before < ECHO
            if not self.listening or (again and not echo):
                self.ended = KeyboardInterrupt()
                raise self.ended
        elif not self.listening and not again:
            self.ended = Preempted(
                f"stopped by {signal.Signals(number).name} before its first step, with nothing new to save; the same "
                "command goes on"
            )
            raise self.ended

    def agreed(self) -> bool:
        """Whether any rank had been asked to stop: by now with one rank, by the previous call with several; `code` is
        then the exit code.

        Every rank has to call it once a step.
        """
        mine = 0 if self.received is None else INTERRUPTED if self.received == signal.SIGINT else EXIT_CODE
        if self.world == 1:
            found = mine
        else:
            import torch.distributed as dist

            found = 0
            if self.told is not None:
                self.told.wait()
                found = int(self.asked)
            self.asked.fill_(mine)
            self.told = dist.all_reduce(self.asked, dist.ReduceOp.MAX, self.group, async_op=True)
        self.code = found or EXIT_CODE
        return found > 0

    def settle(self) -> None:
        """Wait for the last answer: before a barrier, so that no rank leaves while another still reads it."""
        if self.told is not None:
            self.told.wait()


def leave_at_once() -> None:
    """Until a `Preemption` begins, a scheduler's signal ends the process with its exit code: nothing is open yet."""
    for number in SIGNALS:
        if number != signal.SIGINT and signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, lambda *_: os._exit(EXIT_CODE))


def leave_signals_to_parent(worker: int = 0) -> None:
    """In a data loader's worker: a scheduler signals all processes, and the parent still needs its batches."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)
