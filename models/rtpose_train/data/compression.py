"""What lossy compression does to a picture: encoded for real, and decoded again."""

from fractions import Fraction
from typing import Literal

import av
import cv2
import numpy as np
from numpy.typing import NDArray

from rtpose.errors import InputError

Colour = Literal["gray", "rgb", "bgr"]

_ENCODER = "libx264"
_PIXELS = {"gray": "gray", "rgb": "rgb24", "bgr": "bgr24"}


def require_h264() -> None:
    """Raise `InputError` if this installation cannot encode H.264."""
    try:
        av.codec.Codec(_ENCODER, "w")
    except av.codec.codec.UnknownCodecError as error:
        raise InputError(
            f"H.264 needs the encoder {_ENCODER}, which the FFmpeg of PyAV {av.__version__} lacks; "
            "type: pip install --force-reinstall --only-binary av av"
        ) from error


def h264(image: NDArray[np.uint8], crf: int, colour: Colour) -> NDArray[np.uint8]:
    """Return a picture as the first frame of an H.264 video shows it.

    Encoded by x264 as what cameras and DeepLabCut's videos are: 4:2:0, in the narrow range of
    levels. A key frame only: the frames after it add errors of motion, which this does not show.

    Parameters
    ----------
    image : ndarray of uint8, shape (height, width, channels)
    crf : int
        x264's constant rate factor: 0 without loss (but for rounding), 51 worst.
    colour : {'gray', 'rgb', 'bgr'}
        Order of the channels.

    Returns
    -------
    ndarray of uint8
        Shaped as `image`.

    Raises
    ------
    InputError
        If this installation cannot encode H.264.
    """
    require_h264()
    height, width = image.shape[:2]
    # 4:2:0 halves the colours, so that it knows even sizes only.
    even = cv2.copyMakeBorder(image, 0, height % 2, 0, width % 2, cv2.BORDER_REPLICATE)
    encoder = av.CodecContext.create(_ENCODER, "w")
    encoder.width, encoder.height = even.shape[1], even.shape[0]
    encoder.pix_fmt = "yuv420p"
    encoder.time_base = Fraction(1, 30)
    encoder.thread_count = 1
    encoder.options = {"crf": str(crf), "preset": "veryfast", "tune": "zerolatency"}
    decoder = av.CodecContext.create("h264", "r")
    decoder.thread_count = 1
    frame = av.VideoFrame.from_ndarray(even, format=_PIXELS[colour])
    packets = [*encoder.encode(frame), *encoder.encode(None)]
    frames = [decoded for packet in (*packets, None) for decoded in decoder.decode(packet)]
    shown = np.asarray(frames[0].to_ndarray(format=_PIXELS[colour]), np.uint8)
    return shown[:height, :width].reshape(image.shape)


def jpeg(image: NDArray[np.uint8], quality: int, colour: Colour) -> NDArray[np.uint8]:
    """Return a picture as a JPEG file shows it.

    Parameters
    ----------
    image : ndarray of uint8, shape (height, width, channels)
    quality : int
        libjpeg's: 100 best, 1 worst.
    colour : {'gray', 'rgb', 'bgr'}
        Order of the channels.

    Returns
    -------
    ndarray of uint8
        Shaped as `image`.
    """
    step = -1 if colour == "rgb" else 1  # OpenCV's order is blue-green-red
    _, encoded = cv2.imencode(
        ".jpg", np.ascontiguousarray(image[..., ::step]), (cv2.IMWRITE_JPEG_QUALITY, quality)
    )
    flag = cv2.IMREAD_GRAYSCALE if colour == "gray" else cv2.IMREAD_COLOR
    shown = np.asarray(cv2.imdecode(encoded, flag), np.uint8).reshape(image.shape)
    return shown[..., ::step]
