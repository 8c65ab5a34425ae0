import itertools
import math

import pytest
import torch

from bbb import data
from tests.tasks import seeded


def test_pixels_are_scaled_as_in_the_paper():
    scaled = data.Normalization()(torch.tensor([0, 126, 255], dtype=torch.uint8))
    torch.testing.assert_close(scaled, torch.tensor([0.0, 1.0, 255 / 126]))


@pytest.mark.parametrize("share", [0.2, 0.5])
def test_dropped_pixels_are_the_right_share_and_keep_the_mean(share):
    x = torch.ones(1000, 785)
    noise = seeded(1)
    dropped = data.drop_pixels(x, share, noise)
    num = x.numel()
    standard_error = (share * (1 - share) / num) ** 0.5
    assert abs((dropped == 0).float().mean().item() - share) < 5 * standard_error
    torch.testing.assert_close(dropped.max(), torch.tensor(1 / (1 - share)))
    assert not torch.equal(dropped, data.drop_pixels(x, share, noise))


def test_no_pixels_are_dropped_at_share_zero():
    x = torch.ones(2, 3)
    assert data.drop_pixels(x, 0.0, seeded(1)) is x


@pytest.mark.parametrize("share", [0.2, 0.5])
def test_kept_pixels_keep_the_mean(share):
    """The mean over all pixels stays what it was within five standard errors."""
    x = torch.rand(1, 784, generator=seeded(1)).expand(1000, 784)
    dropped = data.drop_pixels(x, share, seeded(2))
    kept = dropped != 0
    torch.testing.assert_close(dropped[kept], x[kept] / (1 - share))
    standard_error = (dropped - x).std().item() / x.numel() ** 0.5
    assert abs((dropped - x).mean().item()) < 5 * standard_error


def test_rotation_by_nothing_is_the_same_tensor():
    images = torch.zeros(2, 9, dtype=torch.uint8)
    assert data.rotate_images(images, 0.0) is images


def test_many_images_are_rotated_as_each_is(monkeypatch):
    """In parts, since all at once might not fit the memory."""
    images = torch.randint(0, 256, (7, 25), generator=seeded(1), dtype=torch.uint8)
    whole = data.rotate_images(images, 30.0)
    monkeypatch.setattr("bbb.data.transforms.ROTATED_AT_ONCE", 3)
    assert torch.equal(data.rotate_images(images, 30.0), whole)
    assert torch.equal(data.rotate_images(images[:1], 30.0)[0], whole[0])


def test_normalization_is_shift_then_scale():
    images = torch.tensor([[0, 255], [10, 30]], dtype=torch.uint8)
    shift, scale = torch.tensor([10.0, 30.0]), torch.tensor([2.0, 0.5])
    torch.testing.assert_close(data.Normalization(shift, scale)(images), torch.tensor([[-20.0, 112.5], [0.0, 0.0]]))
    torch.testing.assert_close(data.Normalization(scale=0.5)(images), images / 2.0)
    torch.testing.assert_close(data.Normalization(shift, 2.0)(images), 2.0 * (images - shift))
    assert torch.equal(data.Normalization(scale=1.0)(images.float()), images.float())


def test_normalization_goes_along_to_another_type_and_is_not_trained():
    normalization = data.Normalization(torch.zeros(2), torch.ones(2)).double()
    assert normalization(torch.ones(3, 2, dtype=torch.uint8)).dtype == torch.float64
    assert not [*normalization.parameters()]
    assert not normalization.state_dict(), "a weights file holds it on its own"


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_standardised_images_have_mean_0_and_standard_deviation_1_in_each_channel(dtype):
    images = torch.randint(0, 256, (50, 3 * 8), generator=seeded(1), dtype=torch.uint8)
    images[:, :8] //= 4  # the first channel is darker
    images = images.to(dtype)
    x = data.standardization(images, (3, 2, 4))(images).view(50, 3, 8)
    torch.testing.assert_close(x.mean((0, 2)), torch.zeros(3), rtol=0, atol=1e-6)
    torch.testing.assert_close(x.std((0, 2), correction=0), torch.ones(3))
    assert x.mean(0).abs().max() > 1e-3, "pixels of a channel share its mean"


def test_standardised_numbers_have_mean_0_and_standard_deviation_1_each():
    inputs = torch.randn(50, 4, generator=seeded(1)) * torch.tensor([1.0, 10.0, 0.1, 5.0]) + 10.0
    for shape in ((4,), (2, 2)):
        x = data.standardization(inputs, shape)(inputs)
        torch.testing.assert_close(x.mean(0), torch.zeros(4), rtol=0, atol=1e-5)
        torch.testing.assert_close(x.std(0, correction=0), torch.ones(4))


def test_what_never_changes_is_0_and_finite():
    inputs = torch.tensor([[3.0, 0.1], [5.0, 0.1], [7.0, 0.1]])
    x = data.standardization(inputs, (2,))(inputs)
    assert x[:, 1].tolist() == [0.0] * 3
    assert x.isfinite().all()


@pytest.mark.parametrize("shape", [(4, 6), (1, 4, 6), (3, 4, 6)])
@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_images_move_as_a_whole_and_by_every_step_alike(shape, dtype):
    """Each moved image is a window of its own padded image, and all 9 moves come with the same probability."""
    num, pixels = 2_000, 1
    images = torch.randint(1, 256, (num, math.prod(shape)), generator=seeded(1)).to(dtype)
    moved = data.shift_images(images, pixels, shape, seeded(2))
    assert moved.dtype == dtype
    assert moved.shape == images.shape
    planes = images.view(num, -1, 4, 6)
    counts, is_found = [], torch.zeros(num, dtype=torch.long)
    for down, right in itertools.product((-1, 0, 1), repeat=2):
        expected = torch.zeros_like(planes)
        for row, column in itertools.product(range(4), range(6)):
            if 0 <= row + down < 4 and 0 <= column + right < 6:
                expected[:, :, row, column] = planes[:, :, row + down, column + right]
        same = (expected.flatten(1) == moved).all(1)
        counts.append(same.sum().item())
        is_found += same
    assert (is_found == 1).all()
    standard_error = (num * (1 / 9) * (8 / 9)) ** 0.5
    assert all(abs(count - num / 9) < 5 * standard_error for count in counts)


def test_no_shift_leaves_the_images():
    images = torch.zeros(2, 9, dtype=torch.uint8)
    assert data.shift_images(images, 0, (3, 3), seeded(1)) is images
