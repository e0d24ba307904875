"""The precision of an ensemble, and the gate that decides on it when the ensemble is loaded."""

from __future__ import annotations

import io
import re
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest

from senoscope.engine import DeviceError, Ensemble, EnsembleError, devices, precision_selection
from senoscope.engine.cancellation import Cancellation
from senoscope.engine.cpu import CpuExecutor
from senoscope.engine.devices import DeviceRow
from senoscope.engine.executor import Executor, Float32, NetworkFile, NetworkOutput, Opening
from senoscope.engine.gate import GateLimits
from senoscope.engine.manifest import read_manifest, sha256_of
from senoscope.engine.manifest_variants import RejectedVariant
from senoscope.engine.precision import PrecisionChoice
from support import miniature as mini
from support import variants

Arrays = dict[str, np.ndarray]


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return variants.build(tmp_path_factory.mktemp("variants") / "halves")


@pytest.fixture
def folder(original: Path, tmp_path: Path) -> Path:
    """An ensemble with fp16 variants, to be damaged."""
    return shutil.copytree(original, tmp_path / "halves")


def load(folder: Path, precision: PrecisionChoice = "fp16", gate: GateLimits | None = None) -> Ensemble:
    return Ensemble.load(folder, device="cpu", precision=precision, gate=gate, threads=2)


def reasons(ensemble: Ensemble, network: str | None = None) -> str:
    return "; ".join(
        "; ".join(one.reasons) for one in ensemble.rejected if network is None or one.network == network
    )


def renew_reference_hashes(folder: Path) -> None:
    """Renew the hashes of the reference files."""
    hashes = {
        "sha256": sha256_of(folder / "reference.npy"),
        "expected_sha256": sha256_of(folder / "reference_fp32.npz"),
    }
    variants.change_manifest(
        folder,
        lambda m: m.model_copy(update={"reference": m.reference and m.reference.model_copy(update=hashes)}),
    )


def test_variants_that_agree_are_used_on_request(original: Path, fovs: np.ndarray) -> None:
    with load(original) as halves, load(original, "fp32") as whole:
        assert (halves.precision, halves.fp32_networks, halves.rejected) == ("fp16", (), ())
        assert (whole.precision, whole.figures) == ("fp32", None)
        facts = halves.describe()
        assert facts["precision"] == "fp16"
        assert facts["gate"] is not None
        assert set(facts["gate"]["networks"]) == set(mini.NAMES)
        found = facts["gate"]["ensemble"]
        assert found["fovs"] == variants.FOVS
        assert 0 < found["max_abs_probability"] < 0.02
        pairs = zip(halves.predict(fovs), whole.predict(fovs), strict=True)
        apart = [abs(a.probability - b.probability) for a, b in pairs]
        assert 0 < max(apart) < 0.01, "these are other files"


def test_auto_stops_at_fp32_where_lower_precisions_are_slower(folder: Path) -> None:
    (folder / "mobilenet.fp16.onnx").write_bytes(b"never looked at")
    with load(folder, "auto") as ensemble:
        assert (ensemble.precision, ensemble.rejected, ensemble.warnings) == ("fp32", (), ())


def test_only_files_in_use_are_hashed(folder: Path) -> None:
    with (folder / "mobilenet.onnx").open("ab") as file:
        file.write(b"x")
    with load(folder) as ensemble:
        assert ensemble.precision == "fp16"
    with pytest.raises(EnsembleError, match=r"mobilenet\.onnx: has sha256"):
        load(folder, "auto")


def test_a_damaged_network_runs_in_fp32_alone(folder: Path, fovs: np.ndarray) -> None:
    variants.write_variant(folder, "mobilenet", change=variants.scale("w1", 1.5))
    with load(folder) as ensemble, load(folder, "fp32") as whole:
        assert (ensemble.precision, ensemble.fp32_networks) == ("fp16", ("mobilenet",))
        (rejection,) = ensemble.rejected
        assert (rejection.network, rejection.found_at) == ("mobilenet", "load")
        assert "deviates by" in reasons(ensemble)
        assert ensemble.warnings == (rejection.text("fp16"),)
        assert "fp16 was rejected for mobilenet, which runs in fp32: a probability" in ensemble.warnings[0]
        pairs = zip(ensemble.predict(fovs), whole.predict(fovs), strict=True)
        apart = np.max([abs(a.probabilities - b.probabilities) for a, b in pairs], axis=0)
        assert [name for name, value in zip(mini.NAMES, apart, strict=True) if value == 0] == ["mobilenet"]


