"""Short names for ReLU sites."""

from collections.abc import Sequence

# What the monitors log beside the sites under the same prefix.
_TAKEN = {"total", "deaths", "revivals", "n"}


def shorten(names: Sequence[str]) -> list[str]:
    """Drop from dotted names what all of them share.

    The last segment goes if it is the same everywhere and what remains is not empty and still tells the names apart;
    then the leading segments that all have in common, as long as every name keeps one.

    ``net.conv1.relu, net.fc1.relu`` become ``conv1, fc1``; ``net.relu, net.layer1.0.relu, net.layer1.0.relu:2`` become
    ``relu, layer1.0.relu, layer1.0.relu:2``.

    Args:
        names: Distinct names in forward order.

    Returns:
        The short names, distinct, in the same order.
    """
    parts = [name.split(".") for name in names]
    heads = [part[:-1] for part in parts]
    distinct = len({tuple(head) for head in heads}) == len(heads)
    if len({part[-1] for part in parts}) == 1 and all(heads) and distinct:
        parts = heads
    while parts and all(len(part) > 1 for part in parts) and len({part[0] for part in parts}) == 1:
        parts = [part[1:] for part in parts]
    return [f"relu.{short}" if short in _TAKEN else short for short in (".".join(part) for part in parts)]
