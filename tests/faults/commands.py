"""Forks of one warm interpreter that run train.py's main function on a config composed before the fork.

torch and every module of a run are imported once, with one thread, so that a trial costs its own steps only.
"""

import multiprocessing.util
import os
import re
import resource
import signal
import socket
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch: a fork must not need the parent's threads

import torch
from hydra import compose, initialize_config_dir
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf, open_dict

from engine.config import register
from engine.launch import launch
from tests.compose import CONFIGS, entry_file

ENTRY = entry_file("train.py")
LIMIT = 240  # seconds after which a child counts as hung; the machine may be busy
STEPS = 6
LOST_PEER = re.compile(r"gloo|Connection (closed|reset|refused)|Dist(Backend|Store|Network)Error|Broken pipe")


MODULES = (  # of a run, imported once in the parent
    *("data.scenes", "data.shapes", "engine.build", "engine.guard", "engine.record", "engine.render", "evaluate"),
    *("engine.sampling", "engine.schedule", "losses.contrastive", "losses.spatial", "metrics.swd", "models.resnet"),
    *("models.spade", "torch.utils.tensorboard"),
)


def warm() -> None:
    """Import what a run needs, with one thread: a fork has no others."""
    torch.set_num_threads(1)
    for name in MODULES:
        import_module(name)


@cache
def composed(words: tuple[str, ...]) -> DictConfig:
    """The config of `train.py WORDS` with Hydra's own node."""
    register()
    with initialize_config_dir(str(CONFIGS), version_base=None):
        return compose("train", [*words, "run=faults"], return_hydra_config=True)


def train_command(words: Sequence[str], folder: Path) -> Callable[[], None]:
    """`python train.py WORDS hydra.run.dir=FOLDER` as a function, but for Hydra's own composition."""
    whole = composed(tuple(words)).copy()
    OmegaConf.set_readonly(whole.hydra, False)
    with open_dict(whole):
        whole.hydra.runtime.output_dir = str(folder)
    HydraConfig.instance().set_config(whole)  # of the next fork
    cfg = whole.copy()
    with open_dict(cfg):
        del cfg["hydra"]

    def run() -> None:
        folder.mkdir(parents=True, exist_ok=True)  # Hydra does
        sys.argv = ["train.py", *words, f"hydra.run.dir={folder}"]
        launch(lambda: ENTRY.main(cfg))

    return run


@dataclass
class Done:
    """How a command ended: exit codes by rank (negative: a signal), and what it printed."""

    codes: list[int]
    outputs: list[str]
    seconds: float
    hung: bool = False

    @property
    def output(self) -> str:
        """Of all ranks."""
        return "\n".join(self.outputs)

    @property
    def errors(self) -> list[str]:
        """The lines that a user's mistake, or a full disk, ends in."""
        return [line for line in self.output.splitlines() if line.startswith("error")]

    @property
    def traceback(self) -> bool:
        """Whether a rank printed one, but for those that name the loss of another rank."""
        return any("Traceback (most" in text and not LOST_PEER.search(text) for text in self.outputs)


@dataclass
class Command:
    """A command under way, one forked process a rank, each with a process group of its own."""

    pids: list[int]
    outputs: list[Path]
    begun: float = field(default_factory=time.perf_counter)

    def kill(self, which: int = signal.SIGKILL, ranks: Sequence[int] | None = None, group: bool = True) -> None:
        """A signal to ranks and, with `group`, to their data loaders' workers."""
        for rank, pid in enumerate(self.pids):
            if ranks is None or rank in ranks:
                with suppress(ProcessLookupError):
                    (os.killpg if group else os.kill)(pid, which)

    def wait(
        self, at: float | None = None, then: Callable[["Command"], None] | None = None, limit: float = LIMIT
    ) -> Done:
        """Wait for all ranks, `limit` seconds at most; `then` is called after `at` seconds.

        As torchrun does, the others are ended when one fails.
        """
        codes: dict[int, int] = {}
        hung = False
        failed: float | None = None
        while len(codes) < len(self.pids):
            now = time.perf_counter()
            if then is not None and at is not None and now - self.begun >= at:
                then(self)
                then = None
            for rank, pid in enumerate(self.pids):
                if rank not in codes:
                    found, status = os.waitpid(pid, os.WNOHANG)
                    if found:
                        codes[rank] = os.waitstatus_to_exitcode(status)
                        if codes[rank] != 0 and failed is None:
                            failed = now
            if failed is not None and now - failed > 5:  # torchrun: SIGTERM, then SIGKILL after a while
                self.kill(signal.SIGTERM if now - failed < 15 else signal.SIGKILL)
            if now - self.begun > limit:
                hung = True
                self.kill()
            time.sleep(0.005)
        self.kill()  # workers that are left
        outputs = [path.read_text(errors="replace") for path in self.outputs]
        return Done([codes[rank] for rank in range(len(self.pids))], outputs, time.perf_counter() - self.begun, hung)


def start(
    run: Callable[[], None], scratch: Path, ranks: int = 1, prepare: Callable[[int], Any] | None = None
) -> Command:
    """Fork once for each rank; each calls `prepare(rank)`, then `run`, then what `prepare` returned, and exits."""
    scratch.mkdir(parents=True, exist_ok=True)
    number = len(list(scratch.iterdir()))
    outputs = [scratch / f"{number}-{rank}.txt" for rank in range(ranks)]
    for output in outputs:
        output.touch()
    port = free_port() if ranks > 1 else 0
    command = Command([], outputs)
    sys.stdout.flush()
    sys.stderr.flush()
    for rank in range(ranks):
        pid = os.fork()
        if pid == 0:
            code = 70
            try:
                _child(outputs[rank], rank, ranks, port)
                finish = prepare(rank) if prepare is not None else None
                code = _exit_code(run)
                if finish is not None:
                    finish()
            finally:
                os._exit(code)
        command.pids.append(pid)
    return command


def free_port() -> int:
    """A TCP port of this machine that nobody has."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _child(output: Path, rank: int, ranks: int, port: int) -> None:
    os.setsid()
    handle = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
    os.dup2(handle, 1)
    os.dup2(handle, 2)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    sys.stdout = os.fdopen(1, "w", buffering=1, closefd=False)
    sys.stderr = os.fdopen(2, "w", buffering=1, closefd=False)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    for name in ("SIGTERM", "SIGUSR1", "SIGUSR2"):
        signal.signal(getattr(signal, name), signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if ranks > 1:
        own = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": ranks, "MASTER_PORT": port}
        os.environ.update({name: str(value) for name, value in own.items()}, MASTER_ADDR="127.0.0.1")
        os.environ["GLOO_SOCKET_IFNAME"] = "lo"


def bound_memory(more: int) -> None:
    """Let this process take `more` bytes of address space beside what it has."""
    size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (size + more, size + more))


def _exit_code(run: Callable[[], None]) -> int:
    try:
        run()
        code: Any = 0
    except SystemExit as stop:
        code = stop.code if isinstance(stop.code, int) else 0 if stop.code is None else 1
    except BaseException:
        traceback.print_exc()
        code = 1
    # Python ends data loaders' workers so; the parent's other functions of the exit are not this child's
    multiprocessing.util._exit_function()
    sys.stdout.flush()
    sys.stderr.flush()
    return code