def test_all_networks_damaged_is_fp32(folder: Path, fovs: np.ndarray) -> None:
    for name in mini.NAMES:
        variants.write_variant(folder, name, change=variants.scale("w1", 1.5))
    with load(folder) as ensemble, load(folder, "fp32") as whole:
        assert (ensemble.precision, ensemble.figures) == ("fp32", None)
        assert [one.network for one in ensemble.rejected] == [*mini.NAMES, None]
        assert ensemble.warnings[-1] == "fp16 was rejected, the ensemble runs in fp32: no network passed"
        assert [p.probability for p in ensemble.predict(fovs)] == [p.probability for p in whole.predict(fovs)]


def _rewrite(folder: Path, content: bytes) -> None:
    """Replace the variant of xception, and its hash."""
    path = variants.write_variant(folder, "xception")
    path.write_bytes(content)
    changed = {"sha256": sha256_of(path), "bytes": len(content)}

    def update(manifest: dict) -> None:
        (network,) = (one for one in manifest["networks"] if one["name"] == "xception")
        network["variants"][1] |= changed

    variants.edit_json(folder, update)


def _poison(arrays: Arrays) -> None:
    arrays["w1"][0, 0] = np.nan


def _renamed(folder: Path) -> bytes:
    model = onnx.load(folder / "xception.fp16.onnx")
    model.graph.output[2].name = model.graph.node[-1].output[0] = "elsewhere"
    return model.SerializeToString()


def _external(folder: Path) -> bytes:
    model = onnx.load(folder / "xception.fp16.onnx")
    tensor = model.graph.initializer[0]
    tensor.data_location = onnx.TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="elsewhere.bin")
    return model.SerializeToString()


def _spoil_maps(arrays: Arrays) -> None:
    arrays["w1_columns"][:, 1:] *= -3  # the last channels count against


