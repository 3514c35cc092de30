# pyright: reportMissingImports=false
# Triton comes with PyTorch for CUDA only.
"""Attention by Triton's kernels: when it is taken, that it compiles for GPUs, and (in a process of
its own, by Triton's interpreter) that it is right. None of it needs a GPU."""

import logging
import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch

from kiku.engine.cuda import GpuOptions, cuda_engine
from kiku.engine.gpu import draws, layers
from kiku.engine.gpu.attention import Attend, Trial, attend_plainly, pick_attend
from kiku.engine.gpu.kernel_choice import KernelChoice
from kiku.engine.gpu.launches import row_sizes
from kiku.engine.gpu.rings import RING_DTYPES, Rings
from kiku.engine.gpu.room import SIZES
from kiku.errors import ConfigError
from kiku.nn.rope import Rope
from kiku.nn.transformer import TransformerLayer
from tests import tiny
from tests.conftest import ROOT
from tests.engine.engines import sound

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


def picked(name: str, rings: Rings, device: torch.device) -> Attend:
    return pick_attend(name, rings, device, sizes=(1, 4), dtype=torch.float32)


def rings(kv: str = "float32", device: torch.device = CPU, **changes: Any) -> Rings:
    return Rings(tiny.transformer(**changes), 3, 4, RING_DTYPES[kv], device)


def in_the_interpreter(marks: str, seconds: int) -> None:
    pytest.importorskip("triton", reason="Triton, which comes with PyTorch for CUDA, is missing")
    command = [
        sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-m", marks,
        "--timeout", str(seconds), str(Path(__file__).with_name("test_triton_cases.py")),
    ]  # fmt: skip
    places = filter(None, [str(ROOT / "src"), os.environ.get("PYTHONPATH")])  # Triton's, too
    env = {**os.environ, "TRITON_INTERPRET": "1", "PYTHONPATH": os.pathsep.join(places)}
    env.pop("PYTEST_ADDOPTS", None)
    env.pop("PYTEST_XDIST_WORKER", None)
    ran = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stdout[-4000:] + ran.stderr[-1000:]
    assert " passed" in ran.stdout


@pytest.mark.timeout(900)
def test_it_is_right() -> None:
    in_the_interpreter("not heavy", 100)


@pytest.mark.heavy
@pytest.mark.timeout(1500)
def test_it_is_right_in_all_shapes() -> None:
    in_the_interpreter("heavy", 400)


# When it is taken.


def a_module(attend: Any, fits: bool = True) -> ModuleType:
    module = ModuleType("kiku.engine.gpu.ring_attention")
    module.attend_by_kernel = attend  # pyright: ignore[reportAttributeAccessIssue]
    module.fits = lambda *_: fits  # pyright: ignore[reportAttributeAccessIssue]
    module.trials = lambda *_: [  # pyright: ignore[reportAttributeAccessIssue]
        Trial(2, T, dtype) for T in (1, 4) for dtype in (torch.float32, torch.bfloat16)
    ]
    return module


