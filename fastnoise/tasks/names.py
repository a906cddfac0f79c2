"""Tasks by name, without importing any: a task is its file and a line here."""

TASKS: dict[str, str] = {
    "classification": "fastnoise.tasks.classification:Classification",
}
"""Name -> MODULE:NAME of a subclass of `fastnoise.tasks.Task`."""
