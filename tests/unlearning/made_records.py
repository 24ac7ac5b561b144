"""Questions as the records of a question file."""


def native_record(question):
    """The record of a question in the native format."""
    names = ("id", "domain", "relation", "entity", "stems", "answer", "distractors", "split")
    return {name: getattr(question, name) for name in names}
