"""Work done in a thread beside training, in order, with a bounded queue; a failure reaches training."""

from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor


class BackgroundWriter:
    """Runs jobs one after the other in one thread. After a job has failed none of those behind it is begun."""

    def __init__(self, max_pending: int) -> None:
        self.max_pending = max_pending  # jobs given and not done before `put` waits: each holds a copy of the weights
        self.pool = ThreadPoolExecutor(1, thread_name_prefix="write behind")
        self.jobs: deque[Future[None]] = deque()
        self.broken = False

    def put(self, job: Callable[[], None]) -> None:
        """Queue a job; waits while the queue is full. Raises what an earlier job raised."""
        while len(self.jobs) >= self.max_pending:
            self.jobs.popleft().result()
        self.jobs.append(self.pool.submit(self._run, job))

    def failed(self) -> bool:
        """Whether a job has failed; `finish` raises its error."""
        return any(job.done() and job.exception() is not None for job in self.jobs)

    def finish(self) -> None:
        """Wait until all jobs are done. Raises what one of them raised."""
        while self.jobs:
            self.jobs.popleft().result()

    def close(self) -> None:
        """Wait for all jobs and end the thread, whatever became of them."""
        self.pool.shutdown(wait=True)

    def _run(self, job: Callable[[], None]) -> None:
        if self.broken:
            return
        self.broken = True  # a checkpoint behind a snapshot that failed must not claim it
        job()
        self.broken = False
