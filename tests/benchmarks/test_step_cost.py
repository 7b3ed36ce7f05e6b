"""The operations that the FLOP ratio divides by."""

from benchmarks.step_cost import training_flops


def test_the_baselines_operations_are_those_of_its_layer_shapes():
    conv1 = 2 * 28 * 28 * 64 * (1 * 2 * 2)
    conv2 = 2 * 14 * 14 * 32 * (64 * 2 * 2)
    dense = 2 * (1568 * 256 + 256 * 10)

    assert training_flops(64) == 64 * (2 * conv1 + 3 * conv2 + 3 * dense)
