"""Which layer feeds the units of a ReLU site, and which layers take them in: followed through one forward pass.

A tensor that a convolution or linear layer returned, and one that a site returned, carries *labels*: for each element
the row of the weight, or the unit, that it belongs to. Functions that hand elements on (views, pools, dropout, padding)
hand the labels on, and a batch normalisation on the way to a site is remembered. Any other function that takes such a
tensor is an obstacle: the site is left alone, and the function named. So nothing is guessed: a site has wires only if
every function of torch that took its units was one of those.

Not seen is what is no function of torch: a custom ``autograd.Function``, NumPy.
"""

from __future__ import annotations

import weakref
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from training_health.relu.activation_calls import role_of
from training_health.relu.sites import CallFollower, ReLUCall

# Functions by name, without underscores at the ends.
_LAYERS = {"linear": 0, "conv1d": 1, "conv2d": 2, "conv3d": 3}  # dimensions behind the channels
_SAME = {
    "contiguous", "clone", "detach", "to", "float", "half", "bfloat16", "double", "type", "type_as", "cpu", "cuda",
    "dropout", "dropout1d", "dropout2d", "dropout3d", "alpha_dropout", "feature_dropout", "feature_alpha_dropout",
    "requires_grad", "identity",
}  # fmt: skip
_VIEWS = {
    "reshape", "view", "flatten", "unflatten", "ravel", "squeeze", "unsqueeze", "permute", "transpose", "swapaxes",
    "swapdims", "movedim", "moveaxis", "t", "expand", "reshape_as", "view_as",
}  # fmt: skip
_REDUCTIONS = {"mean", "sum", "amax"}
_POOLS = {
    f"{kind}_pool{n}d": n for n in (1, 2, 3) for kind in ("max", "avg", "adaptive_max", "adaptive_avg", "lp")
}  # and how many dimensions they pool
_QUESTIONS = {
    "size", "dim", "numel", "get", "stride", "len", "ndimension", "nelement", "element_size", "data_ptr", "get_device",
    "storage_offset", "untyped_storage", "hash", "dim_order", "register_hook", "requires_grad",
}  # fmt: skip


class Norm(NamedTuple):
    """Names of a batch normalisation's parameters and buffers; None where it has none."""

    weight: str | None
    bias: str | None
    running_mean: str | None
    running_var: str | None


class Feed(NamedTuple):
    """The layer that feeds a site, by the names of its parameters."""

    weight: str
    bias: str | None
    rows: list[int]  # of the weight and bias, for each unit; also the entries of the norms
    norms: tuple[Norm, ...]


class Use(NamedTuple):
    """A layer that takes in a site's units."""

    weight: str
    units: list[int]  # for each input feature of the layer, the unit that it comes from
    groups: int


@dataclass
class Wires:
    """What belongs to a site's units; nothing may be changed where there is an ``obstacle``."""

    feed: Feed | None = None
    uses: list[Use] = field(default_factory=list)
    obstacle: str = ""

    def as_plain(self) -> list[Any]:
        """Lists and strings, for a checkpoint; of a site without an obstacle."""
        assert self.feed is not None
        weight, bias, rows, norms = self.feed
        return [[weight, bias, rows, [list(norm) for norm in norms]], [list(use) for use in self.uses]]

    @classmethod
    def of_plain(cls, plain: list[Any]) -> Wires:
        """The reverse of `as_plain`."""
        (weight, bias, rows, norms), uses = plain
        return cls(Feed(weight, bias, rows, tuple(Norm(*norm) for norm in norms)), [Use(*use) for use in uses])


class _Fed(NamedTuple):
    layer: str  # name of the weight
    labels: Tensor  # rows
    bias: str | None
    norms: tuple[Norm, ...] = ()


class _Units(NamedTuple):
    site: str
    labels: Tensor  # units


_Tag = _Fed | _Units


