"""The trace term of FID: `python -m benchmarks.frechet [images=2000] [channels=2048] [rounds=1] [threads=1]`.

tr sqrt(S1 S2) by scipy's matrix square root of the product, as pytorch-fid has it; from singular values of the
cross-Gram matrix of the features; and by eigenvalues, which is ours where there are more images than channels. Each
starts from what it needs, centred features or covariances, and all must agree to 1e-6 relative.
"""

import sys
import warnings

import numpy as np
import scipy.linalg
import torch
from numpy.typing import NDArray

from benchmarks.compare import in_turns, table
from metrics.frechet import trace_from_covariances, trace_from_features


def centred(images: int, channels: int, seed: int) -> NDArray[np.float64]:
    """Features of a 1/k spectrum, less their mean, over sqrt(N - 1): their covariance is X^T X."""
    x = np.random.default_rng(seed).standard_normal((images, channels)) / np.sqrt(np.arange(1, channels + 1))
    return (x - x.mean(0)) / np.sqrt(images - 1)


def main() -> None:
    """Print the values, their largest relative difference, and the times."""
    given = {k: int(v) for k, v in (w.split("=") for w in sys.argv[1:])}
    options = {"images": 2000, "channels": 2048, "rounds": 1, "threads": 1, **given}
    torch.set_num_threads(options["threads"])  # NumPy and SciPy read OMP_NUM_THREADS before this program starts
    warnings.simplefilter("ignore")  # scipy's on a singular product
    x, y = (centred(options["images"], options["channels"], seed) for seed in (0, 1))
    first, second = x.T @ x, y.T @ y
    functions = {
        "scipy sqrtm": lambda: float(np.trace(scipy.linalg.sqrtm(first @ second)).real),
        "cross-Gram": lambda: trace_from_features(x, y),
        "eigenvalues": lambda: trace_from_covariances(first, second),
    }
    values = {name: function() for name, function in functions.items()}
    for name, value in values.items():
        print(f"{name:16} {value:.10f}  {value / values['cross-Gram'] - 1:+.1e}")
    print(table(in_turns(functions, options["rounds"], warm=0), "scipy sqrtm"))
    used = "cross-Gram" if options["images"] <= options["channels"] else "eigenvalues"
    print(f"frechet_from_features takes {used} here")


if __name__ == "__main__":
    main()
