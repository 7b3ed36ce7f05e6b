"""Where the values of a forward pass come from and go: which layer feeds a ReLU, which layers take its units in.

Followed from function to function are the weights that values came through, the dimension that holds the features, the
layer before a ReLU and the ReLU before a layer: a view is read by its strides, a copy by its shape. What cannot be
followed is unknown, and where a function takes values that are not followed behind it, that is noted.
"""

from __future__ import annotations

import weakref
from collections import defaultdict
from collections.abc import Callable, Container, Iterable
from math import prod
from typing import Any, NamedTuple

from torch import Size, Tensor, nn

from training_health.relu.activation_calls import Role
from training_health.relu.feeds import Feed, Source, biased, feed_of, normalized

# What values depend on: parameters only; data only; data through one layer, each unit of it on its own; anything more.
WEIGHTS, DATA, FIRST, LATER = -1, 0, 1, 2

# Functions by name, without underscores at the ends.
_PER_UNIT = {f"{kind}{name}" for kind in ("", "r", "i") for name in ("add", "sub", "mul", "div", "truediv")} | {
    "true_divide", "batch_norm", "instance_norm", "prelu",
}  # fmt: skip
_MIXES_UNITS = {
    "softmax", "log_softmax", "layer_norm", "group_norm", "rms_norm", "normalize", "local_response_norm", "sum", "mean",
    "var", "std", "norm", "amax", "amin", "cumsum", "sort", "topk",
}  # fmt: skip
_FEATURES_LAST = {
    "layer_norm", "rms_norm", "embedding", "embedding_bag", "multi_head_attention_forward", "lstm", "gru", "rnn_tanh",
    "rnn_relu", "lstm_cell", "gru_cell", "rnn_tanh_cell", "rnn_relu_cell",
}  # fmt: skip
_FEATURES_SECOND = {"batch_norm", "instance_norm", "group_norm"}
_RESHAPES = {"reshape", "reshape_as", "view", "view_as", "flatten", "unflatten", "ravel", "squeeze", "unsqueeze"}
# Each unit's values stay what they are, though some may be left out and their places change.
_POOLS = {f"{kind}max_pool{n}d" for kind in ("", "adaptive_") for n in (1, 2, 3)}
_POOLS |= {f"{name}_with_indices" for name in _POOLS}
_VIEWS = {
    "permute", "transpose", "t", "movedim", "moveaxis", "swapaxes", "swapdims", "contiguous", "clone", "detach",
    "expand", "identity", "requires_grad",
}  # fmt: skip
_CUTS = {"getitem", "select", "squeeze", "unbind"}  # where views, of one place in a dimension
_PARTS = {"getitem", "narrow", "select", "chunk", "split", "unbind"}
_DROPS = {f"{kind}dropout{n}" for kind in ("", "feature_", "alpha_", "feature_alpha_") for n in ("", "1d", "2d", "3d")}
_REDUCTIONS = {"mean", "sum", "amax"}
# Each unit is left on its own, and 0 stays 0.
_ZERO_STAYS = {f"{kind}_pool{n}d" for kind in ("avg", "adaptive_avg", "lp") for n in (1, 2, 3)}
_ZERO_STAYS |= _REDUCTIONS | {"pad", "interpolate", "upsample"}
_JOINS = {"cat", "concat", "concatenate"}
_CASTS = {"to", "float", "half", "bfloat16", "double", "type", "type_as", "cpu", "cuda"}
_KEEPS = _RESHAPES | _VIEWS | _DROPS | _CASTS | _POOLS
_ABOVE = {"gt", "ge"}
_COMPARES = _ABOVE | {"lt", "le"}
# They look at a tensor's shape, type or place alone, where they return no tensor.
_QUESTIONS = {
    "size", "dim", "numel", "get", "stride", "len", "ndimension", "nelement", "element_size", "data_ptr", "get_device",
    "storage_offset", "untyped_storage", "hash", "dim_order", "register_hook", "requires_grad",
}  # fmt: skip


class Origin(NamedTuple):
    """What is known of one tensor."""

    level: int
    feature_dim: int | None = None
    # Of a comparison with 0: the tensor compared, and whether the mask is True above 0 (else below).
    mask: tuple[Callable[[], Tensor | None], bool] | None = None
    feed: Feed | None = None  # the layer that it is an affine map of, unit by unit
    source: Source | None = None  # the ReLU that it comes out of
    guessed: bool = False  # its units lie in more dimensions than that of the features, or that one is gone


_PARAMETER = Origin(WEIGHTS)


class _Call(NamedTuple):
    """One call of a torch function, with the tensors among its arguments and their origins."""

    name: str
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    inputs: list[Tensor]
    origins: list[Origin]


