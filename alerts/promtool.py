"""Runs Prometheus' and Alertmanager's own checks on what was generated."""

import shutil
import subprocess
from pathlib import Path

PACKAGES = {
    "prometheus": "prometheus",
    "promtool": "prometheus",
    "amtool": "prometheus-alertmanager",
    "prometheus-alertmanager": "prometheus-alertmanager",
    "victoria-metrics": "victoria-metrics",
}
"""Debian's package of each binary."""

OTHER_NAMES = {"prometheus-alertmanager": ("alertmanager",)}

TIMEOUT_SECONDS = 300


class BinaryMissingError(RuntimeError):
    """A program of Prometheus or Alertmanager is not on the PATH."""


def binary(name: str) -> str:
    """The path of a program; raises BinaryMissingError with what to install."""
    for candidate in (name, *OTHER_NAMES.get(name, ())):
        path = shutil.which(candidate)
        if path is not None:
            return str(path)
    raise BinaryMissingError(
        f"{name} is not on the PATH; on Debian or Ubuntu: apt-get install {PACKAGES[name]}, "
        "elsewhere see https://prometheus.io/download/"
    )


def test(out: Path) -> list[str]:
    """What promtool and amtool find wrong with the files that `build` wrote to `out`; empty if nothing."""
    rules = sorted((out / "prometheus" / "rules").glob("*.yml"))
    tests = sorted((out / "prometheus" / "tests").glob("*.yml"))
    if not rules or not tests:
        return [f"{out}: no rules and tests there; run `tidegauge alerts build --out {out}`"]
    commands = (
        ["promtool", "check", "rules", "--lint=all", "--lint-fatal", *map(str, rules)],
        ["promtool", "check", "config", str(out / "prometheus" / "prometheus.yml")],
        ["promtool", "test", "rules", *map(str, tests)],
        ["amtool", "check-config", str(out / "alertmanager" / "alertmanager.yml")],
    )
    return [problem for command in commands if (problem := run_tool(command))]


def run_tool(command: list[str]) -> str:
    """The output of a command that failed, after its name; empty if it succeeded."""
    program = binary(command[0])
    done = subprocess.run([program, *command[1:]], capture_output=True, text=True, timeout=TIMEOUT_SECONDS, check=False)
    if done.returncode == 0:
        return ""
    return f"{' '.join(command[:3])}:\n{done.stdout}{done.stderr}".rstrip()
