"""Retrieved documents and definitions of tools, in one form each, whatever the client's.

The names that clients use are in `catalog/dialects/shapes.toml`.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from catalog.dialect import shapes
from collector.otlp.attributes import dump
from collector.otlp.messages import parsed, pick, unwrap


def documents_json(value: Any) -> str | None:
    """Retrieved documents as a JSON list of id, score, content and metadata; None where there are none."""
    document = _listed(value)
    if not isinstance(document, list):
        return None
    found = [_document(item) for item in document]
    documents = [item for item in found if item]
    if not documents:
        return None
    return value if isinstance(value, str) and documents == document else dump(documents)


def are_documents(value: Any) -> bool:
    """Whether a list can be nothing but retrieved documents: each a text with its score, id or origin."""
    document = _listed(value)
    return isinstance(document, list) and bool(document) and all(_is_document(unwrap(item)) for item in document)


def tools_json(value: Any) -> str | None:
    """Definitions of tools as a JSON list of type, name, description and parameters; None where there are none."""
    document = parsed(value)
    if not isinstance(document, list):
        return None
    tools = [tool for item in document if (tool := _tool(item)) is not None]
    if not tools:
        return None
    return value if isinstance(value, str) and tools == document else dump(tools)


def _listed(value: Any) -> Any:
    document = parsed(value)
    if not isinstance(document, Mapping):
        return document
    return next((document[key] for key in shapes().document_lists if isinstance(document.get(key), list)), None)


def _is_document(item: Any) -> bool:
    if not isinstance(item, Mapping) or "role" in item:
        return False
    fields = shapes().documents
    content = _first(item, fields["content"])
    return isinstance(content, str) and any(_first(item, fields[name]) is not None for name in ("score", "metadata"))


def _document(item: Any) -> dict[str, Any] | None:
    item = unwrap(item)
    if isinstance(item, str):
        return {"content": item}
    if not isinstance(item, Mapping):
        return None
    made: dict[str, Any] = {}
    for name, keys in shapes().documents.items():
        found = _first(item, keys)
        if found is not None:
            made[name] = parsed(found) if name == "metadata" else found
    return made or dict(item)


def _first(item: Mapping[str, Any], keys: Sequence[str]) -> Any:
    return next((found for key in keys if (found := pick(item, key.split("."))) is not None), None)


def _tool(item: Any) -> dict[str, Any] | None:
    item = parsed(item)
    names = shapes()
    for wrapper in names.tool_wrappers:
        if isinstance(item, Mapping) and isinstance(inner := parsed(item.get(wrapper)), Mapping):
            item = {**{key: value for key, value in item.items() if key != wrapper}, **inner}
    if not isinstance(item, Mapping):
        return None
    # Tools that the provider runs itself have a type and settings of their own, and may have no name.
    made: dict[str, Any] = {"type": item.get("type") or "function"}
    for name, keys in names.tools.items():
        found = _first(item, keys)
        if found is not None:
            made[name] = parsed(found) if name == "parameters" else found
    return made if "name" in made else dict(item)
