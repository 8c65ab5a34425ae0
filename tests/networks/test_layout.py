import torch

from bbb.networks import Convolution, Dense, layer_dims, num_weights, unflatten

LAYERS = (Dense(4, 5), Dense(6, 4), Dense(3, 6))


def test_layers_are_views_that_cover_every_weight_once():
    w = torch.arange(num_weights(LAYERS)).unsqueeze(0)
    layers = unflatten(w, LAYERS)
    assert [tuple(weight.shape) for weight, _ in layers] == [(1, 4, 5), (1, 6, 4), (1, 3, 6)]
    flat = torch.cat([part.flatten() for layer in layers for part in layer])
    assert torch.equal(flat, w[0])
    assert all(
        part.untyped_storage().data_ptr() == w.untyped_storage().data_ptr() for layer in layers for part in layer
    )


def test_each_replica_has_its_own_weights():
    w = torch.arange(2 * 3 * num_weights(LAYERS)).view(2, 3, -1)
    for i, (kernel, bias) in enumerate(unflatten(w, LAYERS)):
        for r in range(3):
            alone = unflatten(w[:, r], LAYERS)[i]
            assert torch.equal(kernel[:, r], alone[0])
            assert torch.equal(bias[:, r], alone[1])


def test_kernels_of_any_rank_are_counted_and_viewed():
    layers = (Convolution(2, 3, (4, 5)), Dense(7, 2))
    assert layer_dims(layers) == [2 * 3 * 4 * 5 + 2, 7 * 2 + 7]
    assert num_weights(layers) == 122 + 21
    parts = unflatten(torch.zeros(6, 143), layers)
    assert [tuple(part.shape) for layer in parts for part in layer] == [(6, 2, 3, 4, 5), (6, 2), (6, 7, 2), (6, 7)]


def test_a_layer_without_bias_has_its_kernel_alone():
    layers = (Convolution(4, 6, (2, 3), groups=2, has_bias=False), Dense(3, 5, has_bias=False), Dense(2, 3))
    assert layer_dims(layers) == [4 * 3 * 2 * 3, 15, 8]
    assert [layer.fan_in for layer in layers] == [18, 5, 3]
    assert [layer.matrix_shape for layer in layers] == [(4, 18), (3, 5), (2, 4)]
    w = torch.arange(num_weights(layers)).unsqueeze(0)
    parts = unflatten(w, layers)
    assert [bias is None for _, bias in parts] == [True, True, False]
    flat = torch.cat([part.flatten() for layer in parts for part in layer if part is not None])
    assert torch.equal(flat, w[0])
