"""The engine as a library, on the miniature ensemble."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from senoscope.engine import DeviceError, Ensemble, EnsembleError, IntensityRange, fit_range
from senoscope.engine.bound import BoundExecutor
from senoscope.engine.devices import gpu_problem
from senoscope.engine.executor import NetworkFile, NetworkOutput
from senoscope.engine.gradcam import ensemble_map, network_map
from senoscope.engine.intensity import usual_saturation
from senoscope.engine.locations import find_ensemble
from senoscope.engine.manifest import Manifest, sha256_of
from senoscope.engine.onnx_file import refuse_external_data
from senoscope.engine.uncertainty import uncertainty
from support import miniature as mini
from support.image_bytes import npy


@pytest.fixture
def copy(miniature: Path, tmp_path: Path) -> Path:
    """A copy of the ensemble that a test may damage."""
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
    assert control.map().max() == 0, "with all ReLUs off the map is zero, not NaN"


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
def test_invalid_pixels_are_refused(miniature: Path, fov: np.ndarray, message: str) -> None:
    with Ensemble.load(miniature, device="cpu") as ensemble:
        with pytest.raises(ValueError, match=message):
            ensemble.predict(fov)
        with pytest.raises(ValueError, match=message.partition(".*")[0]):
            ensemble.predict(np.ma.stack([mini.dark().astype(fov.dtype), fov]))
        ensemble.predict(np.ma.array(mini.dark()))  # no pixel is masked


@pytest.mark.parametrize("low", [[np.nan, 0, 0], [0, 0, 5000], [0, 0]])
def test_an_invalid_range_is_refused(miniature: Path, low: list[float]) -> None:
    bounds = IntensityRange(np.array(low, np.float32), np.full(len(low), 4000, np.float32), "session")
    with (
        Ensemble.load(miniature, device="cpu") as ensemble,
        pytest.raises(ValueError, match="intensity range"),
    ):
        ensemble.predict(mini.dark(), bounds)


def test_fitting_a_range_to_nan_is_refused() -> None:
    with pytest.raises(ValueError, match="NaN or infinite"):
        fit_range(changed(np.nan, "float32")[None])


@pytest.mark.parametrize("fovs", [1, 3])
def test_predictions_own_their_memory(miniature: Path, fovs: int) -> None:
    """A view would keep the memory of a whole ensemble or batch allocated."""
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


def test_predictions_do_not_depend_on_batch_dtype_or_threads(miniature: Path) -> None:
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


class _RecordingSession:
    """A session that records the threads that run it."""

    def __init__(self, session: ort.InferenceSession, seen: set[str]) -> None:
        self._session, self._seen = session, seen

    def run_with_iobinding(self, *arguments: object) -> None:
        self._seen.add(threading.current_thread().name)
        self._session.run_with_iobinding(*arguments)

    def __getattr__(self, name: str) -> object:
        return getattr(self._session, name)


def test_one_thread_runs_the_cuda_executor_for_all_callers(miniature: Path) -> None:
    """ONNX Runtime keeps a captured graph for the thread that captured it."""
    networks = [
        NetworkFile(name, miniature / f"{name}.onnx", grid, mini.FEATURES, (3, 250, 300))
        for name, grid in zip(mini.NAMES, mini.GRIDS, strict=True)
    ]
    low, high = np.full(3, mini.LOW, np.float32), np.full(3, mini.HIGH, np.float32)
    image = mini.bright()[None].astype(np.float32)
    seen: set[str] = set()
    bound = BoundExecutor(networks, device="cpu")
    try:
        bound._sessions = [_RecordingSession(session, seen) for session in bound._sessions]
        bound.warm_up(image, low, high)
        with ThreadPoolExecutor(2) as others:
            expected, got = others.map(lambda _: bound.run(image, low, high), range(2))
            others.submit(bound.keep_warm).result()
        with pytest.raises(Exception, match=r"shape|dimension"):
            bound.run(image[..., :17], low, high)
        again = bound.run(image, low, high)  # a failed run does not affect the next
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
        (lambda d: (d / "ensemble.json").write_text("{"), "cannot be parsed: Expecting"),
        (lambda d: edit(d, lambda m: m.update(schema_version="9")), "schema_version '9'"),
        (lambda d: edit(d, lambda m: m.update(nmae="x")), "nmae: Extra inputs"),
        (
            lambda d: edit(d, lambda m: m["networks"].pop()),
            "does not have a probability for exactly the networks",
        ),
        (lambda d: edit(d, lambda m: m["normalization"]["channels"].pop()), "normalization has 2 channels"),
        (lambda d: (d / "xception.onnx").unlink(), r"xception\.onnx: .* is missing"),
        (lambda d: (d / "mobilenet.onnx").open("ab").write(b"x"), r"mobilenet\.onnx: has sha256"),
        (
            lambda d: edit(d, lambda m: m["networks"][0]["variants"][0].update(file="../../etc/passwd")),
            "must be a plain file name",
        ),
        (
            lambda d: edit(d, lambda m: m["test_vectors"][0]["expected"]["networks"].update(xception=0.111)),
            "xception gives .* this machine does not reproduce the trained ensemble",
        ),
    ],
)
def test_the_error_of_a_damaged_ensemble_names_the_file(copy: Path, damage, message: str) -> None:
    damage(copy)
    with pytest.raises(EnsembleError, match=message):
        Ensemble.load(copy, device="cpu")


def test_a_file_that_is_not_a_network_is_refused(copy: Path) -> None:
    path = copy / "resnet50.onnx"
    path.write_bytes(b"not a network")
    edit(copy, lambda m: m["networks"][3]["variants"][0].update(sha256=sha256_of(path)))
    with pytest.raises(EnsembleError, match=r"resnet50\.onnx: is not an ONNX file"):
        Ensemble.load(copy, device="cpu")


def rewrite_graph(directory: Path, change: Callable[[onnx.ModelProto], None], name: str = "resnet50") -> None:
    """Change a network's graph, and update its hash in the manifest."""
    path = directory / f"{name}.onnx"
    model = onnx.load(path)
    change(model)
    path.write_bytes(model.SerializeToString())
    accept_files(directory)


