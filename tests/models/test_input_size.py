"""The smallest images of a network, by functions and by networks of a few layers."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from segtune.errors import UserError
from segtune.models.input_size import check_size, smallest_side, too_small


@pytest.mark.parametrize(
    ("fits", "above", "side"),
    [
        (lambda side: side >= 75, 32, 75),
        (lambda side: side >= 33, 32, 33),
        (lambda side: side >= 1000, 32, 1000),
        (lambda side: side == 224, 128, 224),
        (lambda side: side == 224, 256, 224),
        (lambda side: side >= 5000, 32, None),
    ],
)
def test_the_smallest_side(fits: Callable[[int], bool], above: int, side: int | None) -> None:
    assert smallest_side(fits, above) == side


def test_the_users_size_and_the_smallest_are_named() -> None:
    assert too_small((40, 300), lambda side: side >= 75, "a") == (
        "cannot take images of 40 x 300 pixels; the smallest that fits is 75 x 300. Set a."
    )
    assert too_small((128, 128), lambda side: side == 224, "a") == (
        "cannot take images of 128 x 128 pixels, only of 224 x 224: it is made for one size, as most vision "
        "transformers are. Set a."
    )
    assert too_small((64, 64), lambda _: False, "a") == (
        "cannot take images of 64 x 64 pixels, nor square ones of up to 1024 pixels, so it cannot be used."
    )


def failure(network: nn.Module, images: Tensor) -> RuntimeError:
    with pytest.raises(RuntimeError) as error:
        network(images)
    return error.value


def test_an_error_that_is_due_to_the_size_is_explained() -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 3, stride=4), nn.Conv2d(4, 4, 9))
    images = torch.zeros(2, 3, 32, 50)
    with pytest.raises(UserError) as error:
        check_size(network, images, failure(network, images))
    assert str(error.value) == (
        "The backbone cannot take images of 32 x 50 pixels; the smallest that fits is 35 x 50. Set data.image_size (in "
        "validation and evaluation data.eval_size, in predict image_size)."
    )
    assert network(torch.zeros(1, 3, 35, 35)).shape == (1, 4, 1, 1)  # it still has its values


def test_other_errors_stay() -> None:
    network = nn.Conv2d(3, 4, 3)
    images = torch.zeros(1, 4, 32, 32)
    check_size(network, images, failure(network, images))
    check_size(network, torch.zeros(1, 3, 2, 2), torch.OutOfMemoryError("full"))