class Wiring(CallFollower):
    """Follows the calls of one pass; `ReLUSites` reports sites to `site` and calls to this object.

    >>> from training_health.relu.sites import ReLUSites
    >>> net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8, 3))
    >>> wiring = Wiring(net)
    >>> sites = ReLUSites(wiring.site)
    >>> sites.follower = wiring
    >>> sites.attach(net); sites.begin_pass(); _ = net(torch.ones(1, 1, 4, 4)); sites.detach()
    >>> wires = wiring.wires()["1"]
    >>> wires.feed.weight, wires.feed.rows, wires.uses[0].weight, wires.uses[0].units
    ('0.weight', [0, 1], '3.weight', [0, 0, 0, 0, 1, 1, 1, 1])
    """

    def __init__(self, module: nn.Module) -> None:
        self._names = {id(tensor): name for name, tensor in [*module.named_parameters(), *module.named_buffers()]}
        self._module = module  # keeps the ids its own
        self._frozen = {name for name, parameter in module.named_parameters() if not parameter.requires_grad}
        self._tags: dict[int, tuple[Callable[[], Tensor | None], _Tag]] = {}
        self._call: ReLUCall | None = None
        self._sites: dict[str, Wires] = {}
        self._calls: Counter[str] = Counter()  # how often a weight or norm is used
        self._obstacles: dict[str, str] = {}  # by weight, for what it feeds

    def site(self, call: ReLUCall) -> None:
        """Take note of a site's call, just before `called` gets it as a function's call."""
        self._call = call

    def called(self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], output: object) -> None:
        """Follow one call."""
        call, self._call = self._call, None
        name = func.__name__.strip("_")
        inputs = [tensor for tensor in _tensors((args, kwargs)) if self._tag(tensor) is not None]
        try:
            if call is not None:
                self._at_site(call, inputs)
            elif name in _LAYERS:
                self._at_layer(name, args, kwargs, output)
            elif not inputs or _asks_for_no_value(name, output):
                return
            elif not (isinstance(output, Tensor) and self._hand_on(name, func, args, kwargs, output)):
                self._lose(inputs, f"`{name}` takes its values")
        except Exception as error:  # a part of torch that nobody thought of must not end the run
            self._lose(inputs, f"`{name}` could not be followed: {error}")

    def hidden(self) -> None:
        """Lose every tensor that is still there: the part may take it."""
        alive = [ref() for ref, _ in self._tags.values()]
        self._lose([tensor for tensor in alive if tensor is not None], "a part that cannot be watched may take it")

    def wires(self) -> dict[str, Wires]:
        """Give each site's wires, or why it has none."""
        fed = Counter(wires.feed.weight for wires in self._sites.values() if wires.feed)
        for wires in self._sites.values():
            if wires.feed is not None and not wires.obstacle:
                wires.obstacle = self._obstacles.get(wires.feed.weight, "")
                names = [wires.feed.weight, *(use.weight for use in wires.uses)]
                norms = [norm.running_mean or norm.weight for norm in wires.feed.norms]
                shared = [name for name in [*names, *norms] if name and self._calls[name] > 1]
                if shared or fed[wires.feed.weight] > 1:
                    wires.obstacle = f"{(shared or names)[0]} is used more than once"
                elif frozen := self._frozen.intersection(names):
                    wires.obstacle = f"{min(frozen)} is frozen"
                elif not wires.uses:
                    wires.obstacle = "no convolution or linear layer was seen to take it in"
        return self._sites

    # ---- what a call does to labels

    def _tag(self, tensor: Tensor) -> _Tag | None:
        known = self._tags.get(id(tensor))
        return known[1] if known is not None and known[0]() is tensor else None  # else the id is used again

    def _put(self, tensor: Tensor, tag: _Tag) -> None:
        self._tags[id(tensor)] = weakref.ref(tensor), tag

    def _lose(self, tensors: list[Tensor], reason: str) -> None:
        for tensor in tensors:
            tag = self._tag(tensor)
            if isinstance(tag, _Units):
                self._sites[tag.site].obstacle = self._sites[tag.site].obstacle or reason
            elif tag is not None:
                self._obstacles.setdefault(tag.layer, reason)

    def _at_site(self, call: ReLUCall, inputs: list[Tensor]) -> None:
        tags = [self._tag(tensor) for tensor in inputs]
        fed = next((tag for tag in tags if isinstance(tag, _Fed)), None)
        self._lose([tensor for tensor in inputs if isinstance(self._tag(tensor), _Units)], "another ReLU takes it")
        wires = self._sites.setdefault(call.site, Wires())
        units = call.output.shape[call.unit_dim]
        rows = _along(fed.labels, call.unit_dim) if fed is not None else None
        if fed is None:
            wires.obstacle = wires.obstacle or "no convolution or linear layer was seen to feed it alone"
        elif rows is None or len(set(rows)) != units:
            wires.obstacle = f"its units are not the rows of {fed.layer}"
        else:
            wires.feed = Feed(fed.layer, fed.bias, rows, fed.norms)
        shape = [1] * call.output.dim()
        shape[call.unit_dim] = units
        labels = torch.arange(units, device=call.output.device).view(shape).expand(call.output.shape)
        self._put(call.output, _Units(call.site, labels))

    def _at_layer(self, name: str, args: tuple[Any, ...], kwargs: Mapping[str, Any], output: object) -> None:
        named = dict(zip(("input", "weight", "bias"), args, strict=False)) | dict(kwargs)
        source, weight, bias = named["input"], named["weight"], named.get("bias")
        layer = self._names.get(id(weight))
        dim, tag = source.dim() - 1 - _LAYERS[name], self._tag(source)
        if isinstance(tag, _Units) and layer is not None and (units := _along(tag.labels, dim)) is not None:
            groups = kwargs.get("groups", args[6] if len(args) > 6 else 1)
            self._sites[tag.site].uses.append(Use(layer, units, groups))
        elif tag is not None:
            self._lose([source], f"`{name}` takes its values")
        self._lose([tensor for tensor in _tensors((weight, bias))], f"`{name}` takes its values")
        if layer is None or not isinstance(output, Tensor):
            return
        self._calls[layer] += 1
        shape = [1] * output.dim()
        shape[dim] = len(weight)
        labels = torch.arange(len(weight), device=output.device).view(shape).expand(output.shape)
        self._put(output, _Fed(layer, labels, self._name(bias)))
        if bias is not None and self._name(bias) is None:
            self._lose([output], "its bias is no parameter of the module")

    def _name(self, tensor: Tensor | None) -> str | None:
        return None if tensor is None else self._names.get(id(tensor))

    def _hand_on(
        self, name: str, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], output: Tensor
    ) -> bool:
        """Label the output of a function that hands elements on; False where it is none of those."""
        source = args[0] if args else kwargs.get("input")
        tag = self._tag(source) if isinstance(source, Tensor) else None
        if tag is None or role_of(func, args, kwargs) is not None or not isinstance(source, Tensor):
            return False
        labels: Tensor | None = None
        if name == "batch_norm" and isinstance(tag, _Fed):
            return self._at_norm(tag, args, kwargs, output)
        if name in _SAME and output.shape == source.shape:
            labels = tag.labels
        elif name in _VIEWS:
            labels = func(tag.labels, *args[1:], **kwargs)
        elif name in _REDUCTIONS:
            dims = kwargs.get("dim", args[1] if len(args) > 1 else None)
            if isinstance(dims, (int, tuple, list)):
                keep = kwargs.get("keepdim", args[2] if len(args) > 2 else False)
                most, least = tag.labels.amax(dims, keep), tag.labels.amin(dims, keep)
                labels = most if torch.equal(most, least) else None
        elif (behind := self._pooled(name, args, kwargs)) is not None:
            dim = source.dim() - 1 - behind
            along = _along(tag.labels, dim) if dim > 0 and output.dim() == source.dim() else None
            if along is not None and output.shape[dim] == source.shape[dim]:
                shape = [1] * output.dim()
                shape[dim] = len(along)
                labels = torch.tensor(along, device=output.device).view(shape).expand(output.shape)
        if labels is None:
            return False
        self._put(output, tag._replace(labels=labels))
        return True

    @staticmethod
    def _pooled(name: str, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> int | None:
        """How many of the last dimensions a function changes, and not the one before them."""
        if name == "pad":
            return len(kwargs.get("pad", args[1] if len(args) > 1 else ())) // 2
        if name in ("interpolate", "upsample"):
            return args[0].dim() - 2 if args else None
        return _POOLS.get(name)

    def _at_norm(self, tag: _Fed, args: tuple[Any, ...], kwargs: Mapping[str, Any], output: Tensor) -> bool:
        keys = ("input", "running_mean", "running_var", "weight", "bias")
        named = dict(zip(keys, args, strict=False)) | dict(kwargs)
        parts = [named.get(key) for key in ("weight", "bias", "running_mean", "running_var")]
        rows = _along(tag.labels, 1)
        names = [self._name(part) for part in parts]
        if rows != list(range(output.shape[1])) or any(
            part is not None and name is None for part, name in zip(parts, names, strict=True)
        ):
            return False
        norm = Norm(*names)
        if key := norm.running_mean or norm.weight:
            self._calls[key] += 1
        self._put(output, tag._replace(norms=(*tag.norms, norm)))
        return True


def _asks_for_no_value(name: str, output: object) -> bool:
    """Whether a function looks at a tensor's shape, type or place alone."""
    question = name in _QUESTIONS and not isinstance(output, Tensor)
    return question or name.endswith("_like") or name.startswith(("new_", "is_"))


def _tensors(value: object) -> list[Tensor]:
    """Every tensor in nested arguments."""
    if isinstance(value, Tensor):
        return [value]
    parts = value.values() if isinstance(value, dict) else value if isinstance(value, (list, tuple)) else ()
    return [tensor for part in parts for tensor in _tensors(part)]


def _along(labels: Tensor, dim: int) -> list[int] | None:
    """Read the labels off along a dimension; None where they depend on another one too."""
    if not 0 <= dim < labels.dim() or labels.numel() == 0:
        return None
    across = labels.movedim(dim, 0).flatten(1)
    first = across[:, :1]
    return first.flatten().tolist() if bool((across == first).all()) else None
