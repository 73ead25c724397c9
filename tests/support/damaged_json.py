"""JSON documents with one damaged place: what a reader must answer with the right object or one clear line."""

import copy
import json
from typing import Any

from hypothesis import strategies as st

ODD_VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.sampled_from([2**63, -(2**70), 10**30, 256, -1, 0]),
    st.floats(),
    st.text(max_size=5),
    st.sampled_from(["\x1b[2J", "a\nerror: b", "../x", "\u202e", "x" * 9999]),
    st.just([]),
    st.just({}),
    st.lists(st.integers(0, 9), max_size=3),
    st.just([[[[]]]]),
    st.just({"a": {"b": 1}}),
)


@st.composite
def damaged(draw: st.DrawFn, document: Any) -> bytes:
    """Return a document as JSON text in which one node was replaced, removed, repeated or renamed, or one byte was changed."""
    tree = copy.deepcopy(document)
    places = list(_places(tree))
    holder, key = draw(st.sampled_from(places))
    action = draw(st.sampled_from(("replace", "replace", "remove", "repeat", "rename", "byte")))
    if action == "remove":
        del holder[key]
    elif action == "repeat" and isinstance(holder, list):
        holder.insert(key, copy.deepcopy(holder[key]))
    elif action == "rename" and isinstance(holder, dict):
        holder[draw(st.text(max_size=3))] = holder.pop(key)
    elif action != "byte":
        holder[key] = draw(ODD_VALUES)
    text = bytearray(json.dumps(tree).encode())
    if action == "byte" and text:
        text[draw(st.integers(0, len(text) - 1))] = draw(st.integers(0, 255))
    return bytes(text)


def _places(tree: Any):
    """Yield (container, key) of each node below a tree."""
    keys = tree.keys() if isinstance(tree, dict) else range(len(tree)) if isinstance(tree, list) else ()
    for key in keys:
        yield tree, key
        yield from _places(tree[key])
