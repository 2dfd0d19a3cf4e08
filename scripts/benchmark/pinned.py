"""`python -m scripts.benchmark.pinned PARENT CORES PROGRAM ...`: become a program that keeps to some cores.

It ends with its parent, also when that is killed (prctl(2), PR_SET_PDEATHSIG).
"""

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1


def main() -> None:
    parent, cores, *argv = sys.argv[1:]
    os.sched_setaffinity(0, {int(core) for core in cores.split(",")})
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != int(parent):
        sys.exit("the parent is gone")
    os.execv(argv[0], argv)  # noqa: S606  # no shell is what we want


if __name__ == "__main__":
    main()
