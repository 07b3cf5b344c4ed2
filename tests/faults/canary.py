"""What hostile files try to reach: importing this module, or calling `touch`, is an execution."""

from pathlib import Path


def touch(*arguments: object, **options: object) -> None:
    """Leaves a mark where the watcher looks."""
    Path("canary-was-called").write_text("")
