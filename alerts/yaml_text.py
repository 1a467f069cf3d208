"""YAML with sorted keys and readable blocks, the same bytes each time."""

from typing import Any

import yaml


class _Dumper(yaml.SafeDumper):
    """Writes texts of several lines as literal blocks, and repeats instead of pointing."""

    def ignore_aliases(self, data: Any) -> bool:
        return True

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:
        return super().increase_indent(flow, False)


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)


_Dumper.add_representer(str, _text)


def dump(document: Any, first_line: str) -> str:
    """The document as YAML under a comment."""
    body = yaml.dump(document, Dumper=_Dumper, sort_keys=True, width=10_000, allow_unicode=True)
    return f"# {first_line}\n{body}"
