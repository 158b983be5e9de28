"""What the tests in Python count, and their closing line."""

passed = failed = skipped = 0


def expect(ok, what, shows_all=False):
    """Count a check; say what failed, or what passed too."""
    global passed, failed
    passed, failed = passed + bool(ok), failed + (not ok)
    if shows_all or not ok:
        print(("ok      " if ok else "FAILED  ") + what, flush=True)


def skip(why):
    """Count something that cannot be checked here."""
    global skipped
    skipped += 1
    print("skipped: " + why)


def end():
    """Print "N passed, N failed"; the exit status."""
    print(f"{passed} passed, {failed} failed" + (f", {skipped} skipped" if skipped else ""))
    return failed > 0
