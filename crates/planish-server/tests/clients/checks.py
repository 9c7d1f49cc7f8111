"""What the checks of all clients share."""

import inspect
import traceback

PROMPT = "Once upon a time"


def same(found, expected, what=""):
    assert found == expected, f"{what}\nfound    {found!r}\nexpected {expected!r}"


def refuses(error, call, *words):
    """The client raises just this error, and its text has these words."""
    try:
        call()
    except error as raised:
        assert type(raised) is error, f"{type(raised)} is not {error}"
        for word in words:
            assert word in str(raised), f"{word!r} is not in {raised}"
        return raised
    raise AssertionError(f"{words} was not refused")


def run(module, *arguments):
    """Runs the checks of a module, tells of each, and returns the names of those that failed."""
    failed = []
    for name, check in inspect.getmembers(module, inspect.isfunction):
        if not name.startswith("check_"):
            continue
        place = f"{module.__name__}.{name}"
        try:
            check(*arguments)
            print(f"ok      {place}", flush=True)
        except Exception:
            traceback.print_exc()
            print(f"FAILED  {place}", flush=True)
            failed.append(place)
    return failed
