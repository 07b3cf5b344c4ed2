"""Imported before torch: OpenMP's idle threads wait with a bound where the user has set nothing of OpenMP's.

PyTorch's threads wait for each other at the end of every parallel loop. By default GNU's OpenMP then spins about as
long as a scheduler's time slice, which is fastest on a quiet machine. Where other processes want the same cores, a
thread spins while the one that it waits for has no core. With a bound it soon sleeps instead.
`python -m benchmarks.busy` measures other values. The library reads its variables when it is loaded, so this module
must come before torch; child processes (loader workers, sweeps, ranks) inherit the variable.
"""

import os
from collections.abc import MutableMapping

SPINS = "10000"  # GOMP_SPINCOUNT: keeps the speed of a quiet machine and nearly twice that of a busy one
OWN = ("OMP_", "GOMP_", "KMP_")  # a user's own choice of threads, or of how they wait


def bound_spinning(environ: MutableMapping[str, str] = os.environ) -> bool:
    """Set GOMP_SPINCOUNT unless the user has set any variable of OpenMP's; returns whether it was set.

    torchrun gives its ranks OMP_NUM_THREADS=1 where the user has not: that is not the user's.
    """
    given = {name: value for name, value in environ.items() if name.startswith(OWN)}
    if "TORCHELASTIC_RUN_ID" in environ and given.get("OMP_NUM_THREADS") == "1":
        del given["OMP_NUM_THREADS"]
    if given:
        return False
    environ["GOMP_SPINCOUNT"] = SPINS
    return True


bound_spinning()
