"""The engine as a library, on the miniature ensemble."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from senoscope.engine import DeviceError, Ensemble, EnsembleError, IntensityRange, fit_range
from senoscope.engine.bound import BoundExecutor
from senoscope.engine.cpu import CpuExecutor
from senoscope.engine.devices import gpu_problem
from senoscope.engine.executor import NetworkFile
from senoscope.engine.gradcam import ensemble_map, network_map
from senoscope.engine.intensity import usual_saturation
from senoscope.engine.locations import find_ensemble
from senoscope.engine.uncertainty import uncertainty
from support import miniature as mini


@pytest.fixture
def copy(miniature: Path, tmp_path: Path) -> Path:
    """An ensemble that a test may damage."""
    return Path(shutil.copytree(miniature, tmp_path / "copy"))


def edit(directory: Path, change) -> None:
    path = directory / "ensemble.json"
    manifest = json.loads(path.read_text())
    change(manifest)
    path.write_text(json.dumps(manifest))


def test_predicts_each_fov_of_a_stack(miniature: Path) -> None:
    with Ensemble.load(miniature, device="cpu") as ensemble:
        senescent, control = ensemble.predict(np.stack([mini.bright(), mini.dark()]))
    assert (senescent.label, control.label) == ("senescent", "control")
    assert senescent.networks == mini.NAMES
    assert senescent.probability == pytest.approx(senescent.probabilities.mean(), abs=1e-7)
    assert [cam.shape for cam in senescent.gradcams] == list(mini.GRIDS)
    assert senescent.map().shape == (250, 300)
    assert senescent.map().max() > 0.9
    assert control.map().max() == 0, "all ReLUs are off: the map is zero, not NaN"


def changed(value: object, dtype: str) -> np.ndarray:
    fov = mini.dark().astype(dtype)
    fov[1, 3, 4] = value
    return fov


@pytest.mark.parametrize(
    ("fov", "message"),
    [
        (changed(np.nan, "float32"), r"1 pixels are NaN.*\(1, 3, 4\)"),
        (changed(np.inf, "float64"), "infinite"),
        (changed(-np.inf, "float16"), "infinite"),
        (changed(1e300, "float64"), "too large for float32"),
        (mini.dark().astype(complex), "complex"),
        (mini.dark() > 5, "bool"),
        (mini.dark().astype(object), "object"),
        (np.ma.masked_less(mini.dark(), 10_000), "masked"),
    ],
    ids=["NaN", "infinite", "negative infinite", "too large", "complex", "bool", "object", "masked"],
)
def test_what_no_detector_counts_is_refused(miniature: Path, fov: np.ndarray, message: str) -> None:
    with Ensemble.load(miniature, device="cpu") as ensemble:
        with pytest.raises(ValueError, match=message):
            ensemble.predict(fov)
        with pytest.raises(ValueError, match=message.partition(".*")[0]):
            ensemble.predict(np.ma.stack([mini.dark().astype(fov.dtype), fov]))
        ensemble.predict(np.ma.array(mini.dark()))  # nothing is masked


@pytest.mark.parametrize("low", [[np.nan, 0, 0], [0, 0, 5000], [0, 0]])
def test_a_range_that_is_none_is_refused(miniature: Path, low: list[float]) -> None:
    bounds = IntensityRange(np.array(low, np.float32), np.full(len(low), 4000, np.float32), "session")
    with (
        Ensemble.load(miniature, device="cpu") as ensemble,
        pytest.raises(ValueError, match="intensity range"),
    ):
        ensemble.predict(mini.dark(), bounds)


def test_no_range_is_fitted_to_nan() -> None:
    with pytest.raises(ValueError, match="NaN or infinite"):
        fit_range(changed(np.nan, "float32")[None])


@pytest.mark.parametrize("fovs", [1, 3])
def test_predictions_own_their_memory(miniature: Path, fovs: int) -> None:
    """A view would keep what ONNX Runtime allocated for a whole ensemble, or a whole batch, alive."""
    with Ensemble.load(miniature, device="cpu") as ensemble:
        predictions = ensemble.predict(np.stack([mini.bright()] * fovs))
    for prediction in predictions:
        arrays = (prediction.logits, prediction.probabilities, *prediction.gradcams, *prediction.features)
        assert all(array.flags.owndata for array in arrays)
        assert prediction.nbytes == sum(array.nbytes for array in arrays)


def test_agrees_with_another_runtime(miniature: Path) -> None:
    fov = np.random.default_rng(7).integers(0, 1200, (3, 250, 300), dtype=np.uint16)
    with Ensemble.load(miniature, device="cpu") as ensemble:
        (prediction,) = ensemble.predict(fov)
    expected = [mini.reference_probability(miniature / f"{name}.onnx", fov) for name in mini.NAMES]
    np.testing.assert_allclose(prediction.probabilities, expected, atol=1e-6)


def test_answers_do_not_depend_on_batch_dtype_or_threads(miniature: Path) -> None:
    fovs = np.random.default_rng(8).integers(0, 1200, (5, 3, 250, 300), dtype=np.uint16)
    with Ensemble.load(miniature, device="cpu", threads=1) as one:
        alone = [one.predict(fov)[0].probability for fov in fovs]
    with Ensemble.load(miniature, device="cpu", threads=6) as six:
        together = [p.probability for p in six.predict(fovs.astype(np.float64))]
    np.testing.assert_allclose(alone, together, atol=1e-6)


def test_channel_count_and_size_come_from_the_manifest(tmp_path: Path) -> None:
    directory = mini.build(tmp_path / "two", channels=("SRS", "TPEF"), height=96, width=128)
    with Ensemble.load(directory, device="cpu") as ensemble:
        (prediction,) = ensemble.predict(mini.bright(2, 96, 128))
        assert prediction.label == "senescent"
        with pytest.raises(ValueError, match=r"expected \[N, 2, 96, 128\]"):
            ensemble.predict(mini.bright())


def test_bound_buffers_answer_as_plain_sessions_do(miniature: Path) -> None:
    """The CUDA profile's bindings, run on the CPU provider: all but CUDA itself."""
    networks = [
        NetworkFile(name, miniature / f"{name}.onnx", grid, mini.FEATURES)
        for name, grid in zip(mini.NAMES, mini.GRIDS, strict=True)
    ]
    low, high = np.full(3, mini.LOW, np.float32), np.full(3, mini.HIGH, np.float32)
    rng = np.random.default_rng(9)
    batches = [rng.uniform(0, 1100, (n, 3, 250, 300)).astype(np.float32) for n in (1, 4, 1, 2, 3, 4)]
    plain, bound = CpuExecutor(networks), BoundExecutor(networks, device="cpu")
    try:
        plain.warm_up(batches[0], low, high)
        bound.warm_up(batches[0], low, high)
        kept = [(plain.run(b, low, high), bound.run(b, low, high)) for b in batches]
    finally:
        plain.close()
        bound.close()
    for expected, got in kept:  # compared after all runs: no run may overwrite another's answer
        for one, other in zip(expected, got, strict=True):
            for a, b in zip(one, other, strict=True):
                np.testing.assert_allclose(a, b, atol=1e-5)


