"""The one exception that means "the user can fix this": bad path, bad file, bad flag."""


class InputError(ValueError):
    """A user's mistake, said in one line that names the thing and the remedy.

    Commands print it as ``error: ...`` and exit with code 2, without a stack trace (see ``glot.cli.run``).
    """
