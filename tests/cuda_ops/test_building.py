from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
import warnings
from pathlib import Path

import pytest
import torch

import cuda_ops
from cuda_ops import __main__ as command
from cuda_ops import building, loading, toolchain
from cuda_ops.building import BuildError, build, library_path

ROOT = Path(cuda_ops.__file__).parent.parent

# A process that builds a library of one byte, slowly, and notes that it did.
BUILDER = """
import sys, time
from pathlib import Path
from cuda_ops import building

def compile_slowly(device, workspace, timeout):
    with open(sys.argv[1], "a") as notes:
        notes.write("built ")
    time.sleep(float(sys.argv[2]))
    library = workspace / "library.so"
    library.write_bytes(b"x")
    return library

building._compile = compile_slowly
building.build("cpu", timeout=60)
"""

# The command, which heeds an interrupt also where the tests run in the background of a shell, which ignores it.
INTERRUPTED = """
import signal, sys
from cuda_ops.__main__ import main

signal.signal(signal.SIGINT, signal.default_int_handler)
sys.exit(main(["cpu"]))
"""


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LIGHTNING_NNCF_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def unloaded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loading, "_backends", {})
    monkeypatch.setattr(loading, "_described", {})
    monkeypatch.delenv("LIGHTNING_NNCF_OPS", raising=False)


def start_builder(notes: Path, seconds: float) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", BUILDER, str(notes), str(seconds)], cwd=ROOT)


def until(condition: object, seconds: float = 60.0) -> None:
    assert callable(condition)
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_importing_builds_and_loads_nothing(cache: Path) -> None:
    code = "import lightning_nncf.ops, cuda_ops; assert cuda_ops.backend('cpu') is None"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)
    assert not cache.exists()


def test_of_two_processes_one_builds_and_the_other_waits(cache: Path, tmp_path: Path) -> None:
    notes = tmp_path / "notes"
    builders = [start_builder(notes, 1.0) for _ in range(2)]
    assert [builder.wait(120) for builder in builders] == [0, 0]
    assert notes.read_text() == "built "
    assert library_path("cpu").read_bytes() == b"x"