class _Session:
    """A session that notes which thread runs it."""

    def __init__(self, session: ort.InferenceSession, seen: set[str]) -> None:
        self._session, self._seen = session, seen

    def run_with_iobinding(self, *arguments: object) -> None:
        self._seen.add(threading.current_thread().name)
        self._session.run_with_iobinding(*arguments)

    def __getattr__(self, name: str) -> object:
        return getattr(self._session, name)


def test_one_thread_runs_the_cuda_profile_whoever_asks(miniature: Path) -> None:
    """ONNX Runtime keeps a captured graph for the thread that captured it."""
    networks = [
        NetworkFile(name, miniature / f"{name}.onnx", grid, mini.FEATURES)
        for name, grid in zip(mini.NAMES, mini.GRIDS, strict=True)
    ]
    low, high = np.full(3, mini.LOW, np.float32), np.full(3, mini.HIGH, np.float32)
    image = mini.bright()[None].astype(np.float32)
    seen: set[str] = set()
    bound = BoundExecutor(networks, device="cpu")
    try:
        bound._sessions = [_Session(session, seen) for session in bound._sessions]
        bound.warm_up(image, low, high)
        with ThreadPoolExecutor(2) as others:
            expected, got = others.map(lambda _: bound.run(image, low, high), range(2))
            others.submit(bound.keep_warm).result()
        with pytest.raises(Exception, match=r"shape|dimension"):
            bound.run(image[..., :17], low, high)
        again = bound.run(image, low, high)  # what fails there fails here, and nothing else does
    finally:
        bound.close()
        bound.close()
    assert len(seen) == 1
    assert threading.current_thread().name not in seen
    assert [o.logit for o in expected] == [o.logit for o in got] == [o.logit for o in again]
    assert not [thread for thread in threading.enumerate() if thread.name in seen]


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda d: (d / "ensemble.json").unlink(), r"ensemble\.json: no such file"),
        (lambda d: (d / "ensemble.json").write_text("{"), "is not JSON"),
        (lambda d: edit(d, lambda m: m.update(schema_version="9")), "schema_version '9'"),
        (lambda d: edit(d, lambda m: m.update(nmae="x")), "nmae: Extra inputs"),
        (lambda d: edit(d, lambda m: m["networks"].pop()), "does not answer for exactly the networks"),
        (lambda d: edit(d, lambda m: m["normalization"]["channels"].pop()), "normalization has 2 channels"),
        (lambda d: (d / "xception.onnx").unlink(), r"xception\.onnx: .* is missing"),
        (lambda d: (d / "mobilenet.onnx").open("ab").write(b"x"), r"mobilenet\.onnx: has sha256"),
        (
            lambda d: edit(d, lambda m: m["networks"][0]["variants"][0].update(file="../../etc/passwd")),
            "must be the plain name",
        ),
        (
            lambda d: edit(d, lambda m: m["test_vectors"][0]["expected"]["networks"].update(xception=0.111)),
            "xception answers .* this machine does not compute what was trained",
        ),
    ],
)
def test_a_damaged_ensemble_is_refused_by_name(copy: Path, damage, message: str) -> None:
    damage(copy)
    with pytest.raises(EnsembleError, match=message):
        Ensemble.load(copy, device="cpu")


