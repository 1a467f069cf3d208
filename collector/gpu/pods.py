"""Finds the Kubernetes pod of a process, from `/proc`, as far as it can be read."""

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from collector.gpu.readings import GpuProcess

# systemd's driver writes the uid with underscores (kubepods-burstable-pod1b2c_...slice), cgroupfs with dashes.
POD_UID = re.compile(r"pod([0-9a-f]{8}[-_][0-9a-f]{4}[-_][0-9a-f]{4}[-_][0-9a-f]{4}[-_][0-9a-f]{12})")
MAX_REMEMBERED = 1024


class Pods:
    """Names the pods of processes; each process is looked up once while it lives."""

    def __init__(self, proc: Path) -> None:
        self._proc = proc
        self._known: dict[int, tuple[str, str]] = {}

    def name(self, processes: Sequence[GpuProcess]) -> tuple[GpuProcess, ...]:
        """The processes with `pod` and `pod_uid` filled in where they can be told."""
        pids = {process.pid for process in processes}
        self._known = {pid: pod for pid, pod in self._known.items() if pid in pids}
        return tuple(self._named(process) for process in processes)

    def _named(self, process: GpuProcess) -> GpuProcess:
        if process.pid not in self._known and len(self._known) < MAX_REMEMBERED:
            self._known[process.pid] = pod_of(self._proc, process.pid)
        pod, uid = self._known.get(process.pid, ("", ""))
        return replace(process, pod=pod, pod_uid=uid)


def pod_of(proc: Path, pid: int) -> tuple[str, str]:
    """Name and uid of the pod that runs the process; empty where it is none or cannot be read.

    The uid stands in the control group's path; the name is the host name inside, unless the pod sets another.
    """
    match = POD_UID.search(_text(proc / str(pid) / "cgroup"))
    if match is None:
        return "", ""
    return _text(proc / str(pid) / "root" / "etc" / "hostname").strip(), match[1].replace("_", "-")


def _text(path: Path) -> str:
    try:
        with path.open(errors="replace") as file:
            return file.read(4096)
    except OSError:
        return ""
