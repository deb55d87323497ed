"""Which path is taken, and how the kernels are built, on every instruction set; the benchmark."""

from __future__ import annotations

import argparse
import ctypes
import os
import platform
import signal
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
import torch
from comparing import assert_same, encoder, needs_compiler, pair, run

from gvae_core.bench import __main__ as bench
from gvae_core.bench import steerable as steerable_bench
from gvae_core.steerable import accelerate, building, native, path_in_use


def test_environment_variable(monkeypatch):
    for path in ("escnn", "torch"):
        monkeypatch.setenv("GVAE_STEERABLE", path)
        assert path_in_use(accelerate(encoder())) == path
    monkeypatch.setenv("GVAE_STEERABLE", "fast")
    with pytest.raises(ValueError, match="GVAE_STEERABLE.*escnn, torch, native.*'fast'"):
        accelerate(encoder())
    with pytest.raises(ValueError, match="escnn, torch, native.*'cuda'"):
        accelerate(encoder(), "cuda")


@pytest.mark.parametrize("compiler", ["/nonexistent/compiler", "false"])
def test_without_a_compiler_the_torch_path_is_taken(monkeypatch, compiler):
    monkeypatch.setenv("CXX", compiler)
    native.load.cache_clear()
    try:
        module = accelerate(encoder(), "native")
        with pytest.warns(RuntimeWarning, match="torch path is used"):
            y = run(module, torch.randn(2, 1, 16, 16))["output"]
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert path_in_use(module) == "torch"  # said once
        assert torch.isfinite(y).all()
    finally:
        native.load.cache_clear()


@pytest.mark.slow
@needs_compiler
def test_built_once(tmp_path):
    first = building.build(tmp_path)
    stamp = first.stat().st_mtime_ns
    assert building.build(tmp_path) == first and first.stat().st_mtime_ns == stamp
    assert [p.suffix for p in tmp_path.iterdir() if p.suffix != ".lock"] == [".so"]


INSTRUCTION_SETS = {
    "x86_64": {
        "baseline": (),
        "avx2": ("-mavx2", "-mfma"),
        "avx512": ("-mavx512f", "-mavx512vl", "-mfma"),
    },
    "aarch64": {"baseline": ()},
}.get(platform.machine(), {"baseline": ()})


@pytest.mark.slow
@needs_compiler
@pytest.mark.parametrize("name", INSTRUCTION_SETS)
def test_every_instruction_set(name, tmp_path, monkeypatch):
    """The same source for narrower vectors, which every machine of the architecture can run."""
    if name != "baseline" and f"{name}" not in Path("/proc/cpuinfo").read_text():
        pytest.skip(f"this processor has no {name}")
    library = ctypes.CDLL(str(building.build(tmp_path, INSTRUCTION_SETS[name])))
    assert library.steerable_width() == {"baseline": 4, "avx2": 8, "avx512": 16}[name]
    monkeypatch.setattr(native, "load", lambda: library)
    for fields, kernel_size, padding in (
        ((5, 20, 3), 4, 2),
        ((16, 33, 17), 3, 1),
        ((2, 3, 2), 5, 0),
    ):
        module = encoder(fields, kernel_size=kernel_size, padding=padding, strides=(1, 2, 1))
        assert_same(*pair(module, "native"), torch.randn(3, 1, 21, 22))


ALONE = """
import ctypes, sys, numpy
planes, packed = numpy.random.default_rng(0).normal(size=(5, 3, 2, 70)).astype("f"), numpy.ones((5, 70, 2, 8), "f")
sizes = map(ctypes.c_int64, (*planes.shape, 3))
pointers = (ctypes.c_void_p(array.ctypes.data) for array in (planes, packed))
assert not hasattr(ctypes.CDLL(None), "GOMP_parallel") and "torch" not in sys.modules
assert ctypes.CDLL(sys.argv[1]).steerable_pack(*sizes, *pointers) == 0
assert (packed[..., :3] == planes.transpose(0, 3, 2, 1)).all() and not packed[..., 3:].any()
"""


@needs_compiler
def test_the_kernels_start_threads_where_there_is_no_openmp():
    subprocess.run([sys.executable, "-c", ALONE, native.load()._name], check=True)


@needs_compiler
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_the_kernels_work_in_a_forked_process(monkeypatch):
    """Where torch's own operations would wait for ever for the threads that the fork left behind."""
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    planes = torch.randn(4, 6, 5, 5)
    packed = native.Pack.apply(planes, 3)
    if (child := os.fork()) == 0:
        signal.alarm(20)
        os._exit(not (native.Pack.apply(planes, 3) == packed).all())
    assert os.waitpid(child, 0)[1] == 0


def test_benchmark_prints_its_tables(monkeypatch, capsys):
    monkeypatch.setattr(steerable_bench, "NETWORKS", {"small": ((2, 2), 2, (1, 2), 12, 2)})
    parser = argparse.ArgumentParser()
    steerable_bench.add_arguments(parser)
    arguments = [
        "--networks",
        "small",
        "--variants",
        "escnn",
        "torch",
        "--repeats",
        "1",
        "--no-memory",
        "--batch",
    ]
    steerable_bench.main(parser.parse_args([*arguments, "2", "--threads", str(torch.get_num_threads())]))
    lines = capsys.readouterr().out.splitlines()
    header, stock, fast = (line.split() for line in lines[-3:])
    assert (stock[0], fast[0], fast[1]) == ("escnn", "torch", "torch") and header[0] == "variant"
    assert float(fast[-1]) <= 1e-5 and float(fast[-2]) <= 1e-5  # the errors it prints
    for wrong, message in (
        (["--batch", "0"], "expected --batch of at least 1, got 0"),
        (["--repeats", "0"], "expected --repeats of at least 1, got 0"),
        (["--device", "x"], "got 'x'"),
    ):
        with pytest.raises(SystemExit):
            bench.main(["steerable", *wrong])
        assert message in capsys.readouterr().err
