"""One thread a process: the suite runs as many processes as there are cores."""

import os

os.environ["OMP_NUM_THREADS"] = "1"  # before torch is imported, and for the commands that tests start
