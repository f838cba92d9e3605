"""Memory of a process, as Linux counts it."""

from __future__ import annotations

# Put in front of a script: VmHWM is the most that was ever in use, VmRSS what is in use now.
IN_USE = """
def in_use(name):
    with open("/proc/self/status") as lines:
        return next(int(line.split()[1]) << 10 for line in lines if line.startswith(name + ":"))
"""
