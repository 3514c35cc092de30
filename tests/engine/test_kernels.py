"""kiku's own operators beside ONNX Runtime's: the same words, and what happens without them."""

import os
import platform
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

import kiku.engine.kernels as room
from kiku.engine import SlotEngine
from kiku.engine.kernels import ONNX_RUNTIME, Kernels, kernels
from kiku.engine.memory import OrderedMemory, RingMemory
from kiku.engine.onnx import onnx_engine
from kiku.errors import StreamError
from tests import tiny
from tests.engine.engines import SIZE, advance, graphs, own_kernels, said, sound, step


def engine_of(precision: str, used: Kernels, **changes: object) -> SlotEngine:
    settings = {"slots": 1, "threads": 1, **changes}
    return onnx_engine(graphs(precision), tiny.model_config(), used=used, **settings)  # type: ignore[arg-type]


@pytest.fixture
def asked_anew() -> Iterator[None]:
    """What is found holds for the process; here it is asked again, and forgotten after."""
    kernels.cache_clear()
    yield
    kernels.cache_clear()


def test_where_the_package_is_installed_it_is_used() -> None:
    import kiku_kernels

    assert own_kernels().processor == kiku_kernels.processor()
    assert own_kernels().reason == ""


def test_both_variants_say_the_same() -> None:
    frames = sound(40)
    own, plain = (engine_of("float32", used) for used in (own_kernels(), ONNX_RUNTIME))
    slots = [engine.open()[0] for engine in (own, plain)]
    assert said(own, slots[0], frames) == said(plain, slots[1], frames)


@pytest.mark.parametrize(("precision", "most"), [("int8", 0.02), ("int4", 0.02)])
def test_both_variants_compute_nearly_the_same_of_rounded_weights(
    precision: str, most: float
) -> None:
    """Both round what they multiply to 8 bits, each in its own way."""
    codes = np.random.default_rng(0).integers(0, 16, (12, 4))
    given = []
    for used in (own_kernels(), ONNX_RUNTIME):
        engine = engine_of(precision, used, keep_logits=True)
        slot, _ = engine.open(lambda logits: 5)  # whatever it says, it reads the same
        given.append(engine.decode([slot], codes, [12]).logits)
    own, plain = given
    assert np.linalg.norm(own - plain) < most * np.linalg.norm(plain)


@pytest.mark.parametrize("precision", ["int8", "int4", "int8_kv8", "int4_kv8"])
def test_a_row_is_computed_alike_alone_and_among_others(precision: str) -> None:
    """Bit for bit: so what is said depends neither on the block nor on who else speaks."""
    frames = sound(24)
    alone = engine_of(precision, own_kernels(), keep_logits=True)
    slot, _ = alone.open()
    singly = [advance(alone, [slot], frames[None, t : t + 1]).logits for t in range(24)]
    many = engine_of(precision, own_kernels(), keep_logits=True, slots=3, threads=2)
    others = [many.open()[0] for _ in range(3)]
    for at in range(0, 24, 8):
        part = np.stack([sound(8, seed=at + 1), frames[at : at + 8], sound(8, seed=at + 2)])
        together = advance(many, others, part).logits
        assert together is not None
        for t in range(8):
            assert np.array_equal(together[8 + t], singly[at + t][0])  # type: ignore[index]


@pytest.mark.parametrize("back", [False, True])
def test_a_saved_slot_goes_from_one_variant_to_the_other(back: bool) -> None:
    """A talk that was saved on a machine with kernels goes on where there are none."""
    frames = sound(60)
    first, second = (engine_of("float32", used) for used in (own_kernels(), ONNX_RUNTIME))
    if back:
        first, second = second, first
    slot, _ = first.open()
    said(first, slot, frames[:40])
    saved = first.save(slot)
    other, _ = second.open()
    second.restore(other, saved)
    assert said(second, other, frames[40:]) == said(first, slot, frames[40:])


