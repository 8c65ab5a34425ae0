import torch

from bbb.networks import layer_dims, num_weights, unflatten

SHAPES = ((4, 5), (6, 4), (3, 6))


def test_layers_are_views_that_cover_every_weight_once():
    w = torch.arange(num_weights(SHAPES)).unsqueeze(0)
    layers = unflatten(w, SHAPES)
    assert [tuple(weight.shape) for weight, _ in layers] == [(1, 4, 5), (1, 6, 4), (1, 3, 6)]
    flat = torch.cat([part.flatten() for layer in layers for part in layer])
    assert torch.equal(flat, w[0])
    assert all(
        part.untyped_storage().data_ptr() == w.untyped_storage().data_ptr() for layer in layers for part in layer
    )


def test_each_replica_has_its_own_weights():
    w = torch.arange(2 * 3 * num_weights(SHAPES)).view(2, 3, -1)
    for i, (kernel, bias) in enumerate(unflatten(w, SHAPES)):
        for r in range(3):
            alone = unflatten(w[:, r], SHAPES)[i]
            assert torch.equal(kernel[:, r], alone[0])
            assert torch.equal(bias[:, r], alone[1])


def test_kernels_of_any_rank_are_counted_and_viewed():
    shapes = ((2, 3, 4, 5), (7, 2))
    assert layer_dims(shapes) == [2 * 3 * 4 * 5 + 2, 7 * 2 + 7]
    assert num_weights(shapes) == 122 + 21
    layers = unflatten(torch.zeros(6, 143), shapes)
    assert [tuple(part.shape) for layer in layers for part in layer] == [(6, 2, 3, 4, 5), (6, 2), (6, 7, 2), (6, 7)]