def accept_files(directory: Path) -> None:
    """Update the hashes in the manifest to the current files."""

    def rehash(manifest: dict) -> None:
        for network in manifest["networks"]:
            for variant in network["variants"]:
                variant["sha256"] = sha256_of(directory / variant["file"])
        for vector in manifest["test_vectors"]:
            vector["sha256"] = sha256_of(directory / vector["file"])

    edit(directory, rehash)


def set_in(*path: str | int, value: object) -> Callable[[dict], None]:
    def change(manifest: dict) -> None:
        place: Any = manifest
        for key in path[:-1]:
            place = place[key]
        place[path[-1]] = value

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            set_in("input", "height", value=251),
            r"inception_v3\.onnx: image has shape \[N, 3, 250, 300\]; ens",
        ),
        (set_in("input", "height", value=10**7), r"ensemble\.json: .*input\.height"),
        (set_in("input", "height", value=60_000), r"inception_v3\.onnx: image has shape"),
        (set_in("input", "height", value=10**30), r"ensemble\.json: .*more than 63 bits"),
        (set_in("input", "channels", 1, "name", value="SRS"), r"channel names repeat: SRS, SRS"),
        (
            set_in("networks", 3, "gradcam_grid", value=[4, 4]),
            r"resnet50\.onnx: gradcam has shape \[N, 8",
        ),
        (set_in("networks", 3, "gradcam_grid", value=[251, 4]), r"resnet50, 251 x 4, exceeds"),
        (set_in("networks", 3, "gradcam_grid", value=[0, 4]), r"ensemble\.json: .*gradcam_grid"),
        (set_in("networks", 3, "feature_size", value=6), r"resnet50\.onnx: features has shape \[N, 5\]"),
        (set_in("networks", 3, "name", value="a/b"), r"ensemble\.json: .*networks\.3\.name"),
        (
            set_in("version", value="\ud800"),
            r"ensemble\.json: .*version contains a control character or an unpaired surrogate",
        ),
        (set_in("intended_use", value="a\x00b"), r"intended_use contains a control character"),
        (
            set_in("training", "config", value={"\ud800": 1}),
            r"a key contains a control character or an unpaired surrogate",
        ),
        (set_in("training", "config", value={"a": float("nan")}), r"NaN is not a number in JSON"),
        (set_in("version", value="1\r\nSet-Cookie: x=1"), r"ensemble\.json: .*version"),
        (set_in("version", value="v" * 1_000_000), r"ensemble\.json: .*version"),
        (set_in("version", value=""), r"ensemble\.json: .*version"),
        (set_in("version", value="1/2"), r"ensemble\.json: .*version"),
        (
            set_in("normalization", "channels", 0, "high", value=1e39),
            r"exceeds the range of single precision",
        ),
        (
            set_in("normalization", "channels", 0, value={"low": 1e9, "high": 1e9 + 1}),
            r"are equal in single precision",
        ),
        (set_in("normalization", "k_iqr", value=-1.0), r"ensemble\.json: .*k_iqr"),
        (set_in("test_vectors", 0, "tolerance", value=1e9), r"ensemble\.json: .*tolerance"),
        (set_in("intended_use", value="u" * 2001), r"schema: intended_use: .*2000 characters"),
        (set_in("licence", value="l" * 2001), r"schema: licence: .*2000 characters"),
        (set_in("warnings", value=["w" * 2001]), r"schema: warnings\.0: .*2000 characters"),
        (set_in("warnings", value=["w"] * 101), r"schema: warnings: .*100 items"),
        (set_in("authors", value=["a" * 201]), r"schema: authors\.0: .*200 characters"),
        (set_in("networks", 3, "architecture", value="a" * 201), r"networks\.3\.architecture: .*200 char"),
        (set_in("normalization", "fitted_on", value="f" * 2001), r"normalization\.fitted_on: .*2000 char"),
        (set_in("input", "channels", 0, "name", value="SRS\r\nX: 1"), r"input\.channels\.0\.name: .*pattern"),
        (set_in("input", "channels", 0, "name", value=""), r"input\.channels\.0\.name: .*at least 1"),
        (set_in("ensemble", "classes", value=["a\tb", "x"]), r"ensemble\.classes\.0: .*pattern"),
        (set_in("ensemble", "classes", value=["a", "x\u2028y"]), r"ensemble\.classes\.1: .*pattern"),
        (set_in("ensemble", "classes", value=["a", "x\n"]), r"ensemble\.classes\.1: .*pattern"),
        (set_in("ensemble", "classes", value=["x", "x"]), r"both classes are called"),
        (set_in("training", "config", value=json.loads("[" * 40 + "]" * 40)), r"nested too deeply"),
    ],
)
def test_a_manifest_that_is_invalid_or_differs_from_its_graphs_is_refused(
    copy: Path, change: Callable[[dict], None], message: str
) -> None:
    edit(copy, change)
    with pytest.raises(EnsembleError, match=message):
        Ensemble.load(copy, device="cpu")


