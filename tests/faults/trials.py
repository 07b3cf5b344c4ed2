"""Faults in real trainings: one fault a trial, then the same command again, whose end must be the uninterrupted one's.

Everything is drawn from a seed. `python -m tests.faults [trials=20] [seed=0] [kind=NAME] [setting=NAME]` prints the
table; one trial again: `python -m tests.faults only=NUMBER seed=SEED`.
"""

import errno
import json
import os
import random
import shutil
import signal
import zlib
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from engine.checkpoint import Loaded
from engine.preempt import EXIT_CODE
from engine.record import TIMING
from tests.compose import UNPAIRED
from tests.faults import disk
from tests.faults.commands import STEPS, Command, Done, start, train_command

INTERRUPTED = 130  # exit code of Ctrl-C
EVERY = (f"train.steps={STEPS}", "train.save_every=2", "train.sample_every=4", "train.device=cpu")
PAIRED = (
    *EVERY,
    "encoder=pixel",
    "encoder.scales=[4,8]",
    "train.batch_size=2",
    "train.workers=0",
    "train.samples=1",
    "train.log_every=1",
    "dataset.size=[32,32]",
    "dataset.lengths={train:8,val:2,test:2}",
    "model.generator.width=2",
    "model.discriminator.width=2",
    "nce.patches=16",
    "objective.contrast.term.dim=8",
)
CUT = (*UNPAIRED, *EVERY, "setting=unpaired", "objective=cut", "encoder=generator", "objective.contrast.term.dim=8")
CYCLE = (*UNPAIRED, *EVERY, "setting=cycle", "objective=cycle", "loss=none")
LSESIM = (
    *(*UNPAIRED, *EVERY, "setting=unpaired", "objective=lsesim", "encoder=vgg16", "encoder.pretrained=false"),
    "encoder.layers=[relu1_1,relu2_1]",
)
TWO = ("train.workers=2",)
EVALUATED = ("evaluate.every=2", "evaluate.images=2", "evaluate.metrics=[swd]")
ACCUMULATED = ("train.batch_size=4", "train.accumulate=2")


@dataclass(frozen=True)
class Setting:
    """What is trained."""

    words: tuple[str, ...]
    ranks: int = 1

    @property
    def workers(self) -> bool:
        """Whether the data loader has processes of its own."""
        return "train.workers=2" in self.words


SETTINGS = {
    "paired, EMA, evaluation": Setting((*PAIRED, "train.ema=0.9", *EVALUATED)),
    "CUT, pool": Setting((*CUT, "train.pool=3")),
    "cycle, pool, EMA, 2 workers": Setting((*CYCLE, *TWO, "train.pool=3", "train.ema=0.9")),
    "LSeSim, pool": Setting((*LSESIM, "train.pool=3")),
    "paired, accumulation, 2 workers": Setting((*PAIRED, *TWO, *ACCUMULATED, "train.log_every=3")),
    "CUT, 2 ranks, pool": Setting((*CUT, "train.pool=3"), 2),
    "cycle, evaluation": Setting((*CYCLE, *EVALUATED)),
    "LSeSim, 2 ranks, 2 workers": Setting((*LSESIM, *TWO), 2),
    "CUT, accumulation, kept steps": Setting((*CUT, *ACCUMULATED, "train.keep=2")),
    "paired, 2 ranks, EMA, evaluation": Setting((*PAIRED, "train.ema=0.9", *EVALUATED, "train.batch_size=4"), 2),
}
FILES = {  # what a run keeps, as patterns; the fault takes one that is there
    "last.pt": "last.pt",
    "log.jsonl": "log.jsonl",
    "config.yaml": "config.yaml",
    "notes": "environment.json progress.txt",
    "best.pt": "best.pt",
    "others": "samples/*.png tensorboard/* eval/*/*.json .* step_*.pt",
}
DAMAGES = ("truncated", "bit flipped", "removed", "zeros", "foreign bytes", "empty")
MOMENTS = (
    "kill -9 at a moment",
    "kill -9 at a file operation",
    "power failure",
    "disk full",
    "one write fails",
    "folder turns read-only",
    "SIGTERM",
    "SIGUSR1",
    "SIGUSR2",
    "SIGINT",
    "SIGINT twice",
    "a worker killed",
    "a rank killed",
    "two starts at once",
    "lock of a dead process",
    "lock, damaged",
)
KINDS = (*MOMENTS, *(f"{name} {damage}" for name in FILES for damage in DAMAGES))
OUTCOMES = ("healed", "set aside", "refused", "lost", "silent")