def test_a_killed_builder_leaves_no_lock_and_no_rubbish(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    notes = tmp_path / "notes"
    builder = start_builder(notes, 60.0)
    until(notes.exists)
    builder.send_signal(signal.SIGKILL)
    builder.wait()
    assert not library_path("cpu").exists()

    def compile_at_once(device: str, workspace: Path, timeout: float) -> Path:
        (workspace / "library.so").write_bytes(b"y")
        return workspace / "library.so"

    monkeypatch.setattr(building, "_compile", compile_at_once)
    assert build("cpu", timeout=5).read_bytes() == b"y"
    assert {path.suffix for path in library_path("cpu").parent.iterdir()} == {".lock", ".so"}


def test_waiting_for_another_builder_ends(cache: Path, tmp_path: Path) -> None:
    notes = tmp_path / "notes"
    builder = start_builder(notes, 60.0)
    try:
        until(notes.exists)
        with pytest.raises(BuildError, match="another process"):
            build("cpu", timeout=0.3)
    finally:
        builder.kill()
        builder.wait()


def test_a_build_that_takes_too_long_is_killed_with_its_children(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started = tmp_path / "started"
    interpreter = tmp_path / "python"
    interpreter.write_text(f"#!/bin/sh\nsleep 300 &\necho $! > {started}\nwait\n")
    interpreter.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(interpreter))
    with pytest.raises(BuildError, match="longer than 2 s"):
        build("cpu", timeout=2.0)
    child = int(started.read_text())
    until(lambda: not alive(child), 10.0)
    assert not library_path("cpu").exists()


def alive(process: int) -> bool:
    """Whether a process runs; one that nobody waits for stays as a zombie."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.usefixtures("unloaded")
def test_no_compiler_means_one_warning_and_the_reference(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "/nowhere/c++")
    with pytest.warns(
        RuntimeWarning, match="reference operators on cpu: .* failed: .*/nowhere/c.+: not found$"
    ) as caught:
        assert not cuda_ops.load("cpu")
    assert len(caught) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert not cuda_ops.load("cpu")
    assert cuda_ops.backend("cpu") == "reference"
    assert "reference" in cuda_ops.describe("cpu")
    start = time.monotonic()
    with pytest.raises(BuildError, match="tried before"):
        build("cpu")
    assert time.monotonic() - start < 1.0


@pytest.mark.usefixtures("unloaded")
def test_a_broken_nvcc_means_an_error_that_names_it(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if torch.version.cuda is None:
        pytest.skip("needs a PyTorch with CUDA")
    home = tmp_path / "cuda"
    (home / "bin").mkdir(parents=True)
    (home / "include").mkdir()
    (home / "include" / "cuda_runtime.h").touch()
    (home / "bin" / "nvcc").write_text("#!/bin/sh\necho 'nvcc error: broken' >&2\nexit 1\n")
    (home / "bin" / "nvcc").chmod(0o755)
    monkeypatch.setenv("CUDA_HOME", str(home))
    with pytest.raises(BuildError, match="building the cuda kernels failed: nvcc error: broken"):
        build("cuda")


@pytest.mark.usefixtures("unloaded")
def test_a_cache_that_cannot_be_written_means_a_warning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("LIGHTNING_NNCF_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.warns(RuntimeWarning, match="Set LIGHTNING_NNCF_CACHE to another folder"):
        assert not cuda_ops.load("cpu")


@pytest.mark.usefixtures("unloaded")
def test_a_library_that_cannot_be_loaded_means_a_warning(cache: Path) -> None:
    library_path("cpu").parent.mkdir(parents=True)
    library_path("cpu").write_bytes(b"no library")
    with pytest.warns(RuntimeWarning, match="reference operators on cpu"):
        assert not cuda_ops.load("cpu")


@pytest.mark.usefixtures("unloaded")
def test_no_gpu_means_the_reference_and_no_build(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.warns(RuntimeWarning, match="reference operators on cuda"):
        assert not cuda_ops.load("cuda")
    assert not cache.exists()


@pytest.mark.usefixtures("unloaded")
def test_the_reference_can_be_chosen(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LIGHTNING_NNCF_OPS", "reference")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert not cuda_ops.load("cpu")
    assert cuda_ops.describe("cpu") == "cpu operators: reference (chosen by LIGHTNING_NNCF_OPS)"
    assert not cache.exists()


@pytest.mark.usefixtures("unloaded")
def test_native_or_an_error_can_be_chosen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("LIGHTNING_NNCF_CACHE", str(tmp_path / "file" / "cache"))
    monkeypatch.setenv("LIGHTNING_NNCF_OPS", "native")
    with pytest.raises(BuildError, match="cannot write"):
        cuda_ops.load("cpu")


@pytest.mark.usefixtures("unloaded")
def test_an_unknown_choice_is_said(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LIGHTNING_NNCF_OPS", "fast")
    monkeypatch.setattr(loading, "_load_library", lambda device: None)
    with pytest.warns(UserWarning, match="expected one of auto, native, reference"):
        assert cuda_ops.load("cpu")


def test_other_devices_have_no_kernels(unloaded: None) -> None:
    assert not cuda_ops.load("meta")
    with pytest.raises(BuildError, match="no kernels for device 'meta'"):
        build("meta")


def test_the_name_of_a_library_follows_its_sources_and_flags(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = library_path("cpu")
    assert name == library_path("cpu")
    assert name.parent.parent == cache
    kernels = building._SOURCES
    monkeypatch.setattr(building, "_SOURCES", shutil.copytree(kernels, tmp_path / "csrc"))
    names = {device: library_path(device) for device in ("cpu", "cuda")}
    assert names["cpu"] == name
    for file, changed in (("sparsify_cuda.cuh", {"cuda"}), ("sparsify_cpu.cpp", {"cpu"}), ("grid.h", {"cpu", "cuda"})):
        with (tmp_path / "csrc" / file).open("a") as source:
            source.write("\n")
        after = {device: library_path(device) for device in names}
        assert {device for device in names if after[device] != names[device]} == changed, file
        names = after
    monkeypatch.setattr(building, "_SOURCES", kernels)
    monkeypatch.setattr(toolchain, "compiler_flags", lambda device: ("-O0",))
    assert library_path("cpu") != name
    monkeypatch.setenv("TORCH_CUDA_ARCH_LIST", "8.0")
    first = library_path("cuda")
    monkeypatch.setenv("TORCH_CUDA_ARCH_LIST", "9.0")
    assert library_path("cuda") != first
    first = library_path("cuda")
    monkeypatch.setattr(toolchain, "nvcc_flags", lambda: ("-O0",))
    assert library_path("cuda") != first


def test_the_command_reports_what_it_built_and_what_failed(
    cache: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def compile_the_cpu_only(device: str, workspace: Path, timeout: float) -> Path:
        if device != "cpu":
            raise BuildError("no nvcc")
        (workspace / "library.so").write_bytes(b"y")
        return workspace / "library.so"

    monkeypatch.setattr(building, "_compile", compile_the_cpu_only)
    assert command.main(["cpu"]) == 0
    assert command.main(["cpu", "cuda"]) == 1
    output = capsys.readouterr().out
    assert "cpu: built in" in output
    assert "cpu: present in" in output
    assert "cuda: FAILED: no nvcc" in output
    with pytest.raises(SystemExit):
        command.main(["tpu"])


def test_the_command_builds_side_by_side(
    cache: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    both = threading.Barrier(2, timeout=60)

    def compile_together(device: str, workspace: Path, timeout: float) -> Path:
        both.wait()
        (workspace / "library.so").write_bytes(device.encode())
        return workspace / "library.so"

    monkeypatch.setattr(building, "_compile", compile_together)
    assert command.main(["cpu", "cuda"]) == 0
    assert [library_path(device).read_text() for device in ("cpu", "cuda")] == ["cpu", "cuda"]
    assert capsys.readouterr().out.count("built") == 2


def test_an_interrupted_command_ends_at_once_and_leaves_nothing(cache: Path, tmp_path: Path) -> None:
    compiler = tmp_path / "slow"
    compiler.write_text("#!/bin/sh\necho $$ >> $0.started\nexec sleep 300\n")
    compiler.chmod(0o755)
    environment = os.environ | {"CXX": str(compiler)}
    process = subprocess.Popen(
        [sys.executable, "-c", INTERRUPTED], cwd=ROOT, env=environment, stderr=subprocess.DEVNULL
    )
    started = tmp_path / "slow.started"
    until(started.exists)
    process.send_signal(signal.SIGINT)
    assert process.wait(30) != 0
    assert {path.suffix for path in library_path("cpu").parent.iterdir()} == {".lock"}
    until(lambda: not any(alive(int(number)) for number in started.read_text().split()), 10.0)


def test_a_warm_cache_loads_in_a_moment() -> None:
    if not cuda_ops.load("cpu"):
        pytest.skip(cuda_ops.describe("cpu"))
    start = time.process_time()
    torch.ops.load_library(str(build("cpu")))
    assert time.process_time() - start < 0.3


@pytest.mark.slow
def test_cuda_sources_compile_where_nvcc_is() -> None:
    if torch.version.cuda is None or toolchain.cuda_home() is None:
        pytest.skip("needs nvcc and a PyTorch with CUDA")
    if "TORCH_CUDA_ARCH_LIST" not in os.environ:
        assert toolchain.cuda_architectures().endswith("8.0;9.0+PTX")
    assert build("cuda").stat().st_size > 0