def after_logit(model: onnx.ModelProto, *nodes: onnx.NodeProto, **constants: np.ndarray) -> None:
    """Insert nodes that compute ``logit`` from ``l0``, the original output."""
    place = next(k for k, node in enumerate(model.graph.node) if "logit" in node.output)
    model.graph.node[place].output[:] = ["l0"]
    for n, node in enumerate(nodes):
        model.graph.node.insert(place + 1 + n, node)
    model.graph.initializer.extend(numpy_helper.from_array(array, name) for name, array in constants.items())


def mix_batch(model: onnx.ModelProto) -> None:
    """Make the output depend on the mean of the batch, like a batch normalization in training mode."""
    node = helper.make_node
    after_logit(
        model,
        node("ReduceMean", ["l0"], ["mean"], axes=[0], keepdims=1),
        node("Sub", ["l0", "mean"], ["apart"]),
        node("Mul", ["apart", "top"], ["more"]),
        node("Add", ["l0", "more"], ["logit"]),
    )


def drop_all_but_the_first(model: onnx.ModelProto) -> None:
    """Give an output for the first field of view only, which the declared shapes do not show."""
    node = helper.make_node
    after_logit(
        model,
        node("Cast", ["high"], ["whole"], to=TensorProto.INT64),
        node("Div", ["whole", "whole"], ["ones"]),
        node("Slice", ["ones", "first", "second"], ["one"]),
        node("Slice", ["l0", "first", "one"], ["logit"]),
        first=np.array([0], np.int64),
        second=np.array([1], np.int64),
    )


