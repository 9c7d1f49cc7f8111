"""Progress: a bar on a terminal, or a callable of the user's."""

import sys
import time


class Bar:
    """A line on standard error that tells how far it is."""

    def __init__(self):
        self._last = 0.0

    def __call__(self, done: int, total: int, what: str) -> None:
        now = time.monotonic()
        if done < total and now - self._last < 0.1:
            return
        self._last = now
        share = done / total if total else 1.0
        filled = int(20 * share)
        sys.stderr.write(f"\r\x1b[K{what[:50]:<50} [{'#' * filled}{' ' * (20 - filled)}] {share:4.0%}")
        sys.stderr.flush()

    def close(self) -> None:
        """Leaves the line as it was."""
        if self._last:
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()


class Progress:
    """Who is told of `(done, total, what)`: `None` is a bar where standard error is a terminal, `False` nobody."""

    def __init__(self, progress):
        if progress is None or progress is True:
            self.call = Bar() if sys.stderr is not None and sys.stderr.isatty() else None
        elif progress is False:
            self.call = None
        elif callable(progress):
            self.call = progress
        else:
            raise TypeError(f"progress: expected None, a bool or a callable, found {type(progress).__name__}")

    def __enter__(self):
        return self.call

    def __exit__(self, *_):
        if isinstance(self.call, Bar):
            self.call.close()
