"""Names of the checkpoints in a run's folder."""

BEST, LAST, PREVIOUS = "best.ckpt", "last.ckpt", "previous.ckpt"
RESUMABLE = (LAST, PREVIOUS)  # what a run resumes from, in this order
