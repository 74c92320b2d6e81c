"""Finds the containers in the code of a room: what could grow, whoever makes it grow.

A container is an attribute of an instance, or a field of a class, that is made as, or annotated as,
something that can hold any number of things. Tables of a module are constants and not looked at.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

GROWING = frozenset(
    {
        "OrderedDict", "Counter", "Queue", "SimpleQueue", "WeakSet", "WeakValueDictionary",
        "bytearray", "defaultdict", "deque", "dict", "list", "set",
    }
)  # fmt: skip


def containers_of(folder: Path) -> set[str]:
    """Return `module:Class.attribute` for every container below `folder`."""
    found = set()
    for path in sorted(folder.rglob("*.py")):
        module = ".".join(path.relative_to(folder).with_suffix("").parts)
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ClassDef):
                found |= {f"{module}:{node.name}.{name}" for name in _attributes(node)}
    return found


def _attributes(owner: ast.ClassDef) -> Iterator[str]:
    for node in ast.walk(owner):
        annotation: ast.expr | None = None
        if isinstance(node, ast.AnnAssign):
            targets, annotation, value = [node.target], node.annotation, node.value
        elif isinstance(node, ast.Assign):
            targets, value = node.targets, node.value
        else:
            continue
        if not (_is_growing_type(annotation) or _makes_container(value)) or _is_ring(value):
            continue
        for target in targets:
            name = _attribute_name(target, is_field=node in owner.body)
            if name is not None:
                yield name


def _attribute_name(target: ast.expr, *, is_field: bool) -> str | None:
    if isinstance(target, ast.Attribute) and isinstance(target.value, ast.Name):
        return target.attr if target.value.id == "self" else None
    return target.id if is_field and isinstance(target, ast.Name) else None


def _is_growing_type(annotation: ast.expr | None) -> bool:
    """Tell whether an annotation is, or may be, one of `GROWING`: `dict[...] | None` too."""
    if annotation is None:
        return False
    if isinstance(annotation, ast.BinOp):
        return _is_growing_type(annotation.left) or _is_growing_type(annotation.right)
    return _name_of(annotation) in GROWING


def _is_ring(value: ast.expr | None) -> bool:
    """Tell whether it is a deque that forgets its oldest entry by itself."""
    return (
        isinstance(value, ast.Call)
        and _name_of(value.func) == "deque"
        and any(word.arg == "maxlen" for word in value.keywords)
    )


def _makes_container(value: ast.expr | None) -> bool:
    if isinstance(value, ast.Dict | ast.List | ast.Set | ast.DictComp | ast.ListComp | ast.SetComp):
        return True
    if not isinstance(value, ast.Call):
        return False
    if _name_of(value.func) == "field":
        factories = [word.value for word in value.keywords if word.arg == "default_factory"]
        return any(_name_of(factory) in GROWING for factory in factories)
    return _name_of(value.func) in GROWING | {"fromkeys"}


def _name_of(node: ast.expr) -> str:
    if isinstance(node, ast.Subscript):
        return _name_of(node.value)
    if isinstance(node, ast.Attribute):
        return node.attr
    return node.id if isinstance(node, ast.Name) else ""
