"""One thread a process: the suite runs as many processes as there are cores. No cache but the tests' own. No GPU but
for `make gpu`: what is equal to the last bit on a CPU need not be so elsewhere."""

import os
import tempfile

os.environ["OMP_NUM_THREADS"] = "1"  # before torch is imported, and for the commands that tests start
if "TEST_GPU" not in os.environ:
    os.environ["CUDA_VISIBLE_DEVICES"] = ""
_cache = tempfile.TemporaryDirectory()  # removed when the process ends
os.environ["PATCHWISE_CACHE"] = _cache.name