class Origins:
    """Follows the tensors of one pass; of these only the weights of layers beside a ReLU are kept, until `clear`.

    Attributes:
        feeds: The layer before each ReLU site; None where it could not be followed.
        uses: By site, the layers that take its units in.
        taken: Why a site's units, or a layer's outputs before its site, may be used in other ways too; by site, or by
            the number of the layer's call.
        calls: How often each weight and each batch normalisation was used, by the tensor's id.
        layers: How many calls took parameters and other values, or could not be seen.
        ended: Sites of which some outputs were made one number, as a loss makes.
    """

    def __init__(self) -> None:
        self.clear()

    def clear(self, ranged: Container[int] | None = None) -> None:
        """Start a pass, in which the inputs' range is looked at in these calls with weights; None: in all of them."""
        self._ranged, self._feeds = ranged, 0
        self._known: dict[int, tuple[Callable[[], Tensor | None], Origin]] = {}
        self._unknown = Origin(DATA)
        self.feeds: dict[str, Feed | None] = {}
        self.uses: dict[str, list[Feed]] = {}
        self.taken: dict[str | int, str] = {}
        self.calls: defaultdict[int, int] = defaultdict(int)  # a Counter is slower with what it has not seen
        self.layers = 0
        self.ended: set[str] = set()

    def lose(self) -> None:
        """Take note that something ran that nobody saw: what comes from nowhere may have come through weights."""
        self._unknown = Origin(LATER)
        self.hide()

    def hide(self) -> None:
        """Take note that a part runs whose calls are not seen: it may take anything that is still there."""
        self.layers += 1
        known = [*self._known.items()]  # another thread may add some meanwhile
        for key, entry in known:
            if entry[0]() is None and self._known.get(key) is entry:
                self._known.pop(key, None)
        living = (origin for _, (there, origin) in known if there() is not None)
        self.take(living, "a part that cannot be watched may take it")

    def take(self, origins: Iterable[Origin], reason: str) -> None:
        """Take note that values are used in a way that is not followed."""
        for origin in origins:
            if origin.source is not None:
                self.taken.setdefault(origin.source.site, reason)
            elif origin.feed is not None:
                self.taken.setdefault(origin.feed.call, reason)

    def of(self, tensor: Tensor) -> Origin:
        """Give what is known of a tensor."""
        known = self._known.get(id(tensor))
        if known is not None and known[0]() is tensor:  # else the id is used again
            return known[1]
        return _PARAMETER if isinstance(tensor, nn.Parameter) else self._unknown

    def note(self, value: object, origin: Origin) -> None:
        """Take note of a function's or module's output."""
        for tensor in _tensors((value,)):
            self._known[id(tensor)] = weakref.ref(tensor), origin

    def follow(
        self, name: str, role: Role | None, args: tuple[Any, ...], kwargs: dict[str, Any], output: object
    ) -> Origin:
        """Derive and note the origin of what a function returned; gives the first output's."""
        value = args[0] if name == "setitem" else output
        outputs = [value] if isinstance(value, Tensor) else [] if isinstance(value, Size) else _tensors((value,))
        if not outputs and (name in _QUESTIONS or name.startswith("is_")):
            return self._unknown
        inputs = _tensors(args) + (_tensors(kwargs.values()) if kwargs else [])
        if not inputs:
            return self._unknown
        origins = [self.of(tensor) for tensor in inputs]
        if not outputs:
            self.take(origins, f"`{name}` takes its values")
            return self._unknown
        call = _Call(name, args, kwargs, inputs, origins)
        levels = {origin.level for origin in origins}
        self.layers += WEIGHTS in levels and len(levels) > 1
        weighted = role is not None and role.kind == "weights"
        level, first = self._level(name, role, origins), self._unknown
        mask, feed = (None, self._feed(name, args, kwargs)) if weighted else (self._mask(name, args, origins), None)
        for tensor in reversed(outputs):
            dim = _weighted_dim(role, call) if role is not None and weighted else _followed_any(call, tensor)
            if dim is not None:
                dim = dim % tensor.dim() if -tensor.dim() <= dim < tensor.dim() else None
            source = None
            if not weighted:
                feed, source = _kept(call, tensor, dim)
            first = Origin(level, dim, mask, feed, source, _is_guessed(call, role, dim, tensor))
            self._known[id(tensor)] = weakref.ref(tensor), first
        if name == "batch_norm" and first.feed is not None:
            self.calls[id(first.feed.norms[-1].own)] += 1
        if weighted:
            used = feed.source if feed is not None else None
            if feed is not None and used is not None:
                self.uses.setdefault(used.site, []).append(feed)
            rest = [origin for origin in origins if used is None or origin.source is not used]
        elif role is not None and role.kind == "relu":
            rest = []  # the caller knows whether it is counted
        elif first.feed is None and first.source is None:
            rest = [] if name.endswith("_like") or name.startswith("new_") else origins
        else:
            rest = origins[1:]
        if rest:
            self.take(rest, f"`{name}` takes its values")
            if not outputs[0].dim():
                self.ended.update(origin.source.site for origin in rest if origin.source is not None)
        return first

    def through_layer(self, name: str, dim: int, args: tuple[Any, ...], output: Tensor) -> Origin | None:
        """Do in short what `follow` does for most layers.

        Args:
            name: As of `follow`.
            dim: The output's dimension that holds the features.
            args: The input, the weight, the bias ...
            output: As of `follow`.

        Returns:
            None where another tensor than the input is not a parameter itself, or the input is made of parameters.
        """
        for arg in args[1:]:
            if isinstance(arg, Tensor) and self.of(arg) is not _PARAMETER:
                return None
        before = self.of(args[0])
        if before.level == WEIGHTS:
            return None
        self.layers += 1
        feed, dims = self._feed_of(name, args, {}, before, args[1]), output.dim()
        if feed is not None and feed.source is not None:
            self.uses.setdefault(feed.source.site, []).append(feed)
        elif before.source is not None or before.feed is not None:
            self.take([before], f"`{name}` takes its values")
        origin = Origin(FIRST if before.level == DATA else LATER, dim % dims if dims >= -dim else None, None, feed)
        self._known[id(output)] = weakref.ref(output), origin
        return origin

    def keep(self, x: Tensor, before: Origin, output: Tensor) -> Origin | None:
        """Do in short what `follow` does for a ReLU; None where its output lies in memory in another way than x."""
        if output.shape != x.shape or output.stride() != x.stride():
            return None
        dim, dims = before.feature_dim, output.dim()
        dim = None if dim is None or not -dims <= dim < dims else dim % dims
        origin = Origin(before.level, dim, guessed=before.guessed)
        self._known[id(output)] = weakref.ref(output), origin
        return origin

    def mark(self, output: Tensor, known: Origin, source: Source) -> None:
        """Take note that a ReLU gave this output."""
        self._known[id(output)] = weakref.ref(output), Origin(known.level, known.feature_dim, known.mask, None, source)

    def _feed(self, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Feed | None:
        first = args[1:] if name == "addmm" else args
        x, weight = first[0] if first else kwargs.get("input"), first[1] if len(first) > 1 else kwargs.get("weight")
        if isinstance(x, Tensor) and isinstance(weight, Tensor):
            origin = self.of(x)
            if self.of(weight).level == WEIGHTS != origin.level:
                return self._feed_of(name, args, kwargs, origin, weight)
        self._feeds += 1
        return None

    def _feed_of(
        self, name: str, args: tuple[Any, ...], kwargs: dict[str, Any], origin: Origin, weight: Tensor
    ) -> Feed | None:
        call, self._feeds = self._feeds, self._feeds + 1
        self.calls[id(weight)] += 1
        try:
            ranged = self._ranged is None or call in self._ranged
            return feed_of(name, args, kwargs, origin.source, call, ranged)
        except Exception:  # an exotic tensor is not followed
            return None

    def _level(self, name: str, role: Role | None, origins: list[Origin]) -> int:
        if role is not None and role.kind == "weights":
            data = origins[:1] if role.feature_dim is not None else [o for o in origins if o.level != WEIGHTS]
            return FIRST if data and all(origin.level == DATA for origin in data) else LATER
        levels = [origin.level for origin in origins]
        level = max(levels)
        if name.endswith("_like") or name.startswith("new_"):
            return DATA  # a constant of the input's shape
        if level == WEIGHTS:
            return WEIGHTS
        if WEIGHTS in levels:
            return max(level, FIRST) if name in _PER_UNIT else LATER
        return LATER if level == FIRST and name in _MIXES_UNITS else level

    @staticmethod
    def _mask(name: str, args: tuple[Any, ...], origins: list[Origin]) -> Any:  # noqa: ANN401
        if name in _CASTS:
            return origins[0].mask
        if name in _COMPARES and len(origins) == 1 and len(args) == 2 and args[1] == 0:
            return weakref.ref(args[0]), name in _ABOVE
        return None

    # ---- a ReLU by its numbers

    def rectified(self, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor | None:
        """Give the x of a ReLU written out: ``maximum(x, 0)``, ``where(x > 0, x, 0)``, ``x * (x > 0)`` ..., or None."""
        if name in ("maximum", "max", "fmax", "mul") and len(args) == 2:
            if not all(isinstance(arg, Tensor) for arg in args):
                return None
            pairs = (args, args[::-1])
            tells = (a for a, b in pairs if (self._tells(b, a, True) if name == "mul" else self._is_zero(b)))
            return next(tells, None)
        if name in ("clamp", "clamp_min", "clip"):
            lower = args[1] if len(args) > 1 else kwargs.get("min")
            bounded = len(args) > 2 or kwargs.get("max") is not None
            return args[0] if isinstance(lower, Tensor) and not bounded and self._is_zero(lower) else None
        if len(args) != 3 or name not in ("where", "masked_fill", "setitem"):
            return None
        # `where(condition, x, 0)` and `x.where(condition, 0)`; the others are `(x, mask, 0)`, zero where the mask is.
        is_method = name == "where" and isinstance(args[1], Tensor) and not args[1].is_floating_point()
        condition, kept, other = args if name == "where" and not is_method else (args[1], args[0], args[2])
        above = name == "where"
        options = [(kept, other, above)] + ([(other, kept, False)] if name == "where" else [])
        return next((x for x, zero, way in options if self._tells(condition, x, way) and self._is_zero(zero)), None)

    def _tells(self, mask: object, x: object, above: bool) -> bool:
        """Whether ``mask`` is True where ``x`` is above zero, or where it is below."""
        found = self.of(mask).mask if isinstance(mask, Tensor) else None
        return found is not None and found[0]() is x and found[1] is above

    def _is_zero(self, value: object) -> bool:
        if isinstance(value, Tensor):
            return self.of(value).level == DATA and not bool((value != 0).any())
        return isinstance(value, (int, float)) and value == 0


def _kept(call: _Call, output: Tensor, dim: int | None) -> tuple[Feed | None, Source | None]:
    """What is still known, behind a function without weights, of the layer and of the ReLU before it."""
    name, args, kwargs, inputs, origins = call
    x, feed, source = inputs[0], origins[0].feed, origins[0].source
    keeps = name in _KEEPS or (name in _PARTS and _same_memory(x, output))
    pads_with = name == "pad" and (args[3] if len(args) > 3 else kwargs.get("value"))
    if pads_with or not (keeps or name in _ZERO_STAYS):
        source = None
    if feed is not None:
        if name == "batch_norm" and dim == 1:
            feed = normalized(feed, args, kwargs)
        elif not (keeps or name in _ZERO_STAYS) or dim is None or output.shape[dim] != feed.units:
            feed = None
        else:
            feed = feed._replace(pooled=feed.pooled or name in _POOLS, affine=feed.affine and keeps)
    if name in ("add", "iadd") and len(args) == len(inputs) == 2 and not kwargs and dim is not None:
        pairs = zip(origins, reversed(inputs), reversed(origins), strict=True)
        found = ((a.feed, bias) for a, bias, b in pairs if a.feed is not None and b.level == WEIGHTS)
        feed = next((biased(feed, bias, output, dim) for feed, bias in found), None)
    if source is not None and name in _RESHAPES and (joined := _joined(x, source, output)) is not None:
        source = joined
    elif source is not None:
        moved = _followed(call, x, source.dim, output)
        source = None if moved is None or output.shape[moved] != source.size else source._replace(dim=moved)
    return feed, source


def _joined(x: Tensor, source: Source, output: Tensor) -> Source | None:
    """Follow a ReLU's outputs through a view that joins dimensions next to each other into one."""
    fewer = x.dim() - output.dim()
    for first in range(source.dim, max(0, source.dim - fewer) - 1, -1):
        last = first + fewer + 1
        if output.shape == (*x.shape[:first], prod(x.shape[first:last]), *x.shape[last:]):
            outer = source.outer * prod(x.shape[first : source.dim])
            return source._replace(dim=first, outer=outer, block=source.block * prod(x.shape[source.dim + 1 : last]))
    return None


def _same_memory(a: Tensor, b: Tensor) -> bool:
    return a.untyped_storage().data_ptr() == b.untyped_storage().data_ptr()


def _tensors(values: Iterable[object]) -> list[Tensor]:
    """Every tensor in arguments, also in lists and tuples among them."""
    found: list[Tensor] = []
    for value in values:
        if isinstance(value, Tensor):
            found.append(value)
        elif isinstance(value, (list, tuple)):
            found += _tensors(value)
    return found


def _weighted_dim(role: Role, call: _Call) -> int | None:
    """Which dimension of a product holds the features: for two operands without known weights those of the second."""
    if role.feature_dim is not None:
        return role.feature_dim
    _, args, _, inputs, origins = call
    if isinstance(args[0], str):  # einsum: the dimension that only the weights have
        terms, _, result = args[0].replace(" ", "").partition("->")
        if "." not in terms:
            features = [
                term[origin.feature_dim]
                for term, origin in zip(terms.split(","), origins, strict=True)
                if origin.feature_dim is not None
            ]
            if len(features) == 1 and features[0] in result:  # not summed over
                return result.index(features[0]) - len(result)
        weights = [term for term, origin in zip(terms.split(","), origins, strict=True) if origin.level == WEIGHTS]
        others = {letter for term in terms.split(",") if term not in weights for letter in term}
        own = [result.index(letter) - len(result) for letter in "".join(weights) if letter in set(result) - others]
        return own[0] if len(own) == 1 else None
    (left, right), (a, b) = inputs[-2:], origins[-2:]
    if right.dim() > 1 and b.feature_dim == right.dim() - 1:  # not summed over: as of nodes that a graph joins
        return -1
    if a.level == WEIGHTS != b.level:
        return -1 if right.dim() == 1 or left.dim() == 1 else -2
    return -1 if b.level == WEIGHTS else None


def _is_guessed(call: _Call, role: Role | None, dim: int | None, output: Tensor) -> bool:
    """Whether the units of ``output`` lie in more dimensions than ``dim``, or theirs is gone."""
    name, _, _, inputs, origins = call
    if role is not None and role.kind == "weights":
        return role.feature_dim is None and _has_stack(call)
    if dim is not None:
        return any(origin.guessed for origin in origins)
    x, before = inputs[0], origins[0]
    is_less = before.feature_dim is not None and output.dim() < x.dim()
    gone = is_less and (name in _REDUCTIONS or (name in _CUTS and _same_memory(x, output)))
    return gone or (before.guessed and output.shape == x.shape)


def _has_stack(call: _Call) -> bool:
    """Whether a product is with a stack of weight matrices, as of experts, each with units of its own."""
    _, args, _, inputs, origins = call
    if not isinstance(args[0], str):
        weights = [x for x, origin in zip(inputs[-2:], origins[-2:], strict=True) if origin.level == WEIGHTS]
        # An expanded matrix is one.
        return any(n > 1 and step for w in weights for n, step in list(zip(w.shape, w.stride(), strict=True))[:-2])
    taken, _, result = args[0].replace(" ", "").partition("->")
    terms = taken.split(",")
    for i, (term, origin) in enumerate(zip(terms, origins, strict=True)):
        others, own = set("".join(terms[:i] + terms[i + 1 :])), set(term) - {"."}
        if origin.level == WEIGHTS and (own & others & set(result) or inputs[i].dim() > len(own)):
            return True
    return False


def _followed_any(call: _Call, output: Tensor) -> int | None:
    """Find the dimension that holds the features of any input; else where functions of this name put theirs."""
    for tensor, origin in zip(call.inputs, call.origins, strict=True):
        if origin.feature_dim is not None:
            dim = _followed(call, tensor, origin.feature_dim, output)
            if dim is not None:
                return dim
    return -1 if call.name in _FEATURES_LAST else 1 if call.name in _FEATURES_SECOND else None


def _followed(call: _Call, source: Tensor, dim: int, output: Tensor) -> int | None:
    """Find the dimension of ``output`` that holds what ``source`` holds in ``dim``."""
    name, args, kwargs, *_ = call
    size, same_length = source.shape[dim], output.dim() == source.dim()
    if output is source or (output.shape == source.shape and output.stride() == source.stride()):
        return dim
    if name in _REDUCTIONS and not same_length:
        over = kwargs.get("dim", args[1] if len(args) > 1 else None)
        gone = {d % source.dim() for d in ((over,) if isinstance(over, int) else over or range(source.dim()))}
        return None if dim in gone else dim - sum(d < dim for d in gone)
    if _same_memory(output, source):
        step, cut = source.stride(dim), output.numel() < source.numel()
        sizes = {
            j: n for j, n in enumerate(output.shape) if output.stride(j) == step and (n == size or (cut and n < size))
        }
        return max(sizes, key=sizes.__getitem__) if sizes else None
    if name in _RESHAPES:
        inner = prod(source.shape[dim + 1 :])
        places = [j for j, n in enumerate(output.shape) if n == size and prod(output.shape[j + 1 :]) == inner]
        return places[0] if places else None
    if same_length and (output.shape[dim] == size or name in _JOINS):
        return dim
    if not same_length and list(source.shape).count(size) == list(output.shape).count(size) == 1:
        return list(output.shape).index(size)
    return None
