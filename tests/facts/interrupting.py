"""Ctrl-C at a known place."""


def interrupt_after(monkeypatch, owner, calls):
    """A KeyboardInterrupt in place of the next call of `owner.advance` after so many."""
    advance, left = owner.advance, [calls]

    def interrupted(*arguments):
        left[0] -= 1
        if left[0] < 0:
            raise KeyboardInterrupt
        return advance(*arguments)

    monkeypatch.setattr(owner, "advance", interrupted)
