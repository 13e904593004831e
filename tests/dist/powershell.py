"""Reads install.ps1 with the grammar of PowerShell: there is no PowerShell here to run it. Prints where it is wrong."""

import sys
from pathlib import Path

import tree_sitter_powershell
from tree_sitter import Language, Parser


def faults(node):
    if node.is_missing or node.type == "ERROR":
        yield node
    for child in node.children:
        yield from faults(child)


def main() -> int:
    path = Path(sys.argv[1])
    tree = Parser(Language(tree_sitter_powershell.language())).parse(path.read_bytes())
    found = list(faults(tree.root_node))
    for node in found:
        row, column = node.start_point
        print(f"{path.name}:{row + 1}:{column + 1}: {node.type}: {node.text.decode()[:60]!r}")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
