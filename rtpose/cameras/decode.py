"""From OpenCV's capture objects into the core's buffer."""

import cv2
import numpy as np
from numpy.typing import NDArray

from rtpose.errors import CameraError


class Decoder:
    """Writes the frame that a `cv2.VideoCapture` has grabbed into a buffer, grey or in colour.

    Parameters
    ----------
    capture : cv2.VideoCapture
        Open, and `grab` has just succeeded: the first frame says what the source delivers.
    colour : bool
        Write blue-green-red; else grey.
    name : str
        The source's name, for errors.

    Attributes
    ----------
    height_px, width_px, channels : int
        Of the frames that are written.

    Raises
    ------
    CameraError
        If the frame cannot be decoded or is not an 8-bit grey or colour picture.
    """

    def __init__(self, capture: cv2.VideoCapture, colour: bool, name: str) -> None:
        self._capture, self._name = capture, name
        self.channels = 3 if colour else 1
        first = self._retrieve(None)
        if first is None:
            raise CameraError(f"{name}: its first frame cannot be decoded")
        if first.dtype != np.uint8 or first.ndim not in (2, 3) or first.shape[2:] not in ((), (3,)):
            raise CameraError(
                f"{name}: delivers {first.dtype} frames of shape {first.shape}; "
                "8-bit grey or blue-green-red is needed"
            )
        self.height_px, self.width_px = first.shape[:2]
        self._shape = first.shape
        # Whatever cannot be decoded straight into the buffer is decoded into this.
        self._scratch = first

    def write(self, out: NDArray[np.uint8]) -> bool:
        """Decode the grabbed frame into `out`; return False if it is damaged.

        Where colour meets colour, OpenCV decodes straight into `out`.

        Raises
        ------
        CameraError
            If the frame is not of the shape and type of the first.
        """
        from_colour, to_colour = len(self._shape) == 3, self.channels == 3
        image = self._retrieve(out if from_colour == to_colour else self._scratch)
        if image is None:
            return False
        if image.shape != self._shape or image.dtype != np.uint8:
            raise CameraError(
                f"{self._name}: a frame of shape {image.shape} and type {image.dtype} came; "
                f"frames of shape {self._shape} and type uint8 were agreed at opening"
            )
        if from_colour and not to_colour:
            cv2.cvtColor(image, cv2.COLOR_BGR2GRAY, dst=out)
        elif to_colour and not from_colour:
            cv2.cvtColor(image, cv2.COLOR_GRAY2BGR, dst=out)
        elif image is not out:
            np.copyto(out, image)
        return True

    def _retrieve(self, into: NDArray[np.uint8] | None) -> NDArray[np.uint8] | None:
        try:
            done, image = self._capture.retrieve(image=into)
        except cv2.error:
            return None
        return image if done else None  # type: ignore[return-value]  # the callers check it
