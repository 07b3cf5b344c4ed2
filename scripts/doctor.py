"""What this installation has and lacks, to read or to paste into an issue: python scripts/doctor.py [weights_dir=DIR].

Exit code 1 where something is wrong; the last lines then name it with its cure.
"""

import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from importlib import metadata
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # run as a file, Python looks into scripts/ only

import openmp  # noqa: E402, F401 - before torch

EXTRAS = {  # requirements file: what needs it
    "data": "some of prepare.py",
    "hf": "segmenter=hf:",
    "semseg": "segmentation=ade20k",
    "timm": "encoder=timm",
    "test": "make test",
}
Line = tuple[str, str, str | None]  # what, how it is, and the cure if it is not well


def requirements(name: str) -> list[tuple[str, str]]:
    """Package and lower bound of each line of a requirements file."""
    found = re.findall(r"^([\w.\-]+)>=([\w.]+)", (ROOT / name).read_text(), re.M)
    return [(package, bound) for package, bound in found]


def installed(package: str) -> str | None:
    """Its version, or None."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def older(version: str, bound: str) -> bool:
    """Whether the numbers of a version are below a bound's; what follows them, such as +cpu, does not count."""
    numbers = [[int(part) for part in re.findall(r"\d+", text.split("+")[0])] for text in (version, bound)]
    return numbers[0] < numbers[1]


def machine() -> Iterator[Line]:
    """Python, system, commit."""
    yield "python", f"{platform.python_version()} in {sys.prefix}", None
    memory = ""
    if hasattr(os, "sysconf"):
        memory = f", {os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 2**30:.0f} GiB"
    yield "machine", f"{platform.platform()}, {os.cpu_count()} cores{memory}", None
    git = ["git", "describe", "--always", "--dirty"]
    commit = subprocess.run(git, cwd=ROOT, capture_output=True, text=True, check=False) if shutil.which("git") else None
    yield "commit", (commit.stdout.strip() if commit else "") or "unknown (no git)", None


def packages() -> Iterator[Line]:
    """The required ones by name, the files of extras by whether all of theirs are there."""
    for package, bound in requirements("requirements.txt"):
        version = installed(package)
        cure = f"{package} is not installed: pip install -r requirements.txt" if version is None else None
        if version is not None and older(version, bound):
            cure = f"{package} {version} is older than {bound}, the oldest tested: pip install -r requirements.txt"
        yield package, version or "missing", cure
    for extra, use in EXTRAS.items():
        versions = {name: (installed(name), bound) for name, bound in requirements(f"requirements-{extra}.txt")}
        lacking = [f"{name}>={least}" for name, (here, least) in versions.items() if here is None or older(here, least)]
        state = f"lacks {', '.join(lacking)}" if lacking else "installed"
        yield f"for {use}", f"{state} (requirements-{extra}.txt)", None


def devices() -> Iterator[Line]:
    """GPUs, bf16, ranks, compiler."""
    import torch
    import torch.distributed as dist

    built = f"CUDA {torch.version.cuda}" if torch.version.cuda else "CPU only"
    if torch.cuda.is_available():
        for index in range(torch.cuda.device_count()):
            device = torch.cuda.get_device_properties(index)
            bf16 = "bf16" if device.major >= 8 else "no bf16"
            yield f"gpu {index}", f"{device.name}, {device.total_memory / 2**30:.0f} GiB, {bf16}", None
    else:
        cure = None
        if shutil.which("nvidia-smi"):
            cure = f"a GPU driver is here, but torch ({built}) sees no GPU: compare with what nvidia-smi prints"
        yield "gpu", f"none; training runs on the CPU ({torch.get_num_threads()} threads)", cure
    capability = torch.backends.cpu.get_cpu_capability()
    yield "torch build", f"{built}; CPU instructions {capability}", None
    backends = [name for name in ("nccl", "gloo") if dist.is_available() and getattr(dist, f"is_{name}_available")()]
    yield "ranks", f"torchrun with {', '.join(backends)}" if backends else "one only: torch is built without", None
    compiler = next((name for name in ("g++", "clang++") if shutil.which(name)), None)
    yield "compiler", compiler or "none; train.compile=true goes on uncompiled on a CPU", None


def weights(weights_dir: str | None) -> Iterator[Line]:
    """Known files of pretrained weights that lie in one of the places, unchecked."""
    from models.weights import found, known_files, packaged, places

    files = known_files()
    here = [
        file.name
        for file in files
        if (packaged(file).is_file() if file.package and installed(file.package) else found(file, weights_dir))
    ]
    yield "weights", f"{len(here)} of {len(files)}: {', '.join(here) or 'none'}", None
    yield (
        "",
        f"looked for in {', '.join(map(str, places(weights_dir)))}; python scripts/weights.py tells what for",
        None,
    )


def folders() -> Iterator[Line]:
    """Where runs, caches and data go, and the room there."""
    from metrics.cache import default_folder

    data = Path(os.environ.get("DATA_ROOT", "datasets"))
    prepared = sorted(path.name for path in data.iterdir() if path.is_dir()) if data.is_dir() else []
    yield "data", f"{data}: {', '.join(prepared) or 'nothing prepared'}", None
    for name, path in (
        ("runs", Path("checkpoints")),
        ("cache", default_folder()),
        ("temporary", Path(tempfile.gettempdir())),
    ):
        there = next(place for place in (path.absolute(), *path.absolute().parents) if place.exists())
        free = shutil.disk_usage(there).free / 2**30
        cure = None
        if not os.access(there, os.W_OK) or not there.is_dir():
            cure = f"{path} cannot be written: choose another folder"
        elif free < 2:
            cure = f"{path} has {free:.1f} GiB left; a checkpoint of a published network takes 1.2 GiB"
        yield name, f"{path}: {free:.0f} GiB free", cure


def doctor(weights_dir: str | None = None) -> list[str]:
    """Print all lines, then what is wrong; returns the latter."""
    problems: list[str] = []
    parts: list[Callable[[], Iterator[Line]]] = [machine, packages, devices, lambda: weights(weights_dir), folders]
    for part in parts:
        try:
            for name, state, cure in part():
                print(f"{name:34}{state}")
                problems += [] if cure is None else [cure]
        except BrokenPipeError:  # of the printing, not of a part
            raise
        except (ImportError, OSError) as error:  # a package that is not there, or whose libraries are not
            name = getattr(error, "name", None) or "torch"
            print(f"{name:34}cannot be imported")
            if not any(problem.startswith(f"{name} ") for problem in problems):
                problems.append(f"{name} cannot be imported: {str(error).splitlines()[0]}")
    print("\n".join(f"wrong: {problem}" for problem in problems) or "nothing is wrong")
    return problems


def main() -> None:
    """The command line."""
    words = dict(word.partition("=")[::2] for word in sys.argv[1:])
    if words.keys() & {"-h", "--help"}:
        print(str(__doc__).strip())
        return
    if unknown := words.keys() - {"weights_dir"}:
        sys.exit(f"error: {min(unknown)}: no such word; weights_dir=DIR is the only one")
    sys.exit(1 if doctor(words.get("weights_dir")) else 0)


if __name__ == "__main__":
    from engine.pipes import quiet_pipes

    with quiet_pipes():
        main()