def test_a_file_that_is_no_network_is_refused(copy: Path) -> None:
    from senoscope.engine.manifest import sha256_of

    path = copy / "resnet50.onnx"
    path.write_bytes(b"not a network")
    edit(copy, lambda m: m["networks"][3]["variants"][0].update(sha256=sha256_of(path)))
    with pytest.raises(EnsembleError, match=r"resnet50\.onnx: ONNX Runtime cannot load it"):
        Ensemble.load(copy, device="cpu")


@pytest.mark.skipif(gpu_problem() is None, reason="this machine has a GPU")
def test_cuda_is_never_replaced_silently(miniature: Path) -> None:
    with pytest.raises(DeviceError, match="--device cuda: "):
        Ensemble.load(miniature, device="cuda")
    with Ensemble.load(miniature, device="auto") as ensemble:
        assert ensemble.device == "cpu"
        assert ensemble.device_reason == f"CPU: {gpu_problem()}"


def test_finding_lists_what_there_is(miniature: Path) -> None:
    assert find_ensemble("miniature", miniature.parent) == miniature
    assert find_ensemble(str(miniature), Path("/nowhere")) == miniature
    with pytest.raises(EnsembleError, match="there are: miniature"):
        find_ensemble("starter", miniature.parent)


def test_range_is_the_extreme_pixels_within_3_5_iqr() -> None:
    rng = np.random.default_rng(3)
    stack = rng.normal(100, 10, (4, 2, 50, 60))
    stack[0, 1, 0, 0] = 1e6
    low, high = fit_range(stack)
    for c in range(2):
        values = np.sort(stack[:, c].ravel())
        q1, median, q3 = np.quantile(values, [0.25, 0.5, 0.75])
        kept = values[np.abs(values - median) <= 3.5 * (q3 - q1)]
        assert low[c] == np.float32(kept[0])
        assert high[c] == np.float32(kept[-1])
    assert high[1] < 1e5


def test_range_of_a_constant_channel_can_still_be_divided_by() -> None:
    low, high = fit_range(np.full((2, 1, 4, 4), 7, np.uint16))
    assert low[0] == 7
    assert high[0] > low[0]


def test_maps() -> None:
    grid = np.zeros((6, 8), np.float32)
    assert network_map(grid, 250, 300).max() == 0
    grid[2, 3] = 5
    one = network_map(grid, 250, 300)
    assert one.max() == 1
    row, column = np.unravel_index(one.argmax(), one.shape)
    assert abs(row - 2.5 * 250 / 6) < 1
    assert abs(column - 3.5 * 300 / 8) < 1
    both = ensemble_map([grid, np.zeros((8, 10), np.float32)], np.array([0.8, 0.9]), 250, 300)
    np.testing.assert_allclose(both, 0.8 * one / 2, atol=1e-6)


@given(st.lists(st.floats(0, 1, width=32), min_size=1, max_size=9))
@settings(max_examples=200, deadline=None)
def test_uncertainty_stays_in_its_bounds(probabilities: list[float]) -> None:
    entropy, information, agreement = uncertainty(np.array(probabilities, np.float32), 0.5)
    assert 0 <= entropy <= 1
    assert 0 <= information <= entropy + 1e-9
    assert 0 <= agreement <= 1


def test_uncertainty_tells_doubt_from_disagreement() -> None:
    doubt = uncertainty(np.full(7, 0.5001), 0.5)
    assert doubt == pytest.approx((1, 0, 1), abs=1e-6)
    quarrel = uncertainty(np.array([0.0, 0.0, 0.0, 1.0, 1.0, 1.0]), 0.4)
    assert quarrel == pytest.approx((1, 1, 0.5), abs=1e-6)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_saturation_counts_the_pixels_above_the_range(dtype: type[np.generic]) -> None:
    pixels = np.array([[[0, 1, 2, 3]], [[0, 0, 9, 9]], [[5, 5, 5, 5]]], dtype)
    high = np.array([1.5, -1.0, 70000.0], np.float32)
    bounds = IntensityRange(high - 1, high, "model")
    assert bounds.saturated_fraction(pixels).tolist() == [0.5, 1.0, 0.0]


def test_usual_saturation_is_what_one_in_a_hundred_exceeds() -> None:
    stack = np.zeros((101, 2, 10, 100), np.uint16)
    for n in range(101):
        stack[n, 0].flat[: 5 * n] = 9  # from none to half of the pixels
    assert usual_saturation(stack, np.array([8, 8], np.float32)).tolist() == [0.495, 0.0]


def test_onnx_runtime_does_not_call_home() -> None:
    told = "import os; os.environ.pop('ORT_DISABLE_TELEMETRY', None); import senoscope.engine; "
    told += "print(os.environ['ORT_DISABLE_TELEMETRY'])"
    done = subprocess.run([sys.executable, "-c", told], capture_output=True, check=True, text=True)
    assert done.stdout == "1\n"
