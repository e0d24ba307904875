"""What the manifest says of lower precisions: reference fields of view, and deviations from fp32 on them."""

from __future__ import annotations

from pydantic import Field, model_validator

from senoscope.engine.manifest_fields import FileName, ManifestModel, Sha256, Text
from senoscope.engine.precision import FilePrecision

MAX_REFERENCE_FOVS = 1024


class Agreement(ManifestModel):
    """The deviation of a network, or of the ensemble, from fp32 on fields of view.

    Attributes
    ----------
    fovs : int
        Fields of view compared.
    max_abs_probability, p99_abs_probability : float
        Largest absolute deviation of the probability, and its 99th percentile.
    label_flips : int
        Fields of view that get another label although their probability is not near the threshold.
    gradcam_iou : float
        Intersection over union of the brightest tenth of the Grad-CAM map, mean over the fields of view.
    auc_loss : float, optional
        Area under the ROC curve in fp32, minus that in this precision; None without labels of both classes.
    auc_loss_interval : tuple of two float, optional
        Its 95 % interval by paired bootstrap; None where it was not computed.
    """

    fovs: int = Field(ge=1)
    max_abs_probability: float = Field(ge=0, le=1)
    p99_abs_probability: float = Field(ge=0, le=1)
    label_flips: int = Field(ge=0)
    gradcam_iou: float = Field(ge=0, le=1)
    auc_loss: float | None = Field(None, ge=-1, le=1)
    auc_loss_interval: tuple[float, float] | None = None


class RejectedVariant(ManifestModel):
    """A variant of a network that failed the gate at export, and has no file.

    Attributes
    ----------
    agreement : Agreement, optional
        None where the variant could not be made or run.
    reasons : tuple of str
        Why it was rejected.
    """

    precision: FilePrecision
    agreement: Agreement | None = None
    reasons: tuple[Text, ...] = Field(min_length=1, max_length=20)


class Reference(ManifestModel):
    """Fields of view with their outputs in fp32, with which each machine checks lower precisions.

    Attributes
    ----------
    file : str
        NPY file of raw counts [N, C, H, W].
    expected : str
        NPZ file without pickled objects. For each network: ``<name>.probability`` float32 [N], and
        ``<name>.gradcam`` float32 [N, h, w] on its own grid, not normalised.
    fovs : int
        N.
    source : str
        Description of the fields of view.
    labels : tuple of bool, optional
        Whether each field of view is of the positive class.
    agreement : dict of precision to Agreement
        Of the ensemble, measured at export on these fields of view or on a larger set that contains them.
    """

    file: FileName
    sha256: Sha256
    expected: FileName
    expected_sha256: Sha256
    fovs: int = Field(ge=1, le=MAX_REFERENCE_FOVS)
    source: Text
    labels: tuple[bool, ...] | None = None
    agreement: dict[FilePrecision, Agreement] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _check_labels(self) -> Reference:
        if self.labels is not None and len(self.labels) != self.fovs:
            raise ValueError(f"{len(self.labels)} labels for {self.fovs} reference fields of view")
        return self
