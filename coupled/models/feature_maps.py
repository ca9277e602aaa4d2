"""The last feature map of an encoder, and the places of its cells in the image.

M images, B images of a batch, V views, D channels, Q cells of a feature map, in the order of rows.
"""

from math import isqrt
from typing import Any

import torch
from torch import Tensor, nn

from coupled.models.encoders import FAILURES, encoder_width


def embedding_and_map(encoder: nn.Module, images_Mchw: Tensor) -> tuple[Tensor, Tensor]:
    """Return the embeddings [M, D], with the bits of `encoder(images)`, and the feature maps [M, Q, D].

    The cells of a vision transformer are its patch tokens.
    """
    trunk: Any = encoder
    features: Tensor = trunk.forward_features(images_Mchw)
    if features.dim() == 3:
        return trunk.forward_head(features), features[:, trunk.num_prefix_tokens :]
    return trunk.forward_head(features), features.flatten(2).transpose(1, 2)


@torch.no_grad()
def feature_map_side(encoder: nn.Module, image_size: int) -> int:
    """Return the side of the encoder's feature map in cells.

    Raises ValueError unless it has a square feature map, of which its embedding is a function.
    """
    training, pixels = encoder.training, next(encoder.parameters()).new_zeros(2, 3, image_size, image_size)
    encoder.eval()
    try:
        embedding_MD, map_MQD = embedding_and_map(encoder, pixels)
        same = torch.equal(embedding_MD, encoder(pixels)) and map_MQD.shape[2] == encoder_width(encoder)
        side = isqrt(map_MQD.shape[1])
        same = same and side**2 == map_MQD.shape[1]
    except FAILURES:
        same, side = False, 0
    encoder.train(training)
    if not same:
        raise ValueError(
            "the encoder has no square feature map before its pooling; use a convolutional network or a plain vision"
            " transformer of timm, such as resnet18"
        )
    return side


def cell_locations(boxes_VB5: Tensor, cells: int) -> Tensor:
    """Return the centres of the cells in pixels of the image, (row, column), float32 [V, B, Q, 2].

    `boxes_VB5` are top, left, height and width of each view's crop, and 1 if it is mirrored. The first cell is that
    whose pixels come first in the view.
    """
    side = isqrt(cells)
    share_S = (torch.arange(side, device=boxes_VB5.device) + 0.5) / side
    top, left, high, wide, mirrored = (each_VB[..., None] for each_VB in boxes_VB5.float().unbind(2))
    rows_VBS = top + high * share_S
    columns_VBS = left + wide * torch.where(mirrored > 0, 1 - share_S, share_S)
    places = (rows_VBS[..., :, None].expand(-1, -1, -1, side), columns_VBS[..., None, :].expand(-1, -1, side, -1))
    return torch.stack(places, dim=-1).flatten(2, 3)
