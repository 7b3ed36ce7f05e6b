"""A profiler that measures nothing and costs nothing."""

import contextlib

from pytorch_lightning.profilers import PassThroughProfiler


class NoProfiler(PassThroughProfiler):
    """Lightning's own default makes a new context 54 times per training step: 0.1 ms, 1 % of the step on a CPU."""

    _nothing = contextlib.nullcontext()

    def profile(self, action_name: str) -> contextlib.AbstractContextManager[None]:  # type: ignore[override]
        """One context for every action."""
        return self._nothing
