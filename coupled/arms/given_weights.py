"""Load initial weights (`encoder.weights`) into the encoder that all arms share."""

from typing import NamedTuple

from torch import nn

from coupled.config.weights import RUN, TIMM, file_digest, read_weights_file, snapshot_of, weights_file
from coupled.models.foreign import match_encoder, named_tensors, read_checkpoint, timm_tensors
from coupled.storage.snapshots import SnapshotStore, tensors_digest

SHOWN = 5  # tensors that are named on the screen


class GivenWeights(NamedTuple):
    """Initial weights that were loaded into the encoder.

    The source, the digest of the encoder's tensors (`storage.snapshots.tensors_digest`), the prefix of the encoder's
    names in the file, and the names of the tensors in the file that were not used.
    """

    source: str
    encoder_digest: str
    prefix: str
    unused: list[str]

    def description(self) -> dict[str, str]:
        """Return the entry of run.json."""
        return {"weights": self.source, "encoder_digest": self.encoder_digest}

    def notes(self) -> list[str]:
        """Return the lines that are printed."""
        under = f" under '{self.prefix}'" if self.prefix else ""
        lines = [f"the encoder of all arms starts from {self.source}{under}; the projector from the seed"]
        if self.unused:
            more = f", ... ({len(self.unused)} in all)" if len(self.unused) > SHOWN else ""
            lines.append(f"not used from this file: {', '.join(self.unused[:SHOWN])}{more}")
        return lines


def load_given_weights(encoder: nn.Module, source: str, sha256: str | None, name: str, image_size: int) -> GivenWeights:
    """Load the weights `source` into `encoder`.

    Args:
        encoder: the encoder that all arms share, on the CPU.
        source: the value of `encoder.weights`.
        sha256: expected digest of the file; None skips the check.
        name: the value of `encoder.name`.
        image_size: image side in pixels, for timm weights that depend on it.

    Raises:
        ValueError: if the file has changed, is not readable, or does not have every tensor of the encoder.
    """
    path = weights_file(source, name)
    content = read_weights_file(path)
    if sha256 is not None and file_digest(content) != sha256:
        raise ValueError(
            f"encoder.weights: '{path}' has changed: expected sha256 {sha256}, found {file_digest(content)}; restore it"
        )
    try:
        if source.startswith(RUN):
            folder, arm, epoch = snapshot_of(source)
            with SnapshotStore(folder / "snapshots").open(arm, epoch):  # checks its digest against the manifest
                pass
        tree = read_checkpoint(content, path)
        if source.startswith(TIMM):
            found = timm_tensors(tree, f"{name}.{source.removeprefix(TIMM)}", image_size)
        else:
            found = named_tensors(tree)
        matched = match_encoder(found, encoder.state_dict())
    except ValueError as error:
        raise ValueError(f"encoder.weights: '{source}': {error}") from None
    encoder.load_state_dict(matched.tensors)
    tensors = {f"encoder.{name}": tensor for name, tensor in encoder.state_dict().items()}
    return GivenWeights(source, tensors_digest(tensors), matched.prefix, matched.unused)
