"""Short names for ReLU sites."""

from collections.abc import Sequence

# What the monitors log beside the sites under the same prefix.
_RESERVED = {"total", "deaths", "revivals", "n"}


def shorten(names: Sequence[str]) -> list[str]:
    """Drop from dotted names what all of them have in common.

    The last segment goes if it is the same everywhere and what remains is not empty and still tells the names apart;
    then the leading segments that are the same everywhere, as long as every name keeps one.

    Args:
        names: Distinct names in forward order.

    Returns:
        The short names, distinct, in the same order.

    >>> shorten(["net.conv1.relu", "net.fc1.relu"])
    ['conv1', 'fc1']
    >>> shorten(["net.relu", "net.layer1.0.relu", "net.layer1.0.relu:2"])
    ['relu', 'layer1.0.relu', 'layer1.0.relu:2']
    """
    parts = [name.split(".") for name in names]
    heads = [part[:-1] for part in parts]
    distinct = len({tuple(head) for head in heads}) == len(heads)
    if len({part[-1] for part in parts}) == 1 and all(heads) and distinct:
        parts = heads
    while parts and all(len(part) > 1 for part in parts) and len({part[0] for part in parts}) == 1:
        parts = [part[1:] for part in parts]
    short = [".".join(part) for part in parts]
    taken = _RESERVED.union(short)

    def renamed(name: str) -> str:
        while name in taken:
            name = f"relu.{name}"
        return name

    return [renamed(name) if name in _RESERVED else name for name in short]
