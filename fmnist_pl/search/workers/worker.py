"""``python -m fmnist_pl.search.workers.worker``: trains the trials that arrive on standard input, one after the other.

One process trains many trials, because a process of its own for each would spend 5 s on imports, as long as some
trials take on a GPU. What keeps them apart: a run's randomness comes from its own seeds and batch numbers, its
configuration from its own file, and every trial builds its model, data and trainer anew; a test holds two trainings of
one configuration in one worker to identical figures. After an exception that nobody foresaw the process ends, and the
next trial gets a new one. It opens no study: the search alone writes there, so that a worker that is killed, or
outlives its search, can neither spoil nor repeat a result.
"""

import ctypes
import os
import signal
import sys
from collections.abc import Mapping
from typing import IO, Any

from fmnist_pl.search.workers.job import EPOCH, ERROR, TrialJob, decode_job, encode
from training_health.errors import UserError

_PR_SET_PDEATHSIG = 1


class Conversation:
    """Answers the search.

    Args:
        hears: Lines from the search.
        says: Lines to it.
    """

    def __init__(self, hears: IO[bytes], says: IO[bytes]) -> None:
        self.hears, self.says = hears, says

    def say(self, message: Mapping[str, Any]) -> None:
        """Send one message."""
        self.says.write(encode(message))
        self.says.flush()

    def is_hopeless(self, epoch: int, accuracy: float) -> bool:
        """Report an epoch; whether the search says to stop. Where nobody answers, the search has ended: stop too."""
        import json

        self.say({"kind": EPOCH, "epoch": epoch, "accuracy": accuracy})
        answer = self.hears.readline()
        if not answer:
            raise SystemExit(1)
        return bool(json.loads(answer)["prune"])


def main() -> None:
    """Train until standard input ends."""
    end_with_parent()
    says = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # whatever prints, prints into the log
    conversation = Conversation(sys.stdin.buffer, says)
    for line in sys.stdin.buffer:
        job = decode_job(line)
        print(f"trial {job.number}", flush=True)
        conversation.say(outcome(job, conversation))


def outcome(job: TrialJob, conversation: Conversation) -> dict[str, Any]:
    """Train one trial.

    Returns:
        The message that ends it.
    """
    from fmnist_pl.search.workers.trial_run import (
        run_trial,  # torch takes seconds; a worker that is to end need not wait
    )

    try:
        return run_trial(job, conversation.is_hopeless)
    except UserError as error:
        return {"kind": ERROR, "reason": str(error), "mendable": True}
    except (Exception, SystemExit) as error:
        if isinstance(error, SystemExit) and error.code != 2:
            raise  # told to stop
        import traceback

        traceback.print_exc()
        refused = isinstance(error, SystemExit)
        reason = "fmnist fit refuses its options" if refused else f"{type(error).__name__}: {error}"
        conversation.say({"kind": ERROR, "reason": " ".join(reason.split())[:300], "mendable": refused})
        raise SystemExit(1) from None


def end_with_parent() -> None:
    """Have Linux kill this process when the search ends, however that happens; elsewhere it ends after its epoch."""
    if sys.platform == "linux":
        parent = os.getppid()
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    main()
