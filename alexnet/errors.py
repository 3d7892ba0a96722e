"""The two ways in which a command ends badly, told apart by who can mend it."""


class UserError(Exception):
    """A mistake the person can mend: a path, a key, a value, a data set. Exit code 2.

    The message is one or two sentences that name the thing and the remedy; it is shown without a traceback.
    """

    is_told_elsewhere = False
    """Another process of the same training prints it."""


class RunError(Exception):
    """A run that failed although it was asked for correctly: a full disk, a loss that is not finite. Exit code 1."""

    is_told_elsewhere = False
    """Another process of the same training prints it."""


class DivergedError(RunError):
    """A training whose weights are past mending: its loss, or what the network says of images, is not finite."""
