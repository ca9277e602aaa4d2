"""A user-defined encoder: three convolutions for small images. Its stages are its children, block1 to block3.

coupled train demo 'encoder={name: "examples/small_encoder.py:small_encoder", width: 8}'
"""

from torch import Tensor, nn


class SmallEncoder(nn.Module):
    """Images [M, 3, S, S] -> embeddings [M, num_features]."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.num_features = 4 * width
        self.block1, self.block2, self.block3 = block(3, width), block(width, 2 * width), block(2 * width, 4 * width)

    def forward(self, images_M3SS: Tensor) -> Tensor:
        """Return the spatial mean of the last block's output."""
        return self.block3(self.block2(self.block1(images_M3SS))).mean(dim=(2, 3))


def block(inputs: int, outputs: int) -> nn.Sequential:
    """Return a block that halves the side and changes the number of channels."""
    convolution = nn.Conv2d(inputs, outputs, 3, stride=2, padding=1, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(outputs), nn.ReLU())


def small_encoder(*, width: int = 8) -> nn.Module:
    """Return the encoder. PyTorch draws its initial weights, so they follow the seed of the run.

    Args:
        width: number of channels of the first layer.

    Returns:
        A module that maps images [M, 3, S, S] to embeddings [M, 4 * width].

    Example:
        >>> import torch
        >>> small_encoder()(torch.zeros(2, 3, 16, 16)).shape
        torch.Size([2, 32])
    """
    return SmallEncoder(width)
