"""Read a checkpoint of another program as the content of a snapshot: the encoder, and the projector if it fits."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from coupled.config.weights import file_digest
from coupled.models.encoders import encoder_width
from coupled.models.foreign import Matched, match_encoder, match_projector, named_tensors, read_checkpoint
from coupled.models.network import build_network
from coupled.models.projector import projector_settings


class Expected(NamedTuple):
    """The tensors of the encoder, without their values, and the width of its embedding."""

    tensors: dict[str, Tensor]
    width: int


class Imported(NamedTuple):
    """The content of a file.

    The encoder, the projector if it computes the same as `build_projector`, the names of all other tensors, and
    the digest of the file.
    """

    encoder: Matched
    projector: Matched | None
    unused: list[str]
    sha256: str

    @property
    def projector_settings(self) -> dict[str, Any]:
        """The keys of the section `projector` that describe the projector; empty without one."""
        return projector_settings(self.projector.tensors) if self.projector else {}


def expected_encoder(network: Mapping[str, Any], seed: int) -> Expected:
    """Return the expected encoder for these arguments of `build_network`, without computing weights."""
    with torch.device("meta"):
        encoder = build_network(**network, seed=seed).encoder
    return Expected(encoder.state_dict(), encoder_width(encoder))


def read_imported(arm: str, path: Path, expected: Expected) -> Imported:
    """Read a file of the `arm`. Raise ValueError that names the file if it lacks the expected encoder."""
    content = path.read_bytes()
    try:
        found = named_tensors(read_checkpoint(content, path))
        encoder = match_encoder(found, expected.tensors)
    except ValueError as error:
        raise ValueError(f"--arm: '{path}' of arm '{arm}': {error}") from None
    projector = match_projector(found, expected.width)
    unused = [name for name in encoder.unused if projector is None or name in projector.unused]
    return Imported(encoder, projector, unused, file_digest(content))