@dataclass
class Trial:
    """One fault and what came of it.

    healed: the same command ended bit-equal. set aside: all is bit-equal but the file that was damaged, log.jsonl or
    best.pt, whose content nobody could restore; one line said so and the damaged file is kept. refused: exit code 1
    with one line, and no file changed. lost: anything else that is not equal and was noticed. silent: exit code 0, no
    word, and a difference.
    """

    number: int
    kind: str
    setting: str
    outcome: str = "lost"
    detail: str = ""
    traceback: bool = False
    seconds: float = 0.0

    def line(self) -> str:
        """One line for people."""
        mark = "" if self.good else "FAILED "
        words = [f"{mark}{self.outcome}{', traceback' if self.traceback else ''}", self.kind, self.setting, self.detail]
        return f"{self.number:3d} {' | '.join(words)} ({self.seconds:.1f} s)"

    def row(self) -> dict[str, Any]:
        """For JSON and tables."""
        return {**asdict(self), "good": self.good, "line": self.line()}

    @property
    def good(self) -> bool:
        """Whether what is promised held."""
        return self.outcome in ("healed", "set aside", "refused") and not self.traceback


def possible(kind: str, setting: Setting) -> bool:
    """Whether a setting can suffer a kind of fault."""
    if kind == "a worker killed":
        return setting.workers
    if kind == "a rank killed":
        return setting.ranks > 1
    return not kind.startswith("best.pt") or "evaluate.every=2" in setting.words