def repeat_the_first(model: onnx.ModelProto) -> None:
    """Give the output of the first field of view for the whole batch."""
    node = helper.make_node
    after_logit(
        model,
        node("Shape", ["l0"], ["count"]),
        node("Slice", ["l0", "first", "second"], ["one"]),
        node("Expand", ["one", "count"], ["logit"]),
        first=np.array([0], np.int64),
        second=np.array([1], np.int64),
    )


def mix_maps(model: onnx.ModelProto) -> None:
    """Make the Grad-CAM map depend on the largest one of the batch."""
    rename_output(model, "gradcam", "map0")
    model.graph.node.extend(
        [
            helper.make_node("ReduceMax", ["map0"], ["largest"], axes=[0], keepdims=1),
            helper.make_node("Add", ["map0", "largest"], ["gradcam"]),
        ]
    )


@pytest.mark.parametrize("change", [mix_batch, mix_maps, drop_all_but_the_first, repeat_the_first])
def test_a_network_with_different_outputs_in_a_batch_is_refused(
    copy: Path, change: Callable[[onnx.ModelProto], None]
) -> None:
    rewrite_graph(copy, change)
    with pytest.raises(EnsembleError, match=r"resnet50\.onnx: gives different outputs in a batch: "):
        Ensemble.load(copy, device="cpu")


def test_missing_outputs_of_a_batch_are_an_error(miniature: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Ensemble.load(miniature, device="cpu") as ensemble:
        run = ensemble._executor.run

        def shortened(*arguments: Any) -> list[NetworkOutput]:
            outputs = run(*arguments)
            outputs[2] = outputs[2]._replace(logit=outputs[2].logit[:1])
            return outputs

        monkeypatch.setattr(ensemble._executor, "run", shortened)
        ensemble.predict(mini.bright())
        with pytest.raises(RuntimeError, match="network densenet121: outputs are missing"):
            ensemble.predict(np.stack([mini.bright(), mini.dark()]))


def rename_output(model: onnx.ModelProto, name: str, inner: str) -> None:
    for node in model.graph.node:
        for names in (node.output, node.input):
            names[:] = [inner if one == name else one for one in names]


def other_rank(model: onnx.ModelProto) -> None:
    rename_output(model, "probability", "p0")
    model.graph.node.append(helper.make_node("Unsqueeze", ["p0", "channel_axis"], ["probability"]))
    (entry,) = (one for one in model.graph.output if one.name == "probability")
    entry.CopyFrom(helper.make_tensor_value_info("probability", TensorProto.FLOAT, ["N", 1]))


def hidden_rank(model: onnx.ModelProto) -> None:
    """Change the output's shape without a declaration, so that it is only found in a run."""
    other_rank(model)
    (entry,) = (one for one in model.graph.output if one.name == "probability")
    entry.type.tensor_type.ClearField("shape")


def fixed_batch(model: onnx.ModelProto) -> None:
    for entry in (*model.graph.input, *model.graph.output):
        if entry.type.tensor_type.shape.dim[0].dim_param == "N":
            entry.type.tensor_type.shape.dim[0].dim_value = 1


def double_logit(model: onnx.ModelProto) -> None:
    rename_output(model, "logit", "l0")
    model.graph.node.append(helper.make_node("Cast", ["l0"], ["logit"], to=TensorProto.DOUBLE))
    (entry,) = (one for one in model.graph.output if one.name == "logit")
    entry.CopyFrom(helper.make_tensor_value_info("logit", TensorProto.DOUBLE, ["N"]))


def nan_map(model: onnx.ModelProto) -> None:
    rename_output(model, "gradcam", "g0")
    model.graph.node.append(helper.make_node("Div", ["g0", "zero"], ["gradcam"]))


def negative_map(model: onnx.ModelProto) -> None:
    rename_output(model, "gradcam", "g0")
    model.graph.node.append(helper.make_node("Sub", ["g0", "top"], ["gradcam"]))


def no_probability(model: onnx.ModelProto) -> None:
    rename_output(model, "probability", "p0")
    model.graph.node.append(helper.make_node("Mul", ["p0", "top"], ["probability"]))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (other_rank, r"probability has shape \[N, 1\]; ensemble\.json says \[N\]"),
        (hidden_rank, r"probability has shape \[(N|1), 1\]; ensemble\.json says"),
        (fixed_batch, r"image has shape \[1, 3, 250, 300\]; ensemble\.json says \[N, 3, 250, 300\]"),
        (double_logit, r"logit is tensor\(double\)"),
        (nan_map, "gradcam is negative or not finite"),
        (negative_map, "gradcam is negative or not finite"),
        (no_probability, "probability is not between 0 and 1"),
    ],
)
def test_a_graph_with_invalid_inputs_or_outputs_is_refused(
    copy: Path, change: Callable[[onnx.ModelProto], None], message: str
) -> None:
    rewrite_graph(copy, change)
    with pytest.raises(EnsembleError, match=rf"resnet50\.onnx: {message}"):
        Ensemble.load(copy, device="cpu")


