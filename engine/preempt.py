"""Stop at the end of a step when a scheduler or a user asks for it: SIGTERM (spot machines, torchrun) or SIGUSR1."""

import signal
import threading
from types import FrameType, TracebackType
from typing import Any

import torch
import torch.distributed as dist

from engine.distributed import world

SIGNALS = [getattr(signal, name) for name in ("SIGTERM", "SIGUSR1") if hasattr(signal, name)]
EXIT_CODE = 85  # of a run that was stopped by a signal and has saved


class Preempted(Exception):
    """A signal ended the run; its last checkpoint is of the step it had reached."""


class Preemption:
    """From `listen` to the end of the context a signal no longer kills: `agreed` says, on every rank at the same step,
    that the run has to end.

    Ranks get their signals at different times, and some get none. So every step each tells the others on the CPU
    whether it was asked, and reads the answer one step later: nobody waits, and no device is read.

    Outside the main thread, where Python takes no signals, it does nothing.
    """

    def __init__(self, device: torch.device) -> None:
        self.received: signal.Signals | None = None
        self.group: Any = dist.new_group(backend="gloo") if world() > 1 and device.type == "cuda" else None
        self.asked = torch.zeros((), dtype=torch.int32)
        self.told: Any = None
        self.before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> "Preemption":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self.before.items():
            signal.signal(number, handler)

    def listen(self) -> None:
        """Take the signals; before, while there is nothing to save, they end the process as ever."""
        if threading.current_thread() is threading.main_thread():
            self.before = {number: signal.signal(number, self._receive) for number in SIGNALS}

    def _receive(self, number: int, frame: FrameType | None) -> None:
        self.received = signal.Signals(number)

    def agreed(self) -> bool:
        """Whether any rank had been asked to stop: by now with one rank, by the previous call with several.

        Every rank has to call it once a step.
        """
        if world() == 1:
            return self.received is not None
        stop = False
        if self.told is not None:
            self.told.wait()
            stop = bool(self.asked)
        self.asked.fill_(self.received is not None)
        self.told = dist.all_reduce(self.asked, dist.ReduceOp.MAX, self.group, async_op=True)
        return stop

    def settle(self) -> None:
        """Wait for the last answer: before a barrier, so that no rank leaves while another still reads it."""
        if self.told is not None:
            self.told.wait()


def leave_signals_to_parent(worker: int = 0) -> None:
    """In a data loader's worker: a scheduler signals all processes, and the parent still needs its batches."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)