@pytest.fixture
def there(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Puts something in the place of the kernels, on a processor that passes for a device."""
    monkeypatch.setenv("TRITON_INTERPRET", "1")

    def put(attend: Any, fits: bool = True) -> None:
        name = "kiku.engine.gpu.ring_attention"
        monkeypatch.setitem(sys.modules, name, a_module(attend, fits))

    return put


def off(by: float) -> Any:
    """Right for one query, off by so much for several."""

    def attend(qkv: Any, *rest: Any) -> torch.Tensor:
        out = attend_plainly(qkv, *rest)
        return out if qkv.shape[1] == 1 else out + by

    return attend


def only_wide(qkv: Any, *rest: Any) -> torch.Tensor:
    """Right for queries in float32."""
    if qkv.dtype != torch.float32:
        raise TypeError("no such dtype")
    return attend_plainly(qkv, *rest)


def test_the_processor_takes_the_plain_form() -> None:
    assert picked("auto", rings(), CPU) is attend_plainly
    assert picked("plain", rings(), CUDA) is attend_plainly
    with pytest.raises(ConfigError, match=r"'triton' does not work here: .* CUDA devices; 'plain'"):
        cuda_engine(tiny.codec(), tiny.lm(), device="cpu", options=GpuOptions(attention="triton"))
    with pytest.raises(
        ConfigError, match="attention must be one of auto, triton, plain, not 'flash'"
    ):
        GpuOptions(attention="flash").check(CPU)


def test_kernels_that_agree_are_taken(there: Any) -> None:
    for good in (off(0.0), off(0.01)):
        there(good)
        for kv in ("float32", "bfloat16", "float8"):
            assert picked("triton", rings(kv), CPU) is good


@pytest.mark.parametrize(
    ("attend", "fits", "why"),
    [
        (off(0.1), True, "off by 0.1 from plain PyTorch"),
        (off(torch.nan), True, "off by nan"),
        (lambda *_: 1 / 0, True, r"the kernel fails \(ZeroDivisionError: division by zero\)"),
        (only_wide, True, r"the kernel fails \(TypeError: no such dtype"),
        (off(0.0), False, "no kernel for 2 heads of 16 in torch.float32"),
    ],
)
def test_kernels_that_fail_are_not(
    attend: Any, fits: bool, why: str, there: Any, caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    there(attend, fits)
    with pytest.raises(ConfigError, match=why):
        picked("triton", rings(), CPU)
    # Where they are taken unasked, it is told and goes on.
    monkeypatch.setattr(
        KernelChoice, "fault", lambda choice, _, fault=KernelChoice.fault: fault(choice, CPU)
    )
    with caplog.at_level(logging.WARNING):
        assert picked("auto", rings(), CUDA) is attend_plainly
    assert "attention is plain PyTorch" in caplog.text


def test_without_triton_the_plain_form_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    monkeypatch.setitem(sys.modules, "triton", None)
    for name in ("ring_attention", "ring_kernels"):
        monkeypatch.delitem(sys.modules, f"kiku.engine.gpu.{name}", raising=False)
    with pytest.raises(ConfigError, match="Triton, which comes with PyTorch for CUDA, cannot be"):
        picked("triton", rings(), CPU)


class Stood:
    """Stands for a kernel: does in PyTorch what that is to do, `wrong` by so much."""

    def __init__(self, work: Any, wrong: float) -> None:
        self.work, self.wrong, self.num_runs = work, wrong, 0

    def __getitem__(self, grid: Any) -> Any:
        def run(*given: Any, **_: Any) -> None:
            self.num_runs += 1
            out = next(t for t in reversed(given) if isinstance(t, torch.Tensor))
            out.copy_(self.work(*given) + self.wrong)

        return run


def layer_kernels(norm: float = 0.0, gate: float = 0.0) -> SimpleNamespace:
    """The kernels of norms and gates, so much wrong."""

    def normed(x: Any, weight: Any, _: Any, width: int, __: int, eps: float) -> torch.Tensor:
        return torch.nn.functional.rms_norm(x, (width,), weight, eps)

    def gated(x: Any, _: Any, size: int, __: int) -> torch.Tensor:
        return torch.nn.functional.silu(x[..., :size]) * x[..., size:]

    return SimpleNamespace(norm_kernel=Stood(normed, norm), gate_kernel=Stood(gated, gate))


@pytest.mark.parametrize(
    ("kernels", "why"),
    [
        (layer_kernels(norm=0.5), "are off by"),
        (layer_kernels(gate=0.5), "are off by"),
        (layer_kernels(norm=torch.nan), "are off by nan"),
        (SimpleNamespace(), r"fails \(AttributeError"),
    ],
)
def test_norms_and_gates_that_fail_stay_plain(
    kernels: Any, why: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    monkeypatch.setattr(layers, "_kernels", lambda: kernels)
    with caplog.at_level(logging.WARNING):
        assert layers.pick_between(tiny.lm().transformer, CPU) is layers.PLAIN
    (told,) = caplog.messages
    assert re.search(f"norms and gates are plain PyTorch.*{why}", told)


def test_where_attention_is_by_kernels_norms_and_gates_are(
    there: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And the engine says the same: in every layer two norms and a gate, and the last norm."""
    there(off(0.0))
    kernels = layer_kernels()
    monkeypatch.setattr(layers, "_kernels", lambda: kernels)
    told: list[list[int]] = []
    for name in ("plain", "triton"):
        options = GpuOptions(attention=name, sizes=(1, 4), rows=(1,))
        engine = cuda_engine(tiny.codec(), tiny.lm(), device="cpu", options=options)
        slot, _ = engine.open()
        kernels.norm_kernel.num_runs = kernels.gate_kernel.num_runs = 0
        told.append(engine.step([slot], sound(1)).tokens.tolist())
        num_layers = tiny.lm().config.transformer.num_layers if name == "triton" else 0
        assert kernels.gate_kernel.num_runs == num_layers
        assert kernels.norm_kernel.num_runs == (2 * num_layers + 1 if num_layers else 0)
        for at in range(1, 20):
            told[-1] += engine.step([slot], sound(20)[at : at + 1]).tokens.tolist()
    assert told[0] == told[1]


# That it compiles for GPUs, which an interpreter does not say. Triton's compiler needs none.


POINTERS = {torch.float32: "fp32", torch.bfloat16: "bf16", torch.float16: "fp16",
            torch.int64: "i64", torch.uint8: "u8"}  # fmt: skip


class Noted:
    """A kernel that is not run: what it would have been given."""

    def __init__(self, name: str, kernel: Any, launches: list[Any]) -> None:
        self.name, self.kernel, self.launches = name, kernel, launches

    def __getitem__(self, grid: Any) -> Any:
        return lambda *given, **options: self.launches.append((self, given, options))


def noted_launches(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Where launches of the kernels are noted from now on, in place of being run."""
    from kiku.engine.gpu import ring_kernels

    launches: list[Any] = []
    for name in ("place_kernel", "attend_one_kernel", "attend_several_kernel", "join_kernel"):
        noted = Noted(name, getattr(ring_kernels, name), launches)
        monkeypatch.setattr(ring_kernels, name, noted)
    return launches


def compiled(noted: Noted, given: Any, options: dict[str, Any], capability: int) -> Any:
    """As Triton would compile this launch."""
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    signature: dict[str, Any] = {}
    constants: dict[tuple[int, ...], Any] = {}
    aligned: dict[tuple[int, ...], Any] = {}

    def noted_kind(value: Any, path: tuple[int, ...]) -> Any:
        """The type of one argument, or a tuple of those in it, as Triton takes them."""
        if isinstance(value, tuple):
            parts: tuple[Any, ...] = value
            return tuple(noted_kind(part, (*path, i)) for i, part in enumerate(parts))
        if isinstance(value, torch.Tensor):
            aligned[path] = [["tt.divisibility", 16]]
            return f"*{POINTERS[value.dtype]}"
        constants[path] = value
        return "constexpr"

    assert len(given) == len(noted.kernel.params)
    for place, (parameter, value) in enumerate(zip(noted.kernel.params, given, strict=True)):
        signature[parameter.name] = noted_kind(value, (place,))
        assert (signature[parameter.name] == "constexpr") is parameter.is_constexpr
    source = ASTSource(noted.kernel, signature, constants, aligned)
    return triton.compile(source, target=GPUTarget("cuda", capability, 32), options=options)


def resources(cubin: bytes, folder: Path) -> str:
    """What a kernel takes of a multiprocessor. What spills goes to the stack."""
    import triton

    (folder / "kernel.cubin").write_bytes(cubin)
    command = [triton.knobs.nvidia.cuobjdump.path, "-res-usage", str(folder / "kernel.cubin")]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


@pytest.mark.parametrize(
    ("kv", "T", "rows"),
    [("float8", 1, 1)]
    + [pytest.param(kv, T, rows, marks=pytest.mark.heavy)
       for kv, T, rows in (("bfloat16", 1, 1), ("bfloat16", 1, 64), ("bfloat16", 4, 8),
                           ("float8", 16, 8), ("float16", 16, 64), ("float32", 2, 1),
                           ("float32", 8, 1), ("float32", 32, 8))],
)  # fmt: skip
def test_it_compiles_for_gpus(
    kv: str, T: int, rows: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """For Hopper, in the shapes of the 1B: keys are read 16 bytes at a time, and nothing spills."""
    pytest.importorskip("triton", reason="Triton, which comes with PyTorch for CUDA, is missing")
    if os.environ.get("TRITON_INTERPRET") == "1":
        pytest.skip("the interpreter was asked for in place of the compiler")
    from kiku.engine.gpu import ring_attention

    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    launches = noted_launches(monkeypatch)
    codec = kv == "float32"
    heads, width, window = (8, 64, 250) if codec else (16, 128, 750)
    shape = replace(
        tiny.transformer(), dim=heads * width, num_heads=heads, head_dim=width, window=window
    )
    kept = Rings(shape, 1, 32, RING_DTYPES[kv], CPU)
    dtype = torch.float32 if codec else torch.bfloat16
    qkv = torch.zeros(rows, T, 3, heads, width, dtype=dtype)
    start = torch.zeros(rows, dtype=torch.int64)
    angles = Rope(width, 1e4)(start[:, None] + torch.arange(T))
    out = ring_attention.attend_by_kernel(qkv, angles, kept, 0, start, start)
    assert out.shape == (rows, T, heads * width)
    attending = "attend_one_kernel" if T <= 2 else "attend_several_kernel"
    names = [noted.name for noted, _, _ in launches]
    assert names == ["place_kernel", attending, *(["join_kernel"] if rows < 64 else [])]
    for noted, given, options in launches:
        made = compiled(noted, given, options, 90)
        assert made.metadata.shared <= 99 * 1024  # what a program may have on Ada, the least of all
        if noted.name.startswith("attend"):
            assert "ld.global.v4.b32" in made.asm["ptx"]
            assert "STACK:0 " in resources(made.asm["cubin"], tmp_path)
            assert ("mma" in made.asm["ptx"]) is (T > 2 and not codec)


def forms(rings: Rings, calls: list[tuple[int, int]], dtype: torch.dtype) -> set[tuple[Any, ...]]:
    """The programs that calls over rings, of so many rows and positions, run."""
    from kiku.engine.gpu import ring_attention

    found = set[tuple[Any, ...]]()
    with pytest.MonkeyPatch.context() as patch:
        launches = noted_launches(patch)
        for rows, T in calls:
            heads, width = rings.config.num_heads, rings.config.head_dim
            launches.clear()
            qkv = torch.empty(rows, T, 3, heads, width, dtype=dtype)
            nothing = torch.empty(0)
            ring_attention.attend_by_kernel(qkv, (nothing, nothing), rings, 0, nothing, nothing)
            shape = launches[0][1][-1]
            for noted, given, _ in launches:
                shared = given[-1] if noted.name.startswith("attend") else None
                found.add((noted.name, shape, shared))
    return found


@pytest.mark.parametrize("kv", ["float32", "bfloat16", "float16", "float8"])
@pytest.mark.parametrize("sizes", [SIZES, (1,), (1, 2)])
def test_every_form_that_calls_take_was_tried(kv: str, sizes: tuple[int, ...]) -> None:
    """With the 1B's heads, and those of the codec: what was not tried might fail later, when the
    plain form can no longer be taken. What is tried need not be compiled again."""
    pytest.importorskip("triton", reason="Triton, which comes with PyTorch for CUDA, is missing")
    from kiku.engine.gpu.ring_attention import trials

    codec = kv == "float32"
    heads, width, frame = (8, 64, 2) if codec else (16, 128, 1)
    shape = replace(
        tiny.transformer(), num_layers=1, dim=heads * width, num_heads=heads, head_dim=width,
        window=250, positions_per_frame=frame,
    )  # fmt: skip
    kept = Rings(shape, 1, max(sizes) * frame, RING_DTYPES[kv], CPU)
    weights = {"float8": torch.bfloat16}.get(kv, RING_DTYPES[kv])
    calls = [(R, T * frame) for T in sizes for R in row_sizes(T, 1000)]
    trial_calls = trials(kept, CPU, sizes, weights)
    assert {trial.dtype for trial in trial_calls} == {weights}
    tried = [(trial.rows, trial.positions) for trial in trial_calls]
    assert forms(kept, calls, weights) == forms(kept, tried, weights)
    assert len(forms(kept, calls, weights)) > 3


def test_norms_and_gates_compile_for_gpus(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """In the sizes of the 1B."""
    pytest.importorskip("triton", reason="Triton, which comes with PyTorch for CUDA, is missing")
    if os.environ.get("TRITON_INTERPRET") == "1":
        pytest.skip("the interpreter was asked for in place of the compiler")
    from kiku.engine.gpu import layer_kernels as kernels

    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    launches: list[Any] = []
    for name in ("norm_kernel", "gate_kernel"):
        monkeypatch.setattr(kernels, name, Noted(name, getattr(kernels, name), launches))
    shape = replace(tiny.transformer(), dim=2048, ffn_dim=5632)
    layer = TransformerLayer(shape).to(torch.bfloat16)
    x = torch.zeros(3, 1, 2048, dtype=torch.bfloat16)
    layers.feed_forward_by_kernel(layer.feed_forward, layers.norm_by_kernel(layer.norm1, x))
    assert [noted.name for noted, _, _ in launches] == ["norm_kernel", "gate_kernel"]
    for noted, given, options in launches:
        made = compiled(noted, given, options, 90)
        assert "ld.global.v4.b32" in made.asm["ptx"]
        assert "STACK:0 " in resources(made.asm["cubin"], tmp_path)


def test_drawing_compiles_for_gpus(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Among the 1B's tokens: scores and noise of a row stay in registers, but for a few numbers."""
    pytest.importorskip("triton", reason="Triton, which comes with PyTorch for CUDA, is missing")
    if os.environ.get("TRITON_INTERPRET") == "1":
        pytest.skip("the interpreter was asked for in place of the compiler")
    from kiku.engine.gpu import draw_kernels as kernels

    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    launches: list[Any] = []
    monkeypatch.setattr(kernels, "draw_kernel", Noted("draw", kernels.draw_kernel, launches))
    draws.draw_by_kernel(*draws.trial(8000, CPU))
    ((noted, given, options),) = launches
    made = compiled(noted, given, options, 90)
    assert made.metadata.shared <= 32 * 1024
    (stack,) = re.findall(r"STACK:(\d+) ", resources(made.asm["cubin"], tmp_path))
    assert int(stack) <= 64
