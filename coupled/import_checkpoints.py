"""Make a run folder from checkpoints that other programs have saved: `coupled import-checkpoints`.

Each `--arm NAME=GLOB` is one arm. Its files (.safetensors, or .pth, .pt and others of torch.save) hold a state dict, at
the top level or under a key. Any prefix may precede the names of the encoder's tensors: the tensors are found by
comparing names and shapes with the encoder (see models/foreign.py). The epoch of a file is the number after "epoch" in
its name, or else the last number in its name. Code in a file is never executed.

weight-gap, alignment, quality, figures, report and verify work on the new run. run.json records under `imported` what
was imported. The settings of the dataset, the encoder, the projector and the arms, and those set by `key=value`,
describe the checkpoints; the other settings are defaults. The run has no training log and no checkpoint. A projector is
imported if every file has one of the form that this package builds; without it there is no layer z.
"""

import re
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from coupled.config.command_line import Parser, command_parser
from coupled.monitoring.commands import suggest
from coupled.monitoring.terminal import imports_done, interrupted, say
from coupled.storage.foreign_files import Files, arms_of, files_by_epoch, in_order

if TYPE_CHECKING:
    from coupled.config.schema import Settings
    from coupled.models.imported import Expected, Imported

SHOWN = 20  # names of tensors in a message


def parser() -> Parser:
    """Return the parser of the command."""
    about = "Make a run folder from checkpoints that other programs have saved, to analyse them like any run."
    base = "--encoder resnet50 --stem cifar --dataset cifar10"
    examples = [
        f"--arm 'cl=exp/dcl/*.pth' --arm 'nscl=exp/nscl/*.pth' {base} --run-dir runs/papers",
        f"--arm 'moco=moco/*.pth.tar' {base} --run-dir runs/moco arms.moco=nt_xent encoder.width_multiplier=2",
    ]
    files = ["<run-dir>/run.json      what was imported", "<run-dir>/snapshots/    the weights of every arm and epoch"]
    result = command_parser("import-checkpoints", about, examples, files)
    arm = "an arm and a quoted pattern of its files; repeat it for each arm. The number in a file's name is its epoch"
    result.add_argument("--arm", action="append", required=True, metavar="NAME=GLOB", help=arm)
    encoder = "timm's name of the encoder (coupled list encoders)"
    result.add_argument("--encoder", required=True, metavar="NAME", help=encoder)
    stem = "cifar: 3x3 convolution without max-pool; imagenet: the encoder's own stem (default: cifar)"
    result.add_argument("--stem", choices=("cifar", "imagenet"), help=stem)
    result.add_argument(
        "--dataset", required=True, metavar="NAME", help="images of the analyses (coupled list datasets)"
    )
    result.add_argument("--run-dir", type=Path, required=True, metavar="DIR", help="run folder to create")
    known = "further settings, such as dataset.root=data encoder.width_multiplier=2 arms.NAME=OBJECTIVE temperature=0.1"
    result.add_argument("overrides", nargs="*", metavar="key=value", help=known)
    return result


