"""Any image size through a network that halves its input several times."""

from torch import Tensor
from torch.nn import functional

from rtpose.errors import InputError

_BLACK = -1.0


def check_halvings(downsample: int, transitions: int) -> None:
    """Raise `InputError` unless a network can halve so often and come back up so far."""
    if not 1 <= downsample <= 4:
        raise InputError(f"downsample exponent is {downsample}, allowed: 1 to 4")
    if transitions <= downsample:
        raise InputError(
            f"transitions is {transitions}, allowed: more than the downsample exponent, "
            f"which is {downsample}"
        )


def pad_to_multiple(x: Tensor, multiple: int) -> Tensor:
    """Return images in -1..1 padded in black, at the right and bottom, to a multiple of a size.

    What lies at the left and top stays where it is, so that map index ``i`` still belongs to input
    pixel ``i * stride``.
    """
    right, bottom = -x.shape[3] % multiple, -x.shape[2] % multiple
    if not right and not bottom:
        return x
    return functional.pad(x, (0, right, 0, bottom), value=_BLACK)


def cut_to_image(maps: Tensor, image: Tensor, stride: int) -> Tensor:
    """Return the part of the maps that belongs to the image before padding, rounded up."""
    rows, columns = (-(-size // stride) for size in image.shape[2:])
    if maps.shape[2:] == (rows, columns):
        return maps
    return maps[:, :, :rows, :columns]
