"""Run jobs in a background thread, in order, with a bounded queue; an error of a job is raised in training."""

from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor


class BackgroundWriter:
    """Runs jobs one after the other in one thread. After a job has failed, no later job is started."""

    def __init__(self, max_pending: int) -> None:
        self.max_pending = max_pending  # unfinished jobs at which `put` waits; each holds a copy of the weights
        self.pool = ThreadPoolExecutor(1, thread_name_prefix="write behind")
        self.jobs: deque[Future[None]] = deque()
        self.broken = False

    def put(self, job: Callable[[], None]) -> None:
        """Queue a job, waiting while the queue is full. Raise the error of an earlier job, if one failed."""
        while len(self.jobs) >= self.max_pending:
            self.jobs.popleft().result()
        self.jobs.append(self.pool.submit(self._run, job))

    def failed(self) -> bool:
        """Return whether a job has failed; `finish` raises its error."""
        return any(job.done() and job.exception() is not None for job in self.jobs)

    def finish(self) -> None:
        """Wait until all jobs are done. Raise the error of a job that failed."""
        while self.jobs:
            self.jobs.popleft().result()

    def close(self) -> None:
        """Wait for all jobs and end the thread, also if a job failed."""
        self.pool.shutdown(wait=True)

    def _run(self, job: Callable[[], None]) -> None:
        if self.broken:
            return
        self.broken = True  # a checkpoint must not record a snapshot that was not written
        job()
        self.broken = False