FAULTS: dict[str, tuple[Callable[[Path], object], str]] = {
    "changed": (
        lambda f: (f / "xception.fp16.onnx").open("ab").write(b"x"),
        "xception.fp16.onnx: has sha256",
    ),
    "missing": (lambda f: (f / "xception.fp16.onnx").unlink(), "listed in ensemble.json but is missing"),
    "truncated": (
        lambda f: _rewrite(f, (f / "xception.fp16.onnx").read_bytes()[:-100]),
        "is not an ONNX file|ONNX Runtime cannot load it",
    ),
    "empty": (lambda f: _rewrite(f, b"\n"), "is not an ONNX file"),
    "no model": (lambda f: _rewrite(f, b"\x08\x08"), "ONNX Runtime cannot load it"),
    "external": (lambda f: _rewrite(f, _external(f)), "keeps weights in another file"),
    "other outputs": (lambda f: _rewrite(f, _renamed(f)), "has inputs"),
    "NaN": (
        lambda f: variants.write_variant(f, "xception", change=_poison),
        "not between 0 and 1, for reference field of view 0",
    ),
    "scaled": (
        lambda f: variants.write_variant(f, "xception", change=variants.scale("mix", 1.5)),
        "a probability deviates by",
    ),
    "maps alone": (
        lambda f: variants.write_variant(f, "xception", change=_spoil_maps),
        "^Grad-CAM maps overlap by",
    ),
    "failed at export": (
        lambda f: variants.write_variant(f, "xception", agreement=variants.BAD),
        "a probability deviates by 0.9 from fp32",
    ),
    "not compared at export": (
        lambda f: variants.write_variant(f, "xception", agreement=None),
        "does not state how far it deviates",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_faulty_variant_is_rejected_and_the_other_networks_keep_theirs(folder: Path, fault: str) -> None:
    damage, reason = FAULTS[fault]
    damage(folder)
    with load(folder) as ensemble:
        assert (ensemble.precision, ensemble.fp32_networks) == ("fp16", ("xception",))
        (rejection,) = ensemble.rejected
        assert rejection.found_at == ("export" if "export" in fault else "load")
        assert re.search(reason, reasons(ensemble, "xception")), reasons(ensemble)
        assert str(folder) not in reasons(ensemble), "clients are shown the reasons"
        assert ensemble.predict(mini.bright())[0].label == "senescent"


def test_the_ensemble_may_fail_although_each_network_passes(folder: Path) -> None:
    def shift(arrays: Arrays) -> None:
        arrays["b2"] += 0.12

    for name in mini.NAMES:
        variants.write_variant(folder, name, change=shift)
    with load(folder) as ensemble:
        assert ensemble.precision == "fp32"
        (rejection,) = ensemble.rejected
        assert rejection.network is None
        assert "99 % of the probabilities deviate by up to 0.0" in rejection.reasons[-1]

    # One network fails as well: it is replaced, and the others fail together.
    variants.write_variant(folder, "resnet50", change=variants.scale("w1", 1.5))
    with load(folder) as ensemble:
        assert ensemble.precision == "fp32"
        assert [one.network for one in ensemble.rejected] == ["resnet50", None]


def test_limits_decide(folder: Path) -> None:
    with load(folder, gate=GateLimits(max_abs_probability=1e-6)) as ensemble:
        assert ensemble.precision == "fp32"
        assert "(at most 1e-06)" in reasons(ensemble)
    for name in mini.NAMES:
        variants.write_variant(folder, name, change=variants.scale("w1", 1.5))
    anything = GateLimits(1.0, 1.0, 1.0, 0.0, 1.0)
    with load(folder, gate=anything) as ensemble:
        assert (ensemble.precision, ensemble.rejected) == ("fp16", ())
        assert ensemble.figures is not None
        assert ensemble.figures.ensemble.max_abs_probability > 0.1


def test_what_the_manifest_rejects(folder: Path, tmp_path: Path) -> None:
    plain = mini.build(tmp_path / "plain")
    with load(plain) as ensemble:
        assert (
            reasons(ensemble) == "this ensemble has no fp16 files; make them with `senoscope-train variants`"
        )
        assert ensemble.warnings == (f"fp16 was rejected, the ensemble runs in fp32: {reasons(ensemble)}",)
    variants.change_manifest(folder, lambda m: m.model_copy(update={"reference": None}))
    with load(folder) as ensemble:
        assert (ensemble.precision, len(ensemble.rejected)) == ("fp32", 1)
        assert "no reference fields of view" in reasons(ensemble)
        assert "`senoscope-train variants`" in reasons(ensemble)


@pytest.mark.parametrize("agreement", [{}, {"fp16": variants.BAD}])
def test_an_ensemble_that_failed_at_export_is_not_tried(folder: Path, agreement: dict) -> None:
    reference = read_manifest(folder)[0].reference
    assert reference is not None
    reference = reference.model_copy(update={"agreement": agreement})
    variants.change_manifest(folder, lambda m: m.model_copy(update={"reference": reference}))
    with load(folder) as ensemble:
        (rejection,) = ensemble.rejected
        assert (ensemble.precision, rejection.network, rejection.found_at) == ("fp32", None, "export")


def reject_at_export(folder: Path, *names: str) -> None:
    """Replace variants of networks by the reason for their rejection."""
    rejected = RejectedVariant(precision="fp16", reasons=("its AUC was worse",))
    networks = [
        one.model_copy(update={"variants": one.variants[:1], "rejected_variants": (rejected,)})
        if one.name in names
        else one
        for one in read_manifest(folder)[0].networks
    ]
    variants.change_manifest(folder, lambda m: m.model_copy(update={"networks": tuple(networks)}))


def test_rejected_variants_are_listed(folder: Path) -> None:
    reject_at_export(folder, "mobilenet")
    with load(folder) as ensemble:
        assert (ensemble.precision, ensemble.fp32_networks) == ("fp16", ("mobilenet",))
        assert reasons(ensemble, "mobilenet") == "its AUC was worse"
        facts = ensemble.describe()
        assert facts["fp32_networks"] == ["mobilenet"]
        assert facts["rejected"][0]["found_at"] == "export"
    reject_at_export(folder, *mini.NAMES)
    reference = read_manifest(folder)[0].reference
    assert reference is not None
    reference = reference.model_copy(update={"agreement": {}})
    variants.change_manifest(folder, lambda m: m.model_copy(update={"reference": reference}))
    with load(folder) as ensemble:
        assert ensemble.precision == "fp32"
        assert {one.network: one.reasons for one in ensemble.rejected} == {
            **dict.fromkeys(mini.NAMES, ("its AUC was worse",)),
            None: ("no network passed",),
        }


def _replace_expected(folder: Path, change: Callable[[dict[str, np.ndarray]], None]) -> None:
    with np.load(folder / "reference_fp32.npz") as archive:
        arrays = dict(archive)
    change(arrays)
    np.savez_compressed(folder / "reference_fp32.npz", **arrays)  # type: ignore[arg-type]


def _bomb(folder: Path) -> None:
    """A member that unpacks to much more than it should."""
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        header, {"descr": "<f4", "fortran_order": False, "shape": (variants.FOVS,)}
    )
    with (
        zipfile.ZipFile(folder / "reference_fp32.npz", "w", zipfile.ZIP_DEFLATED) as archive,
        archive.open(f"{mini.NAMES[0]}.probability.npy", "w") as file,
    ):
        file.write(header.getvalue())
        for _ in range(32):
            file.write(bytes(1024**2))


REFERENCE_FAULTS: dict[str, tuple[Callable[[Path], object], str]] = {
    "no archive": (lambda f: (f / "reference_fp32.npz").write_bytes(b"PK"), "not a zip file"),
    "a network is missing": (
        lambda f: _replace_expected(f, lambda a: a.pop("xception.gradcam")),
        "There is no item named 'xception.gradcam.npy'",
    ),
    "too few": (
        lambda f: _replace_expected(f, lambda a: a.update({"xception.gradcam": a["xception.gradcam"][1:]})),
        "expected float32",
    ),
    "not a number": (
        lambda f: _replace_expected(f, lambda a: a["xception.probability"].fill(np.nan)),
        "negative or infinite",
    ),
    "no probability": (
        lambda f: _replace_expected(f, lambda a: a["xception.probability"].fill(2)),
        "greater than 1",
    ),
    "doubles": (
        lambda f: _replace_expected(
            f, lambda a: a.update({"xception.probability": a["xception.probability"].astype(float)})
        ),
        "expected float32",
    ),
    "objects": (
        lambda f: _replace_expected(
            f, lambda a: a.update({"xception.probability": np.array([{}] * variants.FOVS)})
        ),
        "Python objects",
    ),
    "bomb": (_bomb, "larger than its shape"),
    "fewer FOVs": (
        lambda f: np.save(f / "reference.npy", variants.reference_fovs()[1:]),
        "cannot be used as reference fields of view",
    ),
    "FOVs of NaN": (
        lambda f: np.save(f / "reference.npy", np.full((variants.FOVS, 3, 250, 300), np.nan)),
        "cannot be used as reference fields of view",
    ),
    "other expected outputs": (
        lambda f: _replace_expected(f, lambda a: [one.__imul__(0.5) for one in a.values()]),
        "deviates by",
    ),
}


@pytest.mark.parametrize("fault", REFERENCE_FAULTS)
def test_without_a_sound_reference_set_all_is_fp32(folder: Path, fault: str) -> None:
    damage, reason = REFERENCE_FAULTS[fault]
    damage(folder)
    with load(folder) as ensemble:
        assert ensemble.precision == "fp32"
        assert "has sha256" in reasons(ensemble), "the files were changed"
    renew_reference_hashes(folder)
    with load(folder) as ensemble:
        assert ensemble.precision == "fp32"
        assert reason in reasons(ensemble), reasons(ensemble)
        assert str(folder) not in reasons(ensemble)


def test_labels_of_reference_fovs_limit_the_loss_of_auc(folder: Path) -> None:
    variants.add_reference(folder, labels=[False, False, False, True, True, True])
    with load(folder) as ensemble:
        assert ensemble.figures is not None
        assert ensemble.figures.ensemble.auc_loss == 0.0
    variants.write_variant(folder, "xception", change=variants.scale("mix", -1))
    anything = GateLimits(1.0, 1.0, 1.0, 0.0, 0.01)
    with load(folder, gate=anything) as ensemble:
        assert ensemble.fp32_networks == ("xception",)
        assert reasons(ensemble, "xception").startswith("the AUC is lower by")


def test_a_precision_that_the_device_does_not_offer(original: Path) -> None:
    with pytest.raises(DeviceError, match=r"--precision tf32: CPU offers int8, fp32, fp16; choose one"):
        load(original, "tf32")


def test_int8_is_only_tried_on_request(folder: Path) -> None:
    with load(folder, "int8") as ensemble:
        assert ensemble.precision == "fp32"
        assert "no int8 files" in reasons(ensemble)


def to_eleven_bits(array: Float32) -> Float32:
    """Round as TF32 does."""
    return (array.view(np.uint32) + 0x1000 & 0xFFFFE000).view(np.float32)


class RoundingExecutor(CpuExecutor):
    """Rounds the inputs of networks in TF32 to a number of counts."""

    def __init__(self, networks: list[NetworkFile], how: Opening, faulty: str = "") -> None:
        super().__init__(networks, how.threads, how.cancellation)
        self._rounded = [k for k, network in enumerate(networks) if network.precision == "tf32"]
        self._faulty = [k for k in self._rounded if networks[k].name == faulty]

    def run(self, image: Float32, low: Float32, high: Float32) -> list[NetworkOutput]:
        outputs = super().run(image, low, high)
        rounded = super().run(to_eleven_bits(np.asarray(image, np.float32)), low, high)
        wrong = super().run(image / 2, low, high)
        chosen = list(outputs)
        for k in self._rounded:
            chosen[k] = wrong[k] if k in self._faulty else rounded[k]
        return chosen


@pytest.mark.parametrize("faulty", ["", "densenet121"])
def test_tf32_needs_no_files_of_its_own(
    original: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, faulty: str
) -> None:
    def open_rounding(networks: list[NetworkFile], how: Opening) -> Executor:
        return RoundingExecutor(networks, how, faulty)

    row = DeviceRow("Rounding", "it was found", lambda: None, open_rounding, ("fp16", "tf32", "fp32"))
    monkeypatch.setattr(devices, "DEVICES", {"cuda": row})
    folder = mini.build(tmp_path / "plain")
    with Ensemble.load(folder) as ensemble:
        assert ensemble.precision == "fp32", "it cannot be compared"
        assert [one.precision for one in ensemble.rejected] == ["fp16", "tf32"]
        assert ensemble.warnings == (), "nothing of it was asked for, or is damaged"
    variants.add_reference(folder)
    with Ensemble.load(folder) as ensemble:
        assert ensemble.precision == "tf32"
        assert ensemble.fp32_networks == ((faulty,) if faulty else ())
        assert [(one.precision, one.network) for one in ensemble.rejected] == [
            ("fp16", None),
            *([("tf32", faulty)] if faulty else []),
        ]
    with Ensemble.load(original) as ensemble:
        assert ensemble.precision == "fp16", "the first of the device"


def test_a_device_that_fails_in_a_lower_precision_is_used_in_fp32(
    original: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def open_whole(networks: list[NetworkFile], how: Opening) -> Executor:
        if how.precision != "fp32":
            raise DeviceError("it has no tensor cores")
        return CpuExecutor(networks, how.threads, how.cancellation)

    row = DeviceRow("Plain", "it was found", lambda: None, open_whole, ("fp16", "fp32"))
    monkeypatch.setattr(devices, "DEVICES", {"plain": row, "cpu": devices.DEVICES["cpu"]})
    with Ensemble.load(original) as ensemble:
        assert (ensemble.device_reason, ensemble.precision) == ("Plain: it was found", "fp32")
        assert reasons(ensemble) == "it cannot be run on Plain: it has no tensor cores"
    with Ensemble.load(original, precision="int8") as ensemble:
        assert ensemble.device_reason.startswith("CPU: --precision int8: Plain offers fp16, fp32")


def test_a_batch_that_mixes_fields_of_view_is_found_in_lower_precisions_too(folder: Path) -> None:
    variants.write_variant(folder, "xception")
    model = onnx.load(folder / "xception.fp16.onnx")
    mean = onnx.helper.make_node("ReduceMean", ["counts"], ["batch_mean"], axes=[0], keepdims=1)
    index = next(k for k, node in enumerate(model.graph.node) if node.output[0] == "counts")
    model.graph.node.insert(index + 1, mean)
    mixed = onnx.helper.make_node("Add", ["counts", "batch_mean"], ["sum"])
    half = onnx.helper.make_node("Mul", ["sum", "half"], ["averaged"])
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.float32(0.5), "half"))
    model.graph.node.insert(index + 2, mixed)
    model.graph.node.insert(index + 3, half)
    pool = next(node for node in model.graph.node if node.op_type == "AveragePool")
    pool.input[0] = "averaged"
    _rewrite(folder, model.SerializeToString())
    with load(folder) as ensemble:
        assert ensemble.fp32_networks == ("xception",)
        assert "gives different outputs in a batch" in reasons(ensemble, "xception")


@pytest.mark.parametrize("step", ["compare_with_fp32", "_run_reference"])
def test_a_cancelled_load_is_no_rejection(original: Path, monkeypatch: pytest.MonkeyPatch, step: str) -> None:
    cancellation = Cancellation()

    def cancelled(*_: object, **__: object) -> None:
        cancellation.cancel(EnsembleError(original, "was not loaded within 1 s"))
        raise RuntimeError("interrupted")

    monkeypatch.setattr(precision_selection, step, cancelled)
    with pytest.raises(EnsembleError, match="within 1 s"):
        Ensemble.load(original, device="cpu", precision="fp16", cancellation=cancellation)
