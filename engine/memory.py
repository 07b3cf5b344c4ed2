"""How the process's memory is kept on a CPU."""

import ctypes
import os
import platform

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # of glibc's malloc.h
OWN = ("MALLOC_", "GLIBC_TUNABLES", "LD_PRELOAD")  # the user's own choice of allocator or settings


def keep_large_blocks() -> bool:
    """Let glibc's malloc keep what is freed for the next step, instead of giving it back to the system.

    By default every block from 32 MB on (64 channels of 256x512 in float32) is mapped anew each time, and all of its
    pages fault: a sixth of a SPADE step at 256x256. The process keeps its largest size to its end. Returns whether it
    was done: not without glibc, nor where the environment sets an allocator or malloc's own variables.
    """
    if platform.libc_ver()[0] != "glibc" or any(name.startswith(OWN) for name in os.environ):
        return False
    libc = ctypes.CDLL(None)
    return bool(libc.mallopt(M_MMAP_MAX, 0)) and bool(libc.mallopt(M_TRIM_THRESHOLD, -1))
