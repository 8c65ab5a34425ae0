"""The one kind of error that is the user's to mend."""


class InputError(ValueError):
    """Something the user gave cannot be used: a key, a file, a folder, a device.

    The message has one line for each thing that is wrong: what it was, what is allowed, what to do.
    """
