"""Every rule has a runbook, and every runbook the same four sections."""

from collections.abc import Sequence
from pathlib import Path

from alerts.rule import Rule

SECTIONS = ("## What it means", "## Look first", "## Likely causes", "## Mitigation")


def check(rules: Sequence[Rule], folder: Path) -> list[str]:
    """What is missing in the folder of runbooks, one line each; empty if nothing."""
    problems = [f"{name}.md: no rule leads here" for name in _names(folder) - {rule.runbook for rule in rules}]
    for rule in rules:
        path = folder / f"{rule.runbook}.md"
        if not path.is_file():
            problems.append(f"{path.name}: missing; {rule.name} leads there. Begin with:\n{skeleton(rule)}")
            continue
        lines = path.read_text(encoding="utf-8").splitlines()
        if [line for line in lines if line.startswith("## ")] != list(SECTIONS):
            problems.append(f"{path.name}: its sections are not {', '.join(SECTIONS)}")
        if not any(f"`{rule.name}`" in line for line in lines):
            problems.append(f"{path.name}: does not name {rule.name}, which leads there")
    return sorted(set(problems))


def _names(folder: Path) -> set[str]:
    return {path.stem for path in folder.glob("*.md")}


def skeleton(rule: Rule) -> str:
    """The beginning of a runbook for a rule."""
    sections = "\n".join(f"\n{section}\n" for section in SECTIONS)
    return f"# {rule.runbook.replace('-', ' ').capitalize()}\n\nAlerts: `{rule.name}`\n{sections}"
