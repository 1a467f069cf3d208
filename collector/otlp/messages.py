"""Messages of any client in the form of OpenTelemetry GenAI.

It goes by shape, not by client; the names that clients use are in `catalog/dialects/shapes.toml`.
"""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import msgspec

from catalog.dialect import Shape, shapes
from collector.otlp.attributes import dump, loads

Message = dict[str, Any]
MISSING = object()
MAX_DEPTH = 32
CLOSING = {"{": "}", "[": "]", '"': '"'}


class _Text(msgspec.Struct, tag_field="type", tag="text", forbid_unknown_fields=True, gc=False):
    content: str


class _Texts(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    role: Annotated[str, msgspec.Meta(min_length=1)]
    parts: list[_Text]
    finish_reason: Any = None
    name: Any = None


_TEXTS = msgspec.json.Decoder(list[_Texts])


def are_plain(text: str) -> bool:
    """Whether these are messages of nothing but texts, in our form: most are, and that is quicker told than read."""
    try:
        return bool(_TEXTS.decode(text))
    except (msgspec.DecodeError, UnicodeEncodeError, RecursionError):
        return False


def messages_json(value: Any, role: str, limit: int) -> str | None:
    """The messages as JSON text; None where there are none.

    `role` is that of a bare text.  Text that has the form already is returned as it is, to the byte.  Beyond `limit`
    characters the longest parts are cut, and say so with `"truncated": true`.
    """
    short = isinstance(value, str) and len(value) <= limit
    if short and are_plain(value):
        return str(value)
    document = parsed(value)
    if short and _in_form(document):
        return str(value)
    if isinstance(document, (str, int, float)):
        document = [{"role": role, "content": str(value)}] if document != "" else []
    messages = [message for item in _messages(document, role) if (message := message_of(item, role)) is not None]
    # An answer of nothing is what some clients say of a call that failed.
    if not messages or (role == "assistant" and not any(message["parts"] for message in messages)):
        return None
    return dump(messages if len(text := dump(messages)) <= limit else _shorten(messages, limit, len(text)))


def parsed(value: Any) -> Any:
    """JSON within a string as data; what is no JSON object, list or string stays what it is."""
    if not isinstance(value, str) or not closed(value):
        return value
    try:
        return loads(value)
    except (ValueError, RecursionError):
        return value


def closed(text: str) -> bool:
    """Whether the text may be a JSON object, list or string: most texts are none, or were cut off."""
    bare = text.strip()
    return bare != "" and CLOSING.get(bare[0]) == bare[-1]


def pick(document: Any, path: Sequence[str]) -> Any:
    """What stands at the path, JSON in strings opened on the way; None where nothing does."""
    for step in path:
        document = parsed(document)
        if isinstance(document, Mapping):
            document = document.get(step)
        elif isinstance(document, list) and _is_index(step) and int(step) < len(document):
            document = document[int(step)]
        else:
            return None
    return document


def nested(prefix: str, attributes: Mapping[str, Any]) -> list[Any]:
    """The list that was spread over attributes `prefix.0.a`, `prefix.1.b`; holes are left out."""
    tree: dict[str, Any] = {}
    for key, value in attributes.items():
        node = tree
        *path, last = key[len(prefix) :].split(".", MAX_DEPTH)
        for step in path:
            child = node.setdefault(step, {})
            if not isinstance(child, dict):
                # A scalar and a subtree under the same name: the scalar becomes the subtree's "".
                child = node[step] = {"": child}
            node = child
        node[last] = value
    listed = _lists(tree)
    return listed if isinstance(listed, list) else [listed]


def _is_index(step: str) -> bool:
    return step.isascii() and step.isdigit() and len(step) < 7


def _lists(node: Any) -> Any:
    if not isinstance(node, dict):
        return node
    if node and all(_is_index(key) for key in node):
        return [_lists(node[key]) for key in sorted(node, key=int)]
    return {key: _lists(value) for key, value in node.items()}


def unwrap(item: Any) -> Any:
    """Without the keys around it that mean nothing: {"message": {...}}."""
    for wrapper in shapes().wrappers:
        if isinstance(item, Mapping) and isinstance(item.get(wrapper), Mapping):
            inner = item[wrapper]
            item = {**{key: value for key, value in item.items() if key != wrapper}, **inner}
    return item


ROLE_TYPES = ("tool_call", "tool_call_response")
MESSAGE_KEYS = frozenset({"role", "parts", "finish_reason", "name"})


def _in_form(document: Any) -> bool:
    """Whether these are messages in our form already."""
    if not isinstance(document, list) or not document:
        return False
    known = shapes().parts
    for message in document:
        if type(message) is not dict or not message.keys() <= MESSAGE_KEYS:
            return False
        role, parts = message.get("role"), message.get("parts")
        if not role or type(parts) is not list:
            return False
        for part in parts:
            if type(part) is not dict:
                return False
            name = part.get("type", "")
            shape = known.get(name)
            if shape is not None and not (name == shape.type and _has_form(part, shape)):
                return False
        # Only calls of tools and their answers have roles of their own.
        if parts and parts[0].get("type") in ROLE_TYPES and role != _role(role, parts):
            return False
    return True


def _messages(document: Any, role: str) -> list[Any]:
    if isinstance(document, list):
        # Clients that can ask several prompts at once.
        several = len(document) == 1 and isinstance(document[0], list)
        items: list[Any] = document[0] if several else document
        if items and all(isinstance(item, str) for item in items):
            return [{"role": role, "content": item} for item in items]
        calls = [item for item in items if isinstance(item, Mapping) and "role" not in item and "toolName" in item]
        if calls and len(calls) == len(items):
            return [{"role": role, "content": [{"type": "tool-call", **item} for item in calls]}]
        return items
    if not isinstance(document, Mapping):
        return []
    if "role" in document or "parts" in document:
        return [document]
    names = shapes()
    asked = role == "user"
    # An answer of the Responses API repeats the instructions: they are no part of it.
    system = [{"role": "system", "content": document[key]} for key in names.system if asked and document.get(key)]
    containers = names.containers_in if asked else names.containers_out
    for key in containers:
        inner = document.get(key)
        if isinstance(inner, str) and inner:
            return [*system, {"role": role, "content": inner}]
        if isinstance(inner, list) and inner:
            return [*system, *_messages(inner, role)]
    return system or [{"role": role, "content": dump(document)}]


def message_of(item: Any, role: str = "user") -> Message | None:
    """A message of any form in ours; None where it is none."""
    item = unwrap(item)
    if isinstance(item, str):
        item = {"content": item}
    if not isinstance(item, Mapping):
        return None
    parts = _parts(item)
    message: Message = {"role": _role(item.get("role") or role, parts), "parts": parts}
    if item.get("finish_reason"):
        message["finish_reason"] = item["finish_reason"]
    if isinstance(item.get("name"), str) and "type" not in item:
        message["name"] = item["name"]
    return message if parts or "role" in item else None


def _role(said: str, parts: Sequence[Any]) -> str:
    """Answers of tools are the tool's, whoever hands them over; only a model calls tools."""
    types = {part.get("type") for part in parts if type(part) is dict or isinstance(part, Mapping)}
    if types == {"tool_call_response"}:
        return "tool"
    return "assistant" if said == "user" and types == {"tool_call"} else said


def _parts(item: Mapping[str, Any]) -> list[Any]:
    if isinstance(item.get("parts"), list):
        return [_part(part) for part in item["parts"]]
    if "role" not in item and item.get("type") in shapes().parts:
        return [_part(item)]
    content = item.get("content", item.get("contents", item.get("text") or None))
    answers = item.get("tool_call_id")
    if answers and not isinstance(content, list):
        return [{"type": "tool_call_response", "id": answers, "response": content}]
    parts: list[Any] = []
    if isinstance(content, str) and _are_parts(inner := parsed(content)):
        content = inner
    if isinstance(content, str):
        if content or not item.get("tool_calls"):
            parts.append({"type": "text", "content": content})
    elif isinstance(content, list):
        parts.extend(_part(part) for part in content)
    elif isinstance(content, Mapping):
        parts.append(_part(content))
    calls = item.get("tool_calls")
    if isinstance(calls, list):
        parts.extend(_part({"type": "tool_call", **_unwrapped_call(call)}) for call in calls)
    return parts


def _are_parts(document: Any) -> bool:
    """Whether a content was a list of parts before somebody made a text of it."""
    return (
        isinstance(document, list)
        and bool(document)
        and all(isinstance(part, Mapping) and part.get("type") in shapes().parts for part in document)
    )


def _unwrapped_call(call: Any) -> dict[str, Any]:
    call = unwrap(call)
    return {key: value for key, value in call.items() if key != "type"} if isinstance(call, Mapping) else {}


def _part(part: Any) -> Any:
    part = unwrap(part)
    if isinstance(part, str):
        return {"type": "text", "content": part}
    if not isinstance(part, Mapping):
        return {"type": "text", "content": dump(part)}
    shape = shapes().parts.get(part.get("type", "text"))
    if shape is None or (part.get("type") == shape.type and _has_form(part, shape)):
        return dict(part)
    made: dict[str, Any] = {"type": shape.type}
    for name, keys in shape.fields.items():
        found = next((value for key in keys if (value := pick(part, key.split("."))) is not None), MISSING)
        if found is not MISSING:
            made[name] = parsed(found) if name in shape.parse else found
    return made


def _has_form(part: Mapping[str, Any], shape: Shape) -> bool:
    for key in part:
        if key not in shape.fields and key != "type":
            return False
    return not shape.parse or not any(
        isinstance(part.get(name), str) and parsed(part[name]) is not part[name] for name in shape.parse
    )


def _shorten(messages: list[Message], limit: int, size: int) -> list[Message]:
    """Cuts texts so that all together are near `limit` characters: none below its fair share."""
    texts = [part for message in messages for part in message["parts"] if isinstance(part, dict)]
    share = max(64, limit // (2 * max(1, len(texts))))
    for part in texts:
        for key, value in part.items():
            text = value if isinstance(value, str) else dump(value)
            if len(text) > share and key != "type":
                part[key] = text[:share]
                part["truncated"] = True
                break
    return messages