def test_a_ring_gives_back_what_it_was_given() -> None:
    config = tiny.transformer(window=10)
    ring, ordered = RingMemory(config, 2, 4), OrderedMemory(config, 2, 4)
    generator = np.random.default_rng(0)
    for position in (0, 3, 9, 10, 75, 1000):
        seen = min(position, config.window - 1)
        shape = (config.num_heads, seen, config.head_dim)
        saved = {"position": np.array([position])} | {
            f"{part}.{layer}": generator.normal(size=shape).astype(np.float32)
            for part in ("keys", "values")
            for layer in range(config.num_layers)
        }
        for memory in (ring, ordered):
            memory.check(saved)
            memory.restore(1, saved)
            again = memory.save(1)
            assert again.keys() == saved.keys()
            assert all(np.array_equal(again[name], saved[name]) for name in saved)


def saved_rows(of: Callable[[tuple[int, ...]], np.ndarray]) -> dict[str, np.ndarray]:
    """A saved slot of two positions; `of` makes keys and values of a shape."""
    config = tiny.transformer(window=4)
    shape = (config.num_heads, 2, config.head_dim)
    names = [f"{part}.{i}" for part in ("keys", "values") for i in range(config.num_layers)]
    return {"position": np.array([2])} | {name: of(shape) for name in names}


@pytest.mark.parametrize("kept_in", [np.float16, np.int8])
def test_keys_of_fewer_bits_take_what_is_beyond_them(kept_in: type[np.generic]) -> None:
    memory = RingMemory(tiny.transformer(window=4), 1, 4, kept_in)
    saved = saved_rows(lambda shape: np.full(shape, 1e30, np.float32))
    memory.check(saved)
    memory.restore(0, saved)
    memory.check(memory.save(0))  # no infinities
    whole = RingMemory(tiny.transformer(window=4), 1, 4)
    whole.restore(0, memory.save(0))
    assert np.allclose(whole.save(0)["values.1"], 65504)


def test_keys_of_8_bits_become_others_and_others_them() -> None:
    """Half a step is how far a number is moved, the first time only."""
    config = tiny.transformer(window=4)
    eight, whole = RingMemory(config, 1, 4, np.int8), RingMemory(config, 1, 4)
    random = np.random.default_rng(0)
    first = saved_rows(lambda shape: random.normal(size=shape).astype(np.float32))
    first["keys.0"][0, 0] = 0
    first["keys.0"][0, 1] *= np.float32(1e-36)
    eight.restore(0, first)
    saved = eight.save(0)
    eight.check(saved)
    whole.restore(0, saved)
    back = whole.save(0)
    for name in first.keys() - {"position"}:
        assert saved[name].dtype == np.int8
        steps = np.abs(first[name]).max(axis=-1, keepdims=True) / 127
        steps[steps < 1e-33] = 3e-36  # these become 0
        assert (np.abs(back[name] - first[name]) <= 0.5001 * steps).all()
    assert not back["keys.0"][0].any()
    eight.restore(0, back)
    whole.restore(0, eight.save(0))
    assert all(np.allclose(whole.save(0)[name], back[name], rtol=1e-6) for name in back)


def test_a_scale_that_is_no_number_is_refused() -> None:
    memory = RingMemory(tiny.transformer(window=4), 1, 4, np.int8)
    memory.restore(0, saved_rows(lambda shape: np.ones(shape, np.float32)))
    for wrong in (np.nan, np.inf, 3e38):  # 127 times the last is infinite
        saved = memory.save(0)
        saved["values.1"][1, 1, -4:] = np.array([wrong], np.float32).view(np.int8)
        with (
            np.errstate(all="ignore"),
            pytest.raises(ValueError, match="values that are not finite"),
        ):
            memory.check(saved)


def test_8_bits_are_for_the_keys_of_the_decoder_alone_and_tell_models_apart() -> None:
    eight, half = (engine_of(name, own_kernels()) for name in ("int8_kv8", "int8"))
    kept = [
        [network.memory.dtype for network in (one.backend._decoder, one.backend._codec)]  # type: ignore[attr-defined]
        for one in (eight, half)
    ]
    assert kept == [[np.int8, np.float16], [np.float16, np.float16]]
    slot, _ = half.open()
    other, _ = eight.open()
    with pytest.raises(StreamError, match="load the same model with the same dtype"):
        eight.restore(other, half.save(slot))


