"""The six kinds of data of the book's table 9.1, with axes, spacing and units; batches of different sizes."""

from ninefold.data.arrays import read_arrays, write_arrays
from ninefold.data.batches import BucketSampler, Padded, collate
from ninefold.data.bvh import read_bvh, write_bvh
from ninefold.data.checking import MaskReport, Problem, check_masks
from ninefold.data.folder import Folder
from ninefold.data.formats import read, write
from ninefold.data.image import image_info, read_image, write_image
from ninefold.data.masked import FixedGrid, masked_cross_entropy, masked_mean, masked_pool
from ninefold.data.masks import read_mask, write_mask
from ninefold.data.sample import Sample
from ninefold.data.sizes import as_convolution, fully_convolutional, run_padded
from ninefold.data.skeleton import Joint, Skeleton, joint_positions
from ninefold.data.spectra import inverse_spectrogram, log_spectrogram, shift_pitch, spectrogram
from ninefold.data.video import Video, read_video, write_video
from ninefold.data.volume import read_volume, write_volume
from ninefold.data.waveform import read_waveform, stream_waveform, waveform_info, write_waveform

__all__ = [
    "BucketSampler",
    "FixedGrid",
    "Folder",
    "Joint",
    "MaskReport",
    "Padded",
    "Problem",
    "Sample",
    "Skeleton",
    "Video",
    "as_convolution",
    "check_masks",
    "collate",
    "fully_convolutional",
    "image_info",
    "inverse_spectrogram",
    "joint_positions",
    "log_spectrogram",
    "masked_cross_entropy",
    "masked_mean",
    "masked_pool",
    "read",
    "read_arrays",
    "read_bvh",
    "read_image",
    "read_mask",
    "read_video",
    "read_volume",
    "read_waveform",
    "run_padded",
    "shift_pitch",
    "spectrogram",
    "stream_waveform",
    "waveform_info",
    "write",
    "write_arrays",
    "write_bvh",
    "write_image",
    "write_mask",
    "write_video",
    "write_volume",
    "write_waveform",
]
