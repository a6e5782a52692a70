"""The one exception that means "the user can fix this": bad path, bad file, bad flag."""


class InputError(ValueError):
    """A user's mistake. The message names what is wrong and the remedy, in one line.

    Commands print it as ``error: ...`` and exit with code 2, without a stack trace (see ``glot.cli.run``).
    """
