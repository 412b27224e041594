"""Small pictures with exact labels."""

import torch


def scenes(count=5, channels=2, classes=3):
    """Return pairs of images of different sizes, no side equal to another, and masks whose class is the mean of the first channel."""
    draw = torch.Generator(device="cpu").manual_seed(5)
    pairs = []
    for k in range(count):
        coarse = torch.randint(classes, (1, 1, 3, 4), generator=draw).float()
        mask = torch.nn.functional.interpolate(coarse, size=(22 + k, 31 - k), mode="nearest")[0, 0]
        image = torch.randn(channels, *mask.shape, generator=draw) * 0.3
        image[0] += mask
        pairs.append((image, mask.long()))
    return pairs


def cells(count, ndim):
    """Return pictures or volumes of cells between dark walls, and their numbers; 0 is wall."""
    draw = torch.Generator(device="cpu").manual_seed(3)
    size = (40, 33) if ndim == 2 else (13, 16, 15)
    grid = torch.stack(torch.meshgrid(*(torch.arange(n, dtype=torch.float32) for n in size), indexing="ij"), -1)
    pairs = []
    for _ in range(count):
        centres = torch.rand(9, ndim, generator=draw) * torch.tensor(size)
        near = (grid[..., None, :] - centres).norm(dim=-1).topk(2, largest=False)
        wall = near.values[..., 1] - near.values[..., 0] < 2.5
        mask = (near.indices[..., 0] + 1).masked_fill(wall, 0)
        image = (~wall).float() + torch.randn(mask.shape, generator=draw) * 0.2
        pairs.append((image[None], components(mask)))
    return pairs


def components(mask):
    """Return labels whose pixels all touch, corners aside."""
    from skimage.measure import label

    return torch.from_numpy(label(mask.numpy(), connectivity=1))
