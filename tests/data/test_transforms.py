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
