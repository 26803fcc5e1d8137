"""A recipe that is read and never run."""


def avhrr_only(target, mode="complete", prune=False):
    """Daily sea surface temperature."""


recipes = {"avhrr-only": avhrr_only}
