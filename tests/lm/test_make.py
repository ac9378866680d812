"""The Makefile's way from text to weights: what runs where, and what is not made again."""

import os
import shutil
import subprocess

import pytest

pytestmark = pytest.mark.skipif(not shutil.which("make"), reason="there is no make here")


def dry(*args: object) -> subprocess.CompletedProcess[str]:
    # Not as a part of the make that may have started the tests.
    own = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS"))}
    return subprocess.run(["make", "-n", *map(str, args)], capture_output=True, text=True, env=own)


def test_an_unknown_size_is_one_line():
    found = dry("cirilla-train", "SIZE=huge")
    assert found.returncode and found.stderr.count("\n") == 1 and "SIZE is gpu, cpu or try, not “huge”" in found.stderr
    assert dry("clean", "SIZE=huge").returncode == 0  # it means nothing there


@pytest.mark.parametrize("target", ["cirilla-train", "cirilla-sample", "cirilla-prefer"])
def test_a_gpu_needs_neither_packages_nor_network(target):
    lines = dry(target, "PYTHON3=py", "MINUTES=8").stdout.splitlines()
    assert lines and all(line.startswith(("py -m lm.", "test -d runs/gpu/")) for line in lines)
    long = [line for line in lines if line.startswith("py ") and "lm.quantize" not in line]
    assert long and all(line.endswith("--minutes 8") for line in long)


def test_newer_packages_do_not_make_the_data_anew(tmp_path):
    places = [f"RUN={tmp_path}/run", f"VENV={tmp_path}/venv", f"DATA={tmp_path}"]
    stamps = [tmp_path / "venv" / name for name in ("bin/python", "torch.stamp", "run.stamp", "dev.stamp")]
    data = [tmp_path / "run" / name for name in ("tokens/mix.json", "groups.jsonl", "groups-wiki.jsonl")]
    data.append(tmp_path / "run" / "grounded.jsonl")
    asked = dry("cirilla-data", *places).stdout
    assert asked.count(" -m pip ") == 3 and asked.count("retrieval.candidates") == 2
    assert f"--groups {data[1]} {data[2]}" in asked and "wiki-train.jsonl" in asked
    for at, path in enumerate([*data, *stamps]):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
        os.utime(path, (4e9 + at, 4e9 + at))  # newer than pyproject.toml, and each than those before it
    assert " -m " not in dry("cirilla-data", *places).stdout
    data[2].unlink()
    assert dry("cirilla-data", *places).stdout.count(" -m ") == 2  # that file, and the rows that are made of it
