"""The folders import downwards only (DESIGN, "Folders"), and `zafka/` links to exactly the four of them."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
FOLDERS = ("actors", "runtime", "storage", "transport")

# What each folder may import of ours, and what it may import inside functions only.
MAY_IMPORT: dict[str, tuple[str, ...]] = {
    "storage": ("zafka.storage",),
    "transport": ("zafka.transport",),
    "actors": ("zafka.actors", "zafka.storage", "zafka.transport"),
    "runtime": ("zafka.runtime", "zafka.actors", "zafka.storage", "zafka.transport", "zafka.client", "zafka.testing"),
    "zafka": (
        "zafka.client", "zafka.transport", "zafka.storage.batch", "zafka.storage.batch_builder", "zafka.storage.records", "zafka.storage.config",
        "zafka.storage.errors",
    ),
}
MAY_IMPORT_LAZILY: dict[str, tuple[str, ...]] = {"zafka": ("zafka.runtime", "zafka.actors", "zafka.actor", "zafka.testing")}


def our_imports(file: Path) -> Iterator[tuple[str, bool]]:
    """(module, at module level) of every import of ours; `from zafka.a import b` counts as zafka.a."""
    tree = ast.parse(file.read_text())
    lazy = {
        id(inner) for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        for inner in ast.walk(node)
    }
    lazy |= {
        id(inner) for node in ast.walk(tree) if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        for inner in ast.walk(node)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}:{node.lineno}: imports are absolute"
            # `from zafka import x`: x may be a folder.
            names = [f"zafka.{alias.name}" for alias in node.names] if node.module == "zafka" else [node.module or ""]
        else:
            continue
        yield from ((name, id(node) not in lazy) for name in names if name.split(".")[0] == "zafka")


def violations(folder: str, root: Path = ROOT) -> list[str]:
    found = []
    files = (root / folder).rglob("*.py") if folder != "zafka" else [
        file for file in (root / folder).rglob("*.py")
        if file.relative_to(root / folder).parts[0] not in FOLDERS
    ]
    for file in files:
        for name, at_top in our_imports(file):
            allowed = MAY_IMPORT[folder] if at_top else MAY_IMPORT[folder] + MAY_IMPORT_LAZILY.get(folder, ())
            if not any(name == prefix or name.startswith(prefix + ".") for prefix in allowed):
                found.append(f"{file.relative_to(root)} imports {name}")
    return found


@pytest.mark.parametrize("folder", sorted(MAY_IMPORT))
def test_a_folder_imports_only_what_lies_below_it(folder: str) -> None:
    assert violations(folder) == []


def test_an_upward_import_is_found(tmp_path: Path) -> None:
    (tmp_path / "storage").mkdir()
    (tmp_path / "storage" / "log.py").write_text("def late():\n    from zafka.actors.actor import Peer\n")
    assert violations("storage", tmp_path) == ["storage/log.py imports zafka.actors.actor"]


def test_the_package_links_to_exactly_the_folders() -> None:
    links = {path.name: str(path.readlink()) for path in (ROOT / "zafka").iterdir() if path.is_symlink()}
    assert links == {folder: f"../{folder}" for folder in FOLDERS}