def import_checkpoints(
    arms: Mapping[str, str],
    run_dir: Path,
    *,
    encoder: str,
    dataset: str,
    stem: str | None = None,
    overrides: Sequence[str] = (),
) -> None:
    """Make a run folder from checkpoints that other programs have saved, and print what was found.

    Args:
        arms: pattern of the files of each arm.
        run_dir: the folder, which must not exist.
        encoder: timm's name of the encoder.
        dataset: name of the dataset that the analyses use.
        stem: "cifar" or "imagenet" (default: "cifar"; None for a user-defined encoder).
        overrides: further settings, such as "encoder.width_multiplier=2".

    Raises:
        ValueError: for an invalid setting, file or folder, before anything is written; or for a later file that does
            not match, after which the snapshots are deleted.

    Example:
        >>> import_checkpoints({"cl": "a/*.pth"}, Path("x"), encoder="resnet50", dataset="cifar10")  # doctest: +SKIP
    """
    from coupled.config.encoder_settings import of_timm
    from coupled.config.registry import load_dataset
    from coupled.datasets import SPLITS
    from coupled.models.imported import expected_encoder, read_imported
    from coupled.storage.run_lock import run_lock

    files = {arm: files_by_epoch(arm, pattern) for arm, pattern in arms.items()}
    check_new(run_dir)
    tree: dict[str, Any] = {
        "name": re.sub(r"[^A-Za-z0-9_-]", "-", run_dir.resolve().name).strip("-_")[:64] or "imported",
        "epochs": max(max(of_arm) for of_arm in files.values()),
        "dataset": {"name": dataset},
        "encoder": {"name": encoder, "stem": stem or ("cifar" if of_timm(encoder) else None)},
    }
    settings = settings_of(tree, list(files), overrides)
    expected = expected_encoder(settings.network_options(), settings.seed)
    firsts = {arm: read_imported(arm, next(iter(of_arm.values())), expected) for arm, of_arm in files.items()}
    form, *others = [first.projector_settings for first in firsts.values()]
    projector = bool(form) and all(each == form for each in others)
    if projector:
        tree["projector"] = form
        settings = settings_of(tree, list(files), overrides)
    say_what_matched(files, firsts, projector)
    images = {split: load_dataset(settings.dataset.model_dump(), split, settings.seed) for split in SPLITS}
    mean, std = (", ".join(f"{each:.4f}" for each in (getattr(images["train"], key))) for key in ("mean", "std"))
    say(f"the analyses normalise images with mean {mean} and std {std}; the checkpoints must be trained with the same")
    with run_lock(run_dir):
        check_new(run_dir)
        try:
            write_run(run_dir, settings, images, files, arms, expected, projector, overrides)
        except BaseException:
            shutil.rmtree(run_dir / "snapshots", ignore_errors=True)
            raise


def check_new(run_dir: Path) -> None:
    """Raise ValueError if the folder already holds a run or other files."""
    from coupled.storage.run_log import check_folder

    if (run_dir / "run.json").exists():
        raise ValueError(f"--run-dir: a run is already in '{run_dir}'; choose another folder")
    check_folder(run_dir, {}, resume=False, overwrite=False)


def settings_of(tree: Mapping[str, Any], arms: Sequence[str], overrides: Sequence[str]) -> "Settings":
    """Return the resolved settings of the run. Raises ValueError, also for an arm whose objective is unknown."""
    from coupled.config.load import DEFAULT_ARMS, apply_override, resolve

    whole = {**tree, "arms": {arm: DEFAULT_ARMS.get(arm) for arm in arms}}
    for key in ("dataset", "encoder", "projector"):
        whole[key] = dict(whole.get(key, {}))
    for override in overrides:
        apply_override(whole, override)
    for arm in arms:
        if whole["arms"].get(arm) is None:
            add = f"add the one that it was trained with: arms.{arm}=OBJECTIVE"
            raise ValueError(f"--arm: the objective of arm '{arm}' is unknown; {add}")
    more = [arm for arm in whole["arms"] if arm not in arms]
    if more:
        raise ValueError(f"arms.{more[0]}: no --arm has this name (arms: {', '.join(arms)})")
    settings = resolve(whole, "import-checkpoints")
    if settings.encoder.weights or settings.encoder.freeze:
        raise ValueError("encoder.weights, encoder.freeze: not allowed here; the weights come from the files of --arm")
    for arm in (arm for arm, of in settings.arms.items() if of.projector):
        raise ValueError(f"arms.{arm}.projector: not allowed here; imported arms have one projector, that of the files")
    form = tree.get("projector", {})
    if form and settings.projector != type(settings.projector).model_validate(form):
        raise ValueError(f"projector: got {settings.projector.model_dump()}; the files have {form}; leave it out")
    return settings


