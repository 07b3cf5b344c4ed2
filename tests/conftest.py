"""One thread a process: the suite runs as many processes as there are cores. No cache but the tests' own."""

import os
import tempfile

os.environ["OMP_NUM_THREADS"] = "1"  # before torch is imported, and for the commands that tests start
_cache = tempfile.TemporaryDirectory()  # removed when the process ends
os.environ["PATCHWISE_CACHE"] = _cache.name
