"""Has trials trained: the supervisor hands them out, each worker process trains one after the other."""