def test_weights_in_other_files_are_refused(copy: Path) -> None:
    """The manifest has no hash for them."""
    path = copy / "resnet50.onnx"
    model = onnx.load(path)
    onnx.save(model, path, save_as_external_data=True, location="weights.bin", size_threshold=0)
    assert (copy / "weights.bin").is_file()
    accept_files(copy)
    with pytest.raises(EnsembleError, match=r"resnet50\.onnx: keeps weights in another file"):
        Ensemble.load(copy, device="cpu")


def test_weights_in_other_files_are_found_anywhere_in_the_graph(tmp_path: Path) -> None:
    outside = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[1], data_location=TensorProto.EXTERNAL)
    inside = helper.make_tensor("w", TensorProto.FLOAT, [1], [0.0])
    for tensor, found in ((outside, True), (inside, False)):
        constant = helper.make_node("Constant", [], ["c"], value=tensor)
        branch = helper.make_graph([constant], "branch", [], [])
        models = [
            helper.make_model(helper.make_graph([constant], "g", [], [])),
            helper.make_model(helper.make_graph([], "g", [], [], [tensor])),
            helper.make_model(
                helper.make_graph([helper.make_node("If", ["i"], [], then_branch=branch)], "g", [], [])
            ),
            helper.make_model(
                helper.make_graph([], "g", [], []),
                functions=[helper.make_function("d", "f", [], ["c"], [constant], [])],
            ),
        ]
        for model in models:
            path = tmp_path / "model.onnx"
            path.write_bytes(model.SerializeToString())
            if found:
                with pytest.raises(EnsembleError, match="external data"):
                    refuse_external_data(path)
            else:
                refuse_external_data(path)


@pytest.mark.parametrize("content", [b"", b"no protobuf at all", bytes(100), b"\x3a\xff\xff\xff\xff\x0f"])
def test_a_file_that_is_not_protobuf_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(content)
    with pytest.raises(EnsembleError, match="is not an ONNX file"):
        refuse_external_data(path)


def test_maps_of_test_vectors_are_compared(copy: Path) -> None:
    with Ensemble.load(copy, device="cpu") as ensemble:
        vector = ensemble.manifest.test_vectors[0]
        (prediction,) = ensemble.predict(np.load(copy / vector.file))
    maps = {name: grid.tolist() for name, grid in zip(mini.NAMES, prediction.gradcams, strict=True)}
    edit(copy, set_in("test_vectors", 0, "expected", "gradcams", value=maps))
    with Ensemble.load(copy, device="cpu") as ensemble:
        assert Manifest.model_validate_json(ensemble.manifest.to_json()) == ensemble.manifest
    maps["xception"][2][3] *= 1.5
    maps["xception"][2][3] += 0.1 * max(map(max, maps["xception"]))
    edit(copy, set_in("test_vectors", 0, "expected", "gradcams", value=maps))
    with pytest.raises(EnsembleError, match=r"test_vector\.npy: the Grad-CAM map of xception differs"):
        Ensemble.load(copy, device="cpu")
    edit(copy, set_in("test_vectors", 0, "expected", "gradcams", value={"xception": [[1.0]]}))
    with pytest.raises(EnsembleError, match=r"the map of xception .* does not have its grid"):
        Ensemble.load(copy, device="cpu")
    edit(copy, set_in("test_vectors", 0, "expected", "gradcams", value={"vgg": [[1.0]]}))
    with pytest.raises(EnsembleError, match=r"a map of 'vgg', which is not a network"):
        Ensemble.load(copy, device="cpu")


def test_a_manifest_without_maps_is_written_without_the_fields_of_maps(miniature: Path) -> None:
    """The digest of older ensembles must not change."""
    text = (miniature / "ensemble.json").read_text()
    assert "gradcam_tolerance" not in text
    assert "gradcams" not in text
    assert Manifest.model_validate_json(text).to_json() == text


