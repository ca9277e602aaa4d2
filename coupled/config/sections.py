"""The sections of the settings: each a checked, frozen group of keys."""

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from coupled.config.augmentation import AugmentationSettings
from coupled.config.fields import Above0, Count, LeanSection, Name, OpenSection, Pixels, Positive, Section, about
from coupled.config.optimizer_settings import OptimizerSettings
from coupled.config.projector_settings import ProjectorSettings

TEMPERATURE = 0.5
# Settings that may change when a run is continued: they do not enter the computation of a step. `temperature` and
# `augmentation.preset` have already taken effect in the options of the arms and the strengths of the augmentation.
MAY_CHANGE = (
    "temperature",
    "augmentation.preset",
    "device",
    "num_threads",
    "activation_checkpointing",  # equal bits
    "log_every",
    "parallel.arm_groups",
    "timeout_seconds",
    "dataset.num_workers",
    "encoder.weights",  # the location; the content is in `encoder.weights_digest`
    "checkpoint.every_minutes",
    "snapshots.check_free_space",
    "trackers",
    "monitor",
)


def _sorted_once(sources: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(sorted(set(sources)))


class DatasetSettings(OpenSection):
    """The images. Further keys are options of the dataset, such as `root`. Every dataset takes `classes`: a number of
    classes to draw, or a list of class numbers or names. Every dataset with labels takes `label_noise`: the share of
    the training labels that are replaced by another class, drawn by the seed, or `random` for labels that are
    independent of the true ones. Analyses use the true labels.
    """

    name: Annotated[
        str,
        about(
            "A [dataset](datasets.md) of the package, or code of your own: `path/to/file.py:function` or"
            " `package.module:function`."
        ),
    ]
    image_size: Annotated[
        Pixels | None,
        about(
            "Side of a view, and of the images of a dataset that can be read at any size.",
            "pixels",
            "size of the images, if the dataset is made of files that all have one; else its usual size",
        ),
    ] = None
    num_workers: Annotated[
        Annotated[int, Field(strict=True, ge=0, le=1024)] | None,
        about(
            "Workers that prepare batches in advance: processes for images on the disk, threads for images in memory."
            " `null`: for images on the disk of a GPU machine one per core, at most 16; otherwise none."
        ),
    ] = None


class PerturbSettings(Section):
    """A change of one weight of an arm, as a control."""

    ulps: Annotated[
        Annotated[int, Field(strict=True, ge=1, le=1000)],
        about("How far the weight is moved.", "units in the last place of `precision`"),
    ] = 1
    step: Annotated[Count, about("Step after which it is moved; 0 is before the first step.", "steps")] = 0


class ArmSettings(OpenSection):
    """One network that is trained on the shared stream. Further keys are options of its objective. `name: objective` is
    short for `name: {objective: ...}`, and `name: null` removes a default arm.
    """

    objective: Annotated[
        str | None,
        about(
            "An [objective](objectives.md) of the package, or code of your own: `path/to/file.py:function` or"
            " `package.module:function`. Required unless `twin` is set."
        ),
    ] = None
    twin: Annotated[
        Name | None, about("Name of another arm; this arm has the same objective and uses the same random draws.")
    ] = None
    perturb: Annotated[PerturbSettings | None, about("Move one weight by a rounding error, as a control.")] = None
    unshared: Annotated[
        tuple[Literal["init", "order", "augmentation"], ...],
        AfterValidator(_sorted_once),
        about("Random draws that the arm does not share with the others."),
    ] = ()
    optimizer: Annotated[
        OptimizerSettings | None,
        about(
            "Keys of `optimizer` that differ for this arm, such as `{base_lr: 0.1}`. run.json has the whole section;"
            " figures name the keys that are not shared. `null`: none.",
        ),
    ] = None
    projector: Annotated[
        ProjectorSettings | None,
        about(
            "Keys of `projector` that differ for this arm, such as `{output_dim: 8192}`, as for `optimizer`. Its"
            " encoder starts from the shared weights.",
        ),
    ] = None
    augmentation: Annotated[
        AugmentationSettings | None,
        about(
            "Keys of `augmentation` that differ for this arm, such as `{brightness: 0.8}`, as for `optimizer`. Images"
            " and random numbers are the shared ones; the number and size of the views and `steps` cannot differ.",
        ),
    ] = None
    target_schedule: Annotated[
        Literal["constant", "cosine"],
        about(
            "Decay of the target network of an objective that has one: constant, or rising to 1 over the run, as in"
            " BYOL."
        ),
    ] = "constant"

    @model_validator(mode="after")
    def _objective_or_twin(self) -> "ArmSettings":
        if self.objective is None and self.twin is None:
            raise ValueError("objective: missing; set objective, or set twin to the name of another arm")
        return self

    @model_serializer(mode="wrap")
    def _only_what_is_said(self, whole: SerializerFunctionWrapHandler) -> dict[str, Any]:
        said = {key: value for key, value in whole(self).items() if key in self.options or value}
        if self.target_schedule == "constant":
            del said["target_schedule"]
        return said


class BatchSettings(LeanSection):
    """The global batch."""

    LEAN = ("micro_batch",)

    size: Annotated[
        Annotated[int, Field(strict=True, ge=2)], about("Images of the global batch, over all processes.", "images")
    ] = 256
    sampler: Annotated[
        Literal["uniform", "balanced"],
        about("`uniform`: a permutation per epoch; `balanced`: every batch has equally many images of each class."),
    ] = "uniform"
    micro_batch: Annotated[
        Positive | None,
        about(
            "Largest number of images of a process that the encoder sees at a time. The gradient is that of the whole"
            " batch; only for encoders without batch norm and dropout. `null`: all.",
            "images",
        ),
    ] = None


class SnapshotSettings(Section):
    """Which epochs' weights are saved. Epoch 0 and the last epoch are always saved."""

    every_epochs: Annotated[Positive, about("Interval between two snapshots.", "epochs")] = 1
    dense_until_epoch: Annotated[Count, about("Every epoch up to this one is saved.", "epochs")] = 0
    check_free_space: Annotated[bool, about("Refuse to start if the snapshots do not fit on the disk.")] = True


class CheckpointSettings(Section):
    """The state from which a run is continued. A checkpoint is saved after every epoch and when the run is stopped."""

    every_minutes: Annotated[
        Above0 | None, about("Interval of additional checkpoints within an epoch. `null`: none.", "minutes")
    ] = 15.0


class ParallelSettings(Section):
    """How several processes share the work."""

    arm_groups: Annotated[
        Positive,
        about(
            "Number of groups of ranks. Each group trains a part of the arms; its ranks share the batch. At most one"
            " group per arm.",
        ),
    ] = 1
