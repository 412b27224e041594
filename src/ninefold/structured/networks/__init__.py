"""Networks with a label for every pixel, each a module made of this library's layers."""

from ninefold.models import ContextModule, DeepLabV1, context_module, deeplab_v1
from ninefold.structured.networks.densify import Dense, densify
from ninefold.structured.networks.encoder_decoder import EncoderDecoder, UNet, UnitStrideNet
from ninefold.structured.networks.growing import GrowingContextNet, plain_context_net
from ninefold.structured.networks.labels import label_grid
from ninefold.structured.networks.pyramid import MultiscaleNet, laplacian_pyramid, reconstruct
from ninefold.structured.networks.recurrent import RecurrentConvNet, step_loss
from ninefold.structured.networks.stitch import shift_and_stitch, slide
from ninefold.structured.networks.volumes import AffinityNet, RestorationNet
from ninefold.structured.networks.weak import WeakLabels, aggregate

__all__ = [
    "AffinityNet",
    "ContextModule",
    "DeepLabV1",
    "Dense",
    "EncoderDecoder",
    "GrowingContextNet",
    "MultiscaleNet",
    "RecurrentConvNet",
    "RestorationNet",
    "UNet",
    "UnitStrideNet",
    "WeakLabels",
    "aggregate",
    "context_module",
    "deeplab_v1",
    "densify",
    "label_grid",
    "laplacian_pyramid",
    "plain_context_net",
    "reconstruct",
    "shift_and_stitch",
    "slide",
    "step_loss",
]