def say_what_matched(files: Files, firsts: Mapping[str, "Imported"], projector: bool) -> None:
    """Print for every arm the number of files, the prefixes of its tensors, and the tensors that are not imported."""
    for arm, first in firsts.items():
        epochs = list(files[arm])
        span = f"epochs {epochs[0]} to {epochs[-1]}" if len(epochs) > 1 else f"epoch {epochs[0]}"
        parts = {"encoder": first.encoder, "projector": first.projector if projector else None}
        under = [f"{part} under '{matched.prefix}'" for part, matched in parts.items() if matched]
        say(f"arm {arm}: {len(epochs)} files, {span}; {', '.join(under)}")
        unused = first.unused if projector else first.encoder.unused
        if unused:
            more = f", ... ({len(unused)} in all)" if len(unused) > SHOWN else ""
            say(f"arm {arm}: not imported: {', '.join(unused[:SHOWN])}{more}")
    if not projector:
        say(
            "no projector is imported, so there is no layer z; that needs a projector of a supported form in every arm,"
            " all of one size"
        )


def write_run(
    run_dir: Path,
    settings: "Settings",
    images: Mapping[str, Any],
    files: Files,
    arms: Mapping[str, str],
    expected: "Expected",
    projector: bool,
    overrides: Sequence[str],
) -> None:
    """Write the snapshots epoch by epoch, the list of the images, and run.json last: it makes the folder a run."""
    from coupled.models.imported import read_imported
    from coupled.storage.dataset_record import describe_images, record_images
    from coupled.storage.run_description import describe_code, write_run_json
    from coupled.storage.snapshots import SnapshotStore, tensors_digest

    content: dict[str, Any] = {
        "format": "coupled.run.1",
        "name": settings.name,
        "seed": settings.seed,
        "settings": settings.resolved(),
        "settings_sha256": settings.sha256(),
        "dataset": describe_images(settings.dataset.name, images),
    }
    store = SnapshotStore(run_dir / "snapshots", {"run": settings.name, "settings_sha256": settings.sha256()})
    starts: dict[str, str] = {}
    for epoch, arm, path in in_order(files):
        found = read_imported(arm, path, expected)
        tensors = {f"encoder.{name}": each for name, each in found.encoder.tensors.items()}
        if projector:
            if found.projector is None:
                raise ValueError(f"--arm: '{path}' of arm '{arm}' has no projector, but the first file has one")
            if settings.projector != type(settings.projector).model_validate(found.projector_settings):
                form = found.projector_settings
                raise ValueError(f"--arm: '{path}' of arm '{arm}' has another projector than the first file: {form}")
            tensors |= {f"projector.{name}": each for name, each in found.projector.tensors.items()}
        about = {"imported_from": str(path), "sha256": found.sha256}
        store.write(arm, epoch, tensors, step=0, metadata=about)  # the step is unknown
        if epoch == 0:
            starts[arm] = tensors_digest(found.encoder.tensors)
    if len(starts) > 1:
        state = "equal" if len({*starts.values()}) == 1 else "not equal"
        say(f"epoch 0: the encoders of {', '.join(starts)} are {state}")
    record_images(run_dir, content, images, None)
    imported = {
        "arms": {arm: {"files": pattern, "epochs": list(files[arm])} for arm, pattern in arms.items()},
        "projector": projector,
        "given": list(overrides),
    }
    write_run_json(run_dir, {**content, "imported": imported, **describe_code()})


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program and return its exit status: 2 for bad input, 1 for an error of the file system."""
    command_line = parser()
    imports_done()
    try:
        options = command_line.parse_intermixed_args(arguments)
        arms = arms_of(options.arm)
        import_checkpoints(
            arms,
            options.run_dir,
            encoder=options.encoder,
            dataset=options.dataset,
            stem=options.stem,
            overrides=options.overrides,
        )
        program = "weight-gap" if len(arms) > 1 else "quality"
        say(f"{options.run_dir}: complete; next: {suggest(program, '--run-dir', str(options.run_dir))}")
    except (ValueError, OSError) as error:
        say(f"{command_line.prog}: {error}", sys.stderr)
        return 2 if isinstance(error, ValueError) else 1
    except KeyboardInterrupt:
        return interrupted(command_line.prog, "; nothing was imported")
    return 0
