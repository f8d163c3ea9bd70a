"""The nodes of a yaml, within bounds: nothing is built of them here."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from unispeech_sb.checkpoints.options import shown

MOST_BYTES = 2**18
"""Largest yaml that is read; ours have some thousands."""
_MOST_EVENTS, _MOST_DEPTH = 5_000, 24


PLAIN = "tag:yaml.org,2002:"
"""Start of the tags that yaml itself knows."""
_WORDS = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL")),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
}
_INTEGER = re.compile(r"[-+]?[0-9]{1,18}")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")


def compose_yaml(
    text: str | bytes, path: str | Path, aliases: bool = False
) -> yaml.Node | None:
    """The nodes of a yaml, with any tags, of bounded number and depth; None of
    an empty one. An alias stands for the node of its anchor, or is refused
    without ``aliases``. ``path`` is for the error."""
    events = yaml.parse(text, Loader=yaml.SafeLoader)
    try:
        return _Composer(_bounded(events, path, aliases)).document()
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        problem = " ".join(str(error).split())[:200]
        raise ValueError(f"{path}: expected yaml ({problem})") from error
    finally:
        events.close()


def compose_file(path: str | Path, aliases: bool = False) -> yaml.Node | None:
    """The nodes of a yaml file, as ``compose_yaml``."""
    with open(path, "rb") as file:
        text = file.read(MOST_BYTES + 1)
    if len(text) > MOST_BYTES:
        raise ValueError(f"{path}: expected at most {MOST_BYTES} bytes")
    return compose_yaml(text, path, aliases)


class _Composer:
    """Makes nodes of bounded events."""

    def __init__(self, events: Iterator[yaml.Event]) -> None:
        self.events = events
        self.anchors: dict[str, yaml.Node] = {}

    def document(self):
        """The only document."""
        found = None
        for event in self.events:
            if isinstance(event, yaml.NodeEvent):
                if found is not None:
                    raise yaml.YAMLError("more than one document")
                found = self.node(event)
        return found

    def node(self, event):
        """The node that begins with an event, or that an alias stands for."""
        if isinstance(event, yaml.AliasEvent):
            if event.anchor not in self.anchors:
                raise yaml.YAMLError(f"no anchor {event.anchor}")
            return self.anchors[event.anchor]
        found = self.new_node(event)
        if event.anchor is not None:
            self.anchors[event.anchor] = found
        return found

    def new_node(self, event):
        """A node, all of it."""
        marks = event.start_mark, event.end_mark
        if isinstance(event, yaml.ScalarEvent):
            tag = event.tag if event.tag not in (None, "!") else ""
            plain = not tag and not event.style
            tag = tag or PLAIN + ("plain" if plain else "str")
            return yaml.ScalarNode(tag, event.value, *marks, event.style)
        if isinstance(event, yaml.SequenceStartEvent):
            tag = event.tag or f"{PLAIN}seq"
            items = list(self.nodes(yaml.SequenceEndEvent))
            return yaml.SequenceNode(tag, items, *marks, event.flow_style)
        tag = event.tag or f"{PLAIN}map"
        items = list(self.nodes(yaml.MappingEndEvent))
        pairs = list(zip(items[::2], items[1::2], strict=True))
        return yaml.MappingNode(tag, pairs, *marks, event.flow_style)

    def nodes(self, end):
        """The nodes of a collection."""
        for event in self.events:
            if isinstance(event, end):
                return
            yield self.node(event)


def _bounded(events, path, aliases):
    """Events, up to a number and depth."""
    count = depth = 0
    for event in events:
        count += 1
        depth += isinstance(event, yaml.CollectionStartEvent)
        depth -= isinstance(event, yaml.CollectionEndEvent)
        line = event.start_mark.line + 1
        if count > _MOST_EVENTS or depth > _MOST_DEPTH:
            raise ValueError(
                f"{path}: expected yaml of at most {_MOST_EVENTS} values, "
                f"{_MOST_DEPTH} inside one another; got more in line {line}"
            )
        if getattr(event, "anchor", None) is not None and not aliases:
            raise ValueError(
                f"{path}, line {line}: expected yaml without anchors and "
                f"aliases; got {shown(event.anchor)}"
            )
        yield event


def read_scalar(node: yaml.ScalarNode) -> Any:
    """A number, true, false, null, or a text, which quotes make of any."""
    text = node.value
    if node.tag == f"{PLAIN}str":
        return text
    if text in _WORDS:
        return _WORDS[text]
    if _INTEGER.fullmatch(text):
        return int(text)
    return float(text) if _FLOAT.fullmatch(text) else text
