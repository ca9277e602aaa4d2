"""Find the file that `encoder.weights` names, and its digest, which enters the settings.

FILE               .safetensors, or .pth and other files of torch.save
timm:TAG           timm's weights for `encoder.name`, such as timm:a1_in1k, downloaded if they are not cached
run:DIR@ARM@EPOCH  a snapshot of another run
"""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

ALLOWED = "allowed is a .safetensors, .pth or .pt file, timm:TAG, or run:DIR@ARM@EPOCH"
TIMM, RUN = "timm:", "run:"
HUB_FILES = ("model.safetensors", "pytorch_model.bin")  # where timm's repositories on the Hugging Face hub have weights


def with_weights_digest(settings: dict[str, Any]) -> dict[str, Any]:
    """Resolved settings with the sha256 of the file of `encoder.weights` written out as `encoder.weights_digest`.

    Raises ValueError if there is no such file, or it has another digest than the settings say.
    """
    encoder: Mapping[str, Any] = settings["encoder"]
    source = encoder.get("weights")
    if source is None:
        return settings
    found = file_digest(read_weights_file(weights_file(source, encoder["name"])))
    expected = encoder.get("weights_digest", found)
    if found != expected:
        raise ValueError(f"encoder.weights: '{source}' has sha256 {found}, encoder.weights_digest is {expected}")
    return {**settings, "encoder": {**encoder, "weights_digest": found}}


def weights_file(source: str, name: str) -> Path:
    """The file of the weights `source` of the encoder `name`; timm's are downloaded if they are not cached.

    Raises ValueError if there is none.
    """
    if source.startswith(TIMM):
        return _timm_file(name, source.removeprefix(TIMM))
    if source.startswith(RUN):
        return _snapshot_file(source)
    path = Path(source)
    if not path.is_file():
        raise ValueError(f"encoder.weights: no file '{source}'; {ALLOWED}")
    return path


def read_weights_file(path: Path) -> bytes:
    """The content of the file. Raises ValueError if it cannot be read."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise ValueError(f"encoder.weights: '{path}' cannot be read: {error.strerror}") from None


def file_digest(content: bytes) -> str:
    """sha256, as `sha256sum` prints it."""
    return hashlib.sha256(content).hexdigest()


def snapshot_of(source: str) -> tuple[Path, str, int]:
    """Folder, arm and epoch of run:DIR@ARM@EPOCH. Raises ValueError for another form."""
    folder, arm, epoch = ["", "", *source.removeprefix(RUN).rsplit("@", 2)][-3:]
    if not folder or not arm or not epoch.isdecimal():
        raise ValueError(f"encoder.weights: got '{source}'; write it as run:DIR@ARM@EPOCH, such as run:runs/a@cl@100")
    return Path(folder), arm, int(epoch)


def _snapshot_file(source: str) -> Path:
    folder, arm, epoch = snapshot_of(source)
    path = folder / "snapshots" / arm / f"epoch_{epoch:04d}.safetensors"
    if not path.is_file():
        there = sorted(int(each.stem.partition("_")[2]) for each in path.parent.glob("epoch_*.safetensors"))
        arms = sorted(each.name for each in path.parents[1].glob("*") if each.is_dir())
        known = f"epochs {there[0]} to {there[-1]}, {len(there)} in all" if there else f"arms: {', '.join(arms)}"
        raise ValueError(f"encoder.weights: no snapshot '{path}' ({known if arms else 'the folder has no snapshots'})")
    return path


def _timm_file(name: str, tag: str) -> Path:
    """The file of timm's weights `name.tag` in its cache, to which it is downloaded if it is missing."""
    import timm
    from huggingface_hub.errors import EntryNotFoundError

    if "." in name:
        raise ValueError(f"encoder.name: got '{name}' with encoder.weights; write {name.partition('.')[0]}")
    tags = [each.partition(".")[2] for each in timm.list_pretrained(f"{name}.*")] if timm.is_model(name) else []
    if tag not in tags:
        known = f"known: {', '.join(tags)}" if tags else f"timm has no weights of '{name}'"
        raise ValueError(f"encoder.weights: timm has no weights '{tag}' of '{name}' ({known})")
    try:
        return _cached(timm.get_pretrained_cfg(f"{name}.{tag}"))
    except (OSError, EntryNotFoundError) as error:
        why = " ".join(str(error).split())[:200]
        raise ValueError(
            f"encoder.weights: '{TIMM}{tag}' of '{name}' is not in timm's cache and cannot be downloaded"
            f" ({type(error).__name__}: {why}); run once with network access, or pass a file: encoder.weights=FILE"
        ) from None


def _cached(config: Any) -> Path:
    """The file of timm's weights with this configuration. Raises OSError or `EntryNotFoundError`."""
    if not config.hf_hub_id:
        from torch import hub

        path = Path(hub.get_dir()) / "checkpoints" / Path(config.url).name
        if not path.is_file():
            path.parent.mkdir(parents=True, exist_ok=True)
            hub.download_url_to_file(config.url, str(path), progress=False)
        return path
    import huggingface_hub
    from huggingface_hub.errors import EntryNotFoundError

    failures: list[EntryNotFoundError] = []
    for name in [config.hf_hub_filename] if config.hf_hub_filename else HUB_FILES:
        try:
            return Path(huggingface_hub.hf_hub_download(config.hf_hub_id, name))
        except EntryNotFoundError as error:  # also raised for the cache, without a network
            failures.append(error)
    raise failures[0]
