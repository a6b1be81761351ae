"""Where to compute."""

import torch

from aural.errors import UsageError


def choose_device(name: str = "auto") -> torch.device:
    """ "auto" is cuda, else mps, else cpu; any other name is taken at its word.

    Raises:
        UsageError: there is no such device here.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "mps" if torch.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        why = str(error).splitlines()[0]
        raise UsageError(f"no device {name!r} here ({why}); --device auto takes the fastest there is") from error
    return device
