"""Promises that the repository makes about itself."""

import ast
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
MAY_IMPORT = {
    "corpus": set(),
    "encoder": set(),
    "lm": set(),
    "retrieval": {"corpus", "encoder"},
    "app": {"corpus", "encoder", "lm", "retrieval"},
}


def imports(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found.add(node.module.split(".")[0])
    return found


@pytest.mark.parametrize("room", MAY_IMPORT)
def test_arrows_go_one_way(room):
    for path in (ROOT / room).rglob("*.py"):
        strangers = imports(path) & (set(MAY_IMPORT) - {room} - MAY_IMPORT[room])
        assert not strangers, f"{path.relative_to(ROOT)} imports {strangers}"


@pytest.mark.parametrize("room", [*MAY_IMPORT, "benchmarks"])
def test_a_file_fits_in_the_head(room):
    for path in (ROOT / room).rglob("*.py"):
        assert len(path.read_text(encoding="utf-8").splitlines()) <= 600, path


def test_requirements_are_those_of_the_project():
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    lines = (ROOT / "requirements.txt").read_text().splitlines()[1:]
    assert sorted(lines) == sorted(declared)
    assert lines[0].startswith("torch=="), "torch first, so that nothing else picks its build"
    assert all("==" in line for line in lines)


def test_released_weights_stay_small():
    sizes = {path: path.stat().st_size for path in (ROOT / "weights").rglob("*") if path.is_file()}
    assert max(sizes.values()) <= 95e6 and sum(sizes.values()) <= 150e6
    assert not [path for path in sizes if path.suffix in {".pt", ".bin", ".pkl"}], "safetensors only"
