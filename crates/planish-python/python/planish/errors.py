"""What planish raises beside Python's own errors."""


class PlanishError(Exception):
    """What went wrong in planish. Where one of Python's errors says it, that one is raised: `FileNotFoundError`, `ValueError`,
    `TypeError`, `OSError`, `MemoryError`."""


class UnsupportedError(PlanishError, NotImplementedError):
    """A valid file or request that planish does not handle: an architecture, a tokenizer, a type, a device."""


class HubError(PlanishError, OSError):
    """A model that cannot be had from the Hub."""
