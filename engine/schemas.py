"""Types and ranges of every command but train.py, whose own are in engine/config.py; docs in configs/<command>.yaml.

Nothing here imports torch.
"""

from dataclasses import dataclass, field
from typing import Annotated, Any

from omegaconf import MISSING

from engine.ranges import DEVICE, PAIR, SEED, WORKERS, Form, Length, OneOf, Range

SPLIT = OneOf("val", "test")
ANY_SPLIT = OneOf("train", "val", "test")
NETWORK = OneOf("generator", "generator_source")
SIZE = Annotated[list[Annotated[int, Range(1, 16384)]], Length(2, 2, "[height,width]")]


@dataclass
class Opening:
    """What every command has that opens a checkpoint or a run folder (engine/trust.py)."""

    code: Any = None
    trust: bool = False


@dataclass
class Root:
    """Where the files of a checkpoint's data set lie now."""

    root: str | None = None


@dataclass
class RootAndPalette(Root):
    """The same, and the colours of its label maps."""

    palette: str | None = None


@dataclass
class Test(Opening):
    """test.py."""

    checkpoint: str = MISSING
    dataset: RootAndPalette = field(default_factory=RootAndPalette)
    input: str | None = None
    output: str | None = None
    network: Annotated[str, NETWORK] = "generator"
    split: Annotated[str, ANY_SPLIT] = "test"
    precision: Annotated[str, OneOf("float32", "bf16")] | None = None
    max_pixels: Annotated[int, Range(1)] | None = 2**24
    batch_size: Annotated[int, Range(1)] = 8
    workers: Annotated[int, WORKERS] = 0
    device: Annotated[str, DEVICE] = "auto"


@dataclass
class Evaluate(Opening):
    """evaluate.py."""

    checkpoint: str | None = None
    dataset: RootAndPalette = field(default_factory=RootAndPalette)
    which: Annotated[str, OneOf("last", "best", "kept")] = "last"
    split: Annotated[str, ANY_SPLIT] = "test"
    images: Annotated[int, Range(2)] | None = None
    floor: bool = True
    untrained: bool = False
    shown: Annotated[int, Range(0)] = 8
    fake: str | None = None
    real: str | None = None
    metrics: Any = field(default_factory=lambda: ["fd_lite2", "kid_lite2", "swd", "appearance"])
    train_real: str | None = None
    compare: Any = None
    force: bool = False
    out: str | None = None
    real_size: Annotated[str, OneOf("fake", "native")] = "fake"
    swd_count: Annotated[str, OneOf("paper", "all")] = "paper"
    labels: str | None = None
    segmenter: str | None = None
    segmentation: Any = None
    score_map: list[Annotated[int, Range(0, 255)]] | None = None
    minimum_ceiling: Annotated[float, Range(0, 100)] = 20
    depth: str | None = None
    train_depth: str | None = None
    colormap: Annotated[str, OneOf("turbo", "viridis", "jet")] | None = None
    far: Annotated[float, Range(0, above=True)] | None = None
    depth_pooled: bool = False
    trained_against: str | None = None
    weights_dir: str | None = None
    cache: str | None = "auto"
    offline: bool = False
    seed: Annotated[int, SEED] = 0
    batch_size: Annotated[int, Range(1)] = 16
    workers: Annotated[int, WORKERS] = 2
    device: Annotated[str, DEVICE] = "auto"


@dataclass
class Prepare:
    """prepare.py."""

    dataset: Any = MISSING
    raw: str = MISSING
    out: str = MISSING
    size: SIZE | None = None
    workers: Annotated[int, WORKERS] = 4
    allow_partial: bool = False
    split: str | None = None  # these four are options of some data sets, whose own words their finders check
    cut_compatible: bool | None = None
    edges: str | None = None
    keypoints: str | None = None


@dataclass
class Report(Opening):
    """report.py."""

    runs: Any = MISSING
    out: str | None = None
    title: str = "Patchwise report"
    note: str | None = None
    images: Annotated[int, Range(0)] | Annotated[str, OneOf("all")] = 24
    columns: Annotated[int, Range(1)] = 8
    quality: Annotated[int, Range(1, 100)] | None = None


@dataclass
class Analyze(Opening):
    """scripts/analyze.py."""

    checkpoint: str = MISSING
    dataset: Root = field(default_factory=Root)
    term: str | None = None
    split: Annotated[str, ANY_SPLIT] = "test"
    images: Annotated[int, Range(1)] = 50
    patches: Annotated[int, Range(1)] | None = None
    batch_size: Annotated[int, Range(1)] = 4
    seed: Annotated[int, SEED] = 0
    image: Annotated[int, Range(0)] = 0
    patch: Annotated[list[Annotated[float, Range(0, 1)]], PAIR] = field(default_factory=lambda: [0.5, 0.5])
    places: Annotated[int, Range(2)] = 1024
    direction: Annotated[str, OneOf("hard", "easy")] | None = None
    beta: Annotated[float, Range(0, above=True)] | None = None
    weights_dir: str | None = None
    offline: bool = True
    device: Annotated[str, DEVICE] = "auto"


@dataclass
class Export(Opening):
    """scripts/export.py."""

    checkpoint: str = MISSING
    out: Annotated[str, Form(r".*\.pt2", "a file name that ends in .pt2")] | None = None
    network: Annotated[str, NETWORK] = "generator"


@dataclass
class TrainSegmenter:
    """scripts/train_segmenter.py."""

    dataset: Any = MISSING
    code: Any = None
    out: str = MISSING
    backbone: Annotated[str, OneOf("lite2", "mobilenet_v3_large", "drn_d_22", "drn_d_105")] = "lite2"
    input_size: SIZE | None = None
    steps: Annotated[int, Range(1)] = 600
    batch_size: Annotated[int, Range(1)] = 8
    lr: Annotated[float, Range(0, above=True)] = 3e-3
    seed: Annotated[int, SEED] = 0
    workers: Annotated[int, WORKERS] = 2
    device: Annotated[str, DEVICE] = "auto"


@dataclass
class Weights:
    """scripts/weights.py."""

    download: Any = field(default_factory=list)
    weights_dir: str | None = None
    offline: bool = False


ENTRIES: dict[str, Any] = {
    "test": Test,
    "evaluate": Evaluate,
    "prepare": Prepare,
    "report": Report,
    "analyze": Analyze,
    "export": Export,
    "train_segmenter": TrainSegmenter,
    "weights": Weights,
}