def npy_with_a_huge_shape() -> bytes:
    header = b"{'descr': '<f8', 'fortran_order': False, 'shape': (1000000000000,), }"
    header += b" " * (117 - len(header)) + b"\n"
    return b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header


@pytest.mark.parametrize(
    "content",
    [
        npy_with_a_huge_shape(),
        npy(np.zeros((3, 250, 301), np.uint16)),
        npy(np.array(["x" * 10] * 3)),
        npy(np.zeros((3, 250, 300), np.complex64)),
        npy(np.full((3, 250, 300), np.nan, np.float32)),
        npy(np.full((3, 250, 300), 1e39)),
        b"",
        b"PK\x03\x04",
    ],
    ids=["terabytes", "other size", "text", "complex", "NaN", "too large", "empty", "archive"],
)
def test_an_invalid_test_vector_is_refused(copy: Path, content: bytes) -> None:
    (copy / "test_vector.npy").write_bytes(content)
    accept_files(copy)
    with pytest.raises(EnsembleError, match=r"test_vector\.npy: cannot be used as a test vector"):
        Ensemble.load(copy, device="cpu")


def test_an_output_that_is_not_a_number_is_an_error(miniature: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Ensemble.load(miniature, device="cpu") as ensemble:
        run = ensemble._executor.run

        def spoilt(*arguments: Any) -> list[NetworkOutput]:
            outputs = run(*arguments)
            outputs[2].probability[:] = np.nan
            return outputs

        monkeypatch.setattr(ensemble._executor, "run", spoilt)
        with pytest.raises(RuntimeError, match="network densenet121: probability is not between 0 and 1"):
            ensemble.predict(mini.bright())


@pytest.mark.skipif(gpu_problem() is None, reason="this machine has a GPU")
def test_cuda_is_never_replaced_silently(miniature: Path) -> None:
    with pytest.raises(DeviceError, match="--device cuda: "):
        Ensemble.load(miniature, device="cuda")
    with Ensemble.load(miniature, device="auto") as ensemble:
        assert ensemble.device == "cpu"
        assert ensemble.device_reason == f"CPU: {gpu_problem()}"


def test_an_unknown_name_lists_the_available_ensembles(miniature: Path) -> None:
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


def test_range_of_a_constant_channel_is_not_empty() -> None:
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
def test_uncertainty_is_within_its_bounds(probabilities: list[float]) -> None:
    entropy, information, agreement = uncertainty(np.array(probabilities, np.float32), 0.5)
    assert 0 <= entropy <= 1
    assert 0 <= information <= entropy + 1e-9
    assert 0 <= agreement <= 1


def test_mutual_information_measures_disagreement_only() -> None:
    doubt = uncertainty(np.full(7, 0.5001), 0.5)
    assert doubt == pytest.approx((1, 0, 1), abs=1e-6)
    disagreement = uncertainty(np.array([0.0, 0.0, 0.0, 1.0, 1.0, 1.0]), 0.4)
    assert disagreement == pytest.approx((1, 1, 0.5), abs=1e-6)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_saturation_counts_the_pixels_above_the_range(dtype: type[np.generic]) -> None:
    pixels = np.array([[[0, 1, 2, 3]], [[0, 0, 9, 9]], [[5, 5, 5, 5]]], dtype)
    high = np.array([1.5, -1.0, 70000.0], np.float32)
    bounds = IntensityRange(high - 1, high, "model")
    assert bounds.saturated_fraction(pixels).tolist() == [0.5, 1.0, 0.0]


def test_usual_saturation_is_the_99th_percentile() -> None:
    stack = np.zeros((101, 2, 10, 100), np.uint16)
    for n in range(101):
        stack[n, 0].flat[: 5 * n] = 9  # from 0 to half of the pixels
    assert usual_saturation(stack, np.array([8, 8], np.float32)).tolist() == [0.495, 0.0]


def test_telemetry_of_onnx_runtime_is_off() -> None:
    program = "import os; os.environ.pop('ORT_DISABLE_TELEMETRY', None); import senoscope.engine; "
    program += "print(os.environ['ORT_DISABLE_TELEMETRY'])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True, text=True)
    assert done.stdout == "1\n"
