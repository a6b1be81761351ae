"""The errors a user can mend: each message is one line that says what is wrong and what to do about it."""


class AuralError(Exception):
    """Something the user can mend. The command line prints the message alone, without a traceback."""


class UsageError(AuralError):
    """A wrong call: unknown model, bad option, nothing to do. The command line exits with status 2."""


class AudioError(AuralError):
    """A sound that cannot be read: missing, empty, damaged, or not audio at all."""


class CheckpointError(UsageError):
    """A model folder or weights file that does not fit: unknown config keys, missing or unexpected tensors."""


class ManifestError(UsageError):
    """A manifest line that cannot be used; the message begins with ``file:line``."""
