"""What a reader of a Nix file would object to: broken syntax, and names that nobody uses."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import tree_sitter
import tree_sitter_nix
from tree_sitter import Node

# Which arguments may end with, but version 0.1.0 of the grammar does not know.
TRAILING_COMMA = re.compile(rb",(\s*\})")
PARSER = tree_sitter.Parser(tree_sitter.Language(tree_sitter_nix.language()))


def lint(path: Path) -> list[str]:
    """One line a finding: file, line, what is wrong."""
    root = PARSER.parse(TRAILING_COMMA.sub(rb" \1", path.read_bytes())).root_node
    if root.has_error:
        return [f"{path}: broken syntax"]
    return [
        f"{path}:{node.start_point[0] + 1}: {_text(node)} is never used"
        for node, scope in _declarations(root)
        if not any(_uses(part, _text(node)) for part in scope)
    ]


def _declarations(node: Node) -> Iterator[tuple[Node, list[Node]]]:
    """Every name of an argument or a `let`, and the parts of the file that may use it."""
    if node.type == "function_expression" and (formals := node.child_by_field_name("formals")):
        for formal in formals.named_children:
            if name := formal.child_by_field_name("name"):
                yield name, [*formals.named_children, node.named_children[-1]]
    if node.type == "let_expression":
        bindings = [each for part in node.named_children[:-1] for each in part.named_children]
        for binding in bindings:
            others = [each for each in bindings if each != binding]
            for name in _bound_names(binding):
                yield name, [*others, node.named_children[-1]]
    for child in node.named_children:
        yield from _declarations(child)


def _bound_names(binding: Node) -> list[Node]:
    if binding.type == "binding" and (path := binding.child_by_field_name("attrpath")):
        return path.named_children[:1]
    names = binding.child_by_field_name("attrs")
    return names.named_children if names else []


def _uses(node: Node, name: str) -> bool:
    if node.type == "variable_expression":
        return _text(node) == name
    if node.type == "inherit":  # `inherit name;` takes it from the scope outside
        names = node.child_by_field_name("attrs")
        return names is not None and any(_text(each) == name for each in names.named_children)
    return any(_uses(child, name) for child in node.named_children)


def _text(node: Node) -> str:
    assert node.text is not None
    return node.text.decode()