def test_a_slot_with_keys_of_8_bits_goes_on_without_kernels_and_comes_back() -> None:
    own, plain = (engine_of("int8_kv8", used) for used in (own_kernels(), ONNX_RUNTIME))
    first, _ = own.open()
    said(own, first, sound(40))
    saved = own.save(first)
    second, _ = plain.open()
    plain.restore(second, saved)
    again = plain.save(second)
    assert len(again) > len(saved), "32 bits"
    own.restore(first, again)
    assert len(own.save(first)) == len(saved)
    assert len(said(own, first, sound(9))) == len(said(plain, second, sound(9))) == 9


@pytest.mark.parametrize("value", ["off", " OFF\n", "0", "none"])
@pytest.mark.usefixtures("asked_anew")
def test_they_can_be_switched_off(
    value: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("KIKU_KERNELS", value)
    assert kernels().library is None
    assert kernels().reason == "KIKU_KERNELS is off"
    assert not caplog.text
    assert said(*_opened(kernels()), sound(3)) == said(*_opened(ONNX_RUNTIME), sound(3))


def _opened(used: Kernels) -> tuple[SlotEngine, int]:
    engine = engine_of("int8", used)
    return engine, engine.open()[0]


@pytest.mark.usefixtures("asked_anew")
def test_without_the_package_all_is_left_to_the_runtime(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "kiku_kernels", None)
    assert kernels() == Kernels(None, "", "kiku-kernels is not installed")
    assert not caplog.text


@pytest.mark.usefixtures("asked_anew")
def test_a_package_without_its_library_is_told(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """pip tells of a build that failed only if it is asked for more."""
    import kiku_kernels

    def missing() -> Path:
        raise kiku_kernels.NoKernels("it could not be built here")

    monkeypatch.setattr(kiku_kernels, "library", missing)
    assert kernels() == kernels() == Kernels(None, "", "it could not be built here")
    assert caplog.messages == ["kiku-kernels is not used: it could not be built here"]


@pytest.mark.parametrize(
    ("value", "told"),
    [
        (
            "avx1024",
            "KIKU_KERNELS asks for 'avx1024', which it does not know: take one of avx512, ",
        ),
        ("Neon", "KIKU_KERNELS asks for 'Neon', which this processor does not run: take one of "),
    ],
)
def test_kernels_that_this_machine_has_not_are_told(value: str, told: str) -> None:
    """The library looks into the environment once: so in a process of its own."""
    if platform.machine() == "aarch64" and value == "Neon":
        pytest.skip("it has these")
    assert told in _asked(value)


@pytest.mark.parametrize("change", [str.upper, " {} \n".format])
def test_a_name_in_large_letters_or_with_blanks_is_a_name(change: Callable[[str], str]) -> None:
    name = own_kernels().processor
    assert _asked(change(name)) == name


def _asked(value: str) -> str:
    """The kernels of a process with this value of KIKU_KERNELS, or why there are none."""
    code = (
        "import kiku_kernels\n"
        "try: print(kiku_kernels.processor())\n"
        "except kiku_kernels.NoKernels as error: print(error)"
    )
    environment = {**os.environ, "KIKU_KERNELS": value}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=60
    )
    return done.stdout.strip()


@pytest.mark.usefixtures("asked_anew")
def test_a_package_with_other_operators_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    import kiku_kernels

    monkeypatch.setattr(kiku_kernels, "OPERATORS", kiku_kernels.OPERATORS + 1)
    assert kernels().library is None
    assert "has other operators" in kernels().reason


@pytest.mark.usefixtures("asked_anew")
def test_a_folder_of_that_name_is_no_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Such as one that is left over: Python imports it as a package with nothing in it."""
    (tmp_path / "kiku_kernels").mkdir()
    import kiku_kernels

    monkeypatch.delitem(sys.modules, kiku_kernels.__name__)
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    assert kernels().library is None
    assert kernels().reason.startswith("kiku-kernels is not installed: ")
    assert str(tmp_path / "kiku_kernels") in kernels().reason
    assert not caplog.text


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("import kiku_kernels.part", "ModuleNotFoundError: No module named 'kiku_kernels.part'"),
        ("def", "SyntaxError"),
        (f"OPERATORS = {room._OPERATORS}", "AttributeError: .* no attribute"),
        ("library = None", "has other operators"),
    ],
)
@pytest.mark.usefixtures("asked_anew")
def test_a_damaged_package_is_not_used(
    text: str, told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "kiku_kernels").mkdir()
    (tmp_path / "kiku_kernels/__init__.py").write_text(text)
    import kiku_kernels

    monkeypatch.delitem(sys.modules, kiku_kernels.__name__)
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    assert kernels().library is None
    assert re.search(told, kernels().reason)


@pytest.mark.parametrize("kept", [100, 0.1, 0.5, 0.9, -1])
@pytest.mark.usefixtures("asked_anew")
def test_a_library_that_is_cut_off_is_not_loaded(
    kept: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """By a full disk or a copy that was stopped: who reads where nothing is left is killed."""
    import kiku_kernels

    whole = own_kernels().library
    if whole is None or not whole.endswith(".so"):
        pytest.skip("only Linux loads half a library")
    kernels.cache_clear()
    data = Path(whole).read_bytes()
    size = int(kept * len(data)) if isinstance(kept, float) else kept
    (tmp_path / "kernels.so").write_bytes(data[:size])
    monkeypatch.setattr(kiku_kernels, "__file__", str(tmp_path / "__init__.py"))
    with pytest.raises(kiku_kernels.BrokenLibrary, match=r"kernels\.so is cut off .* again$"):
        kiku_kernels.library()
    assert kernels().library is None
    assert f" of {len(data):,} bytes" in kernels().reason
    assert caplog.text.count("kiku-kernels is not used: ") == 1


@pytest.mark.usefixtures("asked_anew")
def test_another_library_is_not_used(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    import kiku_kernels
    from numpy._core import _multiarray_umath as another

    monkeypatch.setattr(kiku_kernels, "library", lambda: Path(another.__file__))
    assert kernels().library is None
    assert "is another library, without kiku_processor" in kernels().reason
    assert "kiku-kernels is not used" in caplog.text


@pytest.mark.usefixtures("asked_anew")
def test_a_library_that_is_none_is_not_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    import kiku_kernels

    damaged = tmp_path / "kernels.so"
    damaged.write_bytes(b"no library at all" * 100)
    monkeypatch.setattr(kiku_kernels, "library", lambda: damaged)
    monkeypatch.setattr(kiku_kernels, "processor", lambda: "avx2")
    assert kernels().library is None
    assert "does not accept it" in kernels().reason
    assert "kiku-kernels is not used" in caplog.text


@pytest.mark.usefixtures("asked_anew")
def test_a_library_that_computes_nonsense_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    own_kernels()
    kernels.cache_clear()
    right = room.product_model

    def of_another_matrix(matrix: np.ndarray) -> bytes:
        return right(-matrix)

    monkeypatch.setattr(room, "product_model", of_another_matrix)
    assert kernels().reason == "it computed a wrong product"


def test_frames_of_the_size_are_stepped() -> None:
    """Of both variants, slots that are far apart in one step."""
    for used in (own_kernels(), ONNX_RUNTIME):
        engine = engine_of("int8", used, slots=5)
        slots = [engine.open()[0] for _ in range(5)]
        alone = engine_of("int8", used)
        one, _ = alone.open()
        frames = sound(6)
        expected = step(alone, [one], frames[None])[0].tolist()
        given = step(
            engine, [slots[4], slots[0]], np.stack([frames, np.zeros((6, SIZE), np.float32)])
        )
        assert given[0].tolist() == expected