def plan(count: int, seed: int, kind: str = "", setting: str = "") -> list[tuple[int, str, str]]:
    """Number, kind and setting of each trial: kinds in turn, settings as evenly as can be."""
    rng = random.Random(f"plan {seed}")
    kinds = [name for name in KINDS if name.startswith(kind)]
    # a short plan must hold every moment: damages share the rest
    moments, damages = [name for name in kinds if name in MOMENTS], [name for name in kinds if name not in MOMENTS]
    rng.shuffle(damages)
    order = [*moments, *damages[: max(4, count // 6)]] if moments else damages
    used = {name: 0 for name in SETTINGS if name.startswith(setting)}
    made = []
    while len(made) < count:
        if len(made) and len(made) % len(order) == 0:
            rng.shuffle(damages)
            order = [*moments, *damages] if moments else damages
        chosen = order[len(made) % len(order)]
        able = [name for name in used if possible(chosen, SETTINGS[name])]
        if not able:
            order = [name for name in order if name != chosen]
            moments, damages = [n for n in moments if n != chosen], [n for n in damages if n != chosen]
            continue
        name = min(able, key=lambda able_name: (used[able_name], rng.random()))
        used[name] += 1
        made.append((len(made), chosen, name))
    return made


class Harness:
    """Trials below a scratch folder; uninterrupted runs and half-finished ones are made once for each setting."""

    def __init__(self, scratch: Path, seed: int) -> None:
        self.scratch, self.seed = scratch, seed
        self.wholes: dict[str, tuple[Path, Done, list[str]]] = {}
        self.halves: dict[str, Path] = {}

    def command(
        self, name: str, folder: Path, prepare: Callable[[int], Any] | None = None, tag: str = "printed"
    ) -> Command:
        """Start a setting's training in a folder."""
        setting = SETTINGS[name]
        printed = folder.with_name(f"{folder.name}-{tag}")
        return start(train_command(setting.words, folder), printed, setting.ranks, prepare)

    def whole(self, name: str) -> tuple[Path, Done, list[str]]:
        """The uninterrupted run: its folder, how it ended, and its file operations."""
        if name not in self.wholes:
            folder = self.scratch / f"whole {name}".replace(",", "").replace(" ", "-")
            operations = folder.with_suffix(".operations")

            def count(rank: int) -> Callable[[], int] | None:
                if rank != 0:
                    return None
                disks = [disk.Disk(folder), disk.Disk(folder, events=True)]
                for counting in disks:
                    counting.install()
                return lambda: operations.write_text("\n".join(disks[0].seen + disks[1].seen))

            done = self.command(name, folder, count).wait()
            if done.codes != [0] * SETTINGS[name].ranks:
                raise RuntimeError(f"{name}: the uninterrupted run ended with {done.codes}\n{done.output}")
            self.wholes[name] = folder, done, operations.read_text().splitlines()
        return self.wholes[name]

    def half(self, name: str) -> Path:
        """A run that was killed after its save at step 4, at the first file operation of the next step's log line."""
        if name not in self.halves:
            folder = self.whole(name)[0].with_suffix(".half")

            def act(watched: disk.Disk, operation: str, path: Path) -> None:
                progress = folder / "progress.txt"
                saved = progress.is_file() and progress.read_text().startswith(f"{STEPS - 2} of")
                if saved and path.name == "log.jsonl" and operation == "write":
                    os.kill(os.getpid(), signal.SIGKILL)

            self.command(name, folder, self.armed(folder, act)).wait()
            self.halves[name] = folder
        return self.halves[name]

    @staticmethod
    def armed(folder: Path, act: disk.Act, store: Path | None = None, events: bool = False) -> Callable[[int], None]:
        """Puts a disk that acts into rank 0, which alone writes."""

        def prepare(rank: int) -> None:
            if rank == 0:
                folder.mkdir(parents=True, exist_ok=True)
                watched = disk.Disk(folder, act, events)
                if store is not None:
                    watched.journal = disk.Journal(folder, store)
                watched.install()

        return prepare

    def trial(self, number: int, kind: str, name: str) -> Trial:
        """One fault, and the same command again."""
        result = Trial(number, kind, name)
        rng = random.Random(f"{self.seed} {number}")
        self.whole(name)
        folder = self.scratch / f"trial-{number}"
        if kind in MOMENTS:
            first = self._moment(kind, name, folder, rng, result)
            if first is not None and first.traceback:
                result.traceback = True
                result.detail += f"; {last_line(first.output)}"
            if first is not None and first.hung:
                result.detail = "hung"
                return result
            result.seconds += first.seconds if first is not None else 0
        else:
            shutil.copytree(self.half(name), folder)
            self._damage(kind, folder, rng, result)
        before = contents(folder)
        again = self.command(name, folder, tag="again").wait()
        result.seconds += again.seconds
        self._judge(result, folder, before, again)
        if result.good:
            for path in self.scratch.glob(f"trial-{number}*"):
                shutil.rmtree(path) if path.is_dir() else path.unlink()
        return result

    def _moment(self, kind: str, name: str, folder: Path, rng: random.Random, result: Trial) -> Done | None:
        _, whole, operations = self.whole(name)
        setting = SETTINGS[name]
        events = rng.random() < 0.2
        own = [text for text in operations if ("/tensorboard" in text) is events]
        at, moment = rng.randrange(1, len(own) + 1), rng.uniform(0.05, 0.95) * whole.seconds
        result.detail = f"operation {at} of {len(own)}: {own[at - 1]}"
        if kind == "kill -9 at a file operation":
            return self.command(name, folder, self.armed(folder, disk.kill_at(at), events=events)).wait()
        if kind == "power failure":
            store = folder.with_name(f"{folder.name}-store")
            done = self.command(name, folder, self.armed(folder, disk.kill_at(at), store, events)).wait()
            disk.lose_power(folder, store, rng)
            return done
        if kind in ("disk full", "one write fails", "folder turns read-only"):
            code = errno.EROFS if "read-only" in kind else errno.ENOSPC
            act = disk.full_from(at, at if kind == "one write fails" else None, code)
            done = self.command(name, folder, self.armed(folder, act, events=events)).wait()
            if done.codes[0] not in (0, 1) or (done.codes[0] == 1 and len(done.errors) != 1):
                result.traceback = True
                result.detail += f"; ended with {done.codes}: {last_line(done.output)}"
            return done
        if kind == "two starts at once":
            return self._twice(name, folder, rng, result)
        if kind.startswith("lock"):
            return self._locked(kind, name, folder, rng, result)
        result.detail = f"after {moment:.2f} s of {whole.seconds:.2f}"
        if kind == "kill -9 at a moment":
            group = rng.random() < 0.5
            return self.command(name, folder).wait(moment, lambda command: command.kill(group=group))
        if kind == "a rank killed":
            return self.command(name, folder).wait(
                moment, lambda command: command.kill(ranks=[rng.randrange(setting.ranks)], group=False)
            )
        if kind == "a worker killed":
            return self.command(name, folder).wait(moment, kill_worker)
        which = {"SIGINT twice": signal.SIGINT}.get(kind) or getattr(signal, kind)
        ranks = None if rng.random() < 0.5 else [rng.randrange(setting.ranks)]

        def send(command: Command) -> None:
            command.kill(which, ranks, group=rng.random() < 0.5)
            if kind == "SIGINT twice":
                command.kill(which, ranks, group=False)

        done = self.command(name, folder).wait(moment, send)
        wrong = stopped_wrongly(done, kind, folder)
        if wrong:
            result.traceback = True
            result.detail += f"; {wrong}"
        return done

    def _twice(self, name: str, folder: Path, rng: random.Random, result: Trial) -> Done:
        """A second start while the first trains: refused with one line, and the first goes on as if alone."""
        first = self.command(name, folder)
        second: list[Command] = []
        moment = rng.uniform(0.0, 0.5) * self.whole(name)[1].seconds
        result.detail = f"second start after {moment:.2f} s"
        done = first.wait(moment, lambda _: second.append(self.command(name, folder, tag="second")))
        other = second[0].wait() if second else None
        if other is not None:
            codes = sorted([max(done.codes), max(other.codes)])
            refused = other if max(other.codes) else done
            right = codes == [0, 1] and refused.errors and not refused.traceback
            late = codes == [0, 0] and "finished at step" in other.output  # the second began after the first's end
            if not right and not late:
                result.detail += f"; ended with {done.codes} and {other.codes}: {last_line(refused.output)}"
                result.traceback = True
        return done

    def _locked(self, kind: str, name: str, folder: Path, rng: random.Random, result: Trial) -> Done | None:
        """A lock that a killed run has left: of a dead process as it is, or damaged."""
        shutil.copytree(self.half(name), folder)
        locks = [path for path in folder.iterdir() if path.is_file() and "lock" in path.name]
        result.detail = f"locks: {', '.join(path.name for path in locks)}"
        for path in locks:
            if kind == "lock, damaged":
                path.write_bytes(damaged(path.read_bytes(), rng.choice(DAMAGES[:2] + DAMAGES[3:]), rng))
        return None

    def _damage(self, kind: str, folder: Path, rng: random.Random, result: Trial) -> None:
        file, damage = next((file, kind.removeprefix(f"{file} ")) for file in FILES if kind.startswith(f"{file} "))
        there = sorted(path for pattern in FILES[file].split() for path in folder.glob(pattern) if path.is_file())
        if not there:
            result.detail = "no such file in this run"
            return
        path = rng.choice(there)
        result.detail = str(path.relative_to(folder))
        if damage == "removed":
            path.unlink()
        else:
            path.write_bytes(damaged(path.read_bytes(), damage, rng))

    def _judge(self, result: Trial, folder: Path, before: dict[str, int], again: Done) -> None:
        whole = self.whole(result.setting)[0]
        if again.hung:
            result.detail += "; again: hung"
        elif again.traceback:
            result.traceback, result.detail = True, f"{result.detail}; again: {last_line(again.output)}"
        elif max(again.codes) == 1 and len(again.errors) == len(again.codes):
            kept = contents(folder)
            gone = [name for name, checksum in before.items() if checksum not in kept.values() and "lock" not in name]
            result.outcome = "lost" if gone else "refused"
            result.detail += f"; {again.errors[0]}" + (f"; gone: {gone}" if gone else "")
            if result.kind in MOMENTS:
                result.outcome = "lost"
        elif any(again.codes):
            result.detail += f"; again: ended with {again.codes}: {last_line(again.output)}"
        else:
            difference = differing(whole, folder)
            result.outcome = "healed"
            if difference:
                result.outcome = self._unequal(result.kind, whole, folder, before, again)
                result.detail += f"; {difference}"

    @staticmethod
    def _unequal(kind: str, whole: Path, folder: Path, before: dict[str, int], again: Done) -> str:
        """Of a run that ended otherwise: "set aside" where only what was damaged differs, and a line says it."""
        name = next((name for name in ("log.jsonl", "best.pt") if kind.startswith(name)), "")
        said = any(name in line for line in again.output.splitlines()) if name else False
        empty = zlib.crc32(b"")  # of a file that is gone, nothing can be kept
        kept = before.get(name, empty) in (empty, *contents(folder).values())
        others = differing(whole, folder, name)
        return "set aside" if said and kept and not others else "lost" if said else "silent"


def stopped_wrongly(done: Done, kind: str, folder: Path) -> str:
    """What was not as promised of a run that a signal reached: its exit code, and that no step is lost."""
    wanted = INTERRUPTED if kind.startswith("SIGINT") else EXIT_CODE
    if not any(done.codes):
        return ""
    if wanted not in done.codes:
        return f"ended with {done.codes}: {last_line(done.output)}"
    logged = [row["step"] for row in lines(folder) if "step" in row]
    saved = load(folder / "last.pt")["step"] if (folder / "last.pt").is_file() else 0
    if logged and saved < max(logged) and kind != "SIGINT twice":
        return f"step {max(logged)} was reached and {saved} saved"
    return ""


def kill_worker(command: Command) -> None:
    """kill -9 of one child of the last rank, where it has any by now."""
    pid = command.pids[-1]
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:
        return
    if children:
        os.kill(int(children[0]), signal.SIGKILL)


def damaged(content: bytes, damage: str, rng: random.Random) -> bytes:
    """A file's bytes after an accident."""
    at = rng.randrange(len(content)) if content else 0
    if damage == "truncated":
        return content[:at]
    if damage == "bit flipped":
        return content[:at] + bytes([content[at] ^ 1 << rng.randrange(8)]) + content[at + 1 :] if content else b"\x80"
    if damage == "zeros":
        return content[:at] + bytes(len(content) - at)
    if damage == "empty":
        return b""
    return content[:at] + rng.randbytes(64) + content[at + 64 :]


def contents(folder: Path) -> dict[str, int]:
    """Checksum by relative name of every file that a run needs; TensorBoard's and notes of the moment aside."""
    return {
        str(path.relative_to(folder)): zlib.crc32(path.read_bytes())
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.parts[len(folder.parts)] not in ("tensorboard", "environment.json", "progress.txt")
    }


def differing(whole: Path, folder: Path, but: str = "") -> str:
    """The first difference between two finished runs, or nothing; `but` is log.jsonl or best.pt, not to be compared."""
    for name in ("last.pt", "best.pt"):
        if not (whole / name).is_file() or name == but:
            continue
        if not (folder / name).is_file():
            return f"{name}: missing"
        states = [load(place / name) for place in (whole, folder)]
        for state in states if but else ():  # what a checkpoint says of the file
            state.pop("best", None) if but == "best.pt" else state["record"].pop("log", None)
        difference = unequal(*states, name)
        if difference:
            return difference
    if but == "best.pt":
        Loaded.open(str(folder / "best.pt"))  # whole, or noticed
    if but != "log.jsonl" and lines(whole) != lines(folder):
        return "log.jsonl: other lines"
    return ""


def load(path: Path) -> dict[str, Any]:
    """A checkpoint without what may differ between equal runs: its digest's place in the file is not part of it."""
    return dict(torch.load(path, map_location="cpu", weights_only=True))


def lines(folder: Path) -> list[dict[str, Any]]:
    """log.jsonl without timing."""
    try:
        rows = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    except (OSError, ValueError) as error:
        return [{"unreadable": str(error)}]
    return [{key: value for key, value in row.items() if key not in TIMING} for row in rows]


def unequal(one: Any, other: Any, path: str) -> str:
    """Where two nested states differ first, to the bit."""
    if isinstance(one, torch.Tensor) and isinstance(other, torch.Tensor):
        same = one.dtype == other.dtype and one.shape == other.shape
        same = same and one.contiguous().numpy().tobytes() == other.contiguous().numpy().tobytes()
        return "" if same else f"{path}: tensors differ"
    if isinstance(one, dict) and isinstance(other, dict):
        if one.keys() != other.keys():
            return f"{path}: keys {sorted(map(str, one.keys() ^ other.keys()))[:4]}"
        return next((found for key in one if (found := unequal(one[key], other[key], f"{path}.{key}"))), "")
    if isinstance(one, list | tuple) and isinstance(other, list | tuple) and len(one) == len(other):
        pairs = enumerate(zip(one, other, strict=True))
        return next((found for at, (a, b) in pairs if (found := unequal(a, b, f"{path}[{at}]"))), "")
    return "" if one == other or (one != one and other != other) else f"{path}: {str(one)[:60]} and {str(other)[:60]}"


def last_line(text: str) -> str:
    """For a table's cell."""
    found = [line for line in text.strip().splitlines() if line.strip()]
    return found[-1][:300] if found else "no output"
