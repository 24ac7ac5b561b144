"""Every input that a user gives, and ways in which it can be wrong; docs/bad_input.md shows what is said."""

from artefact_cases import DASHBOARDS, FOLDERS, FORGET_EDITS, SAES, STUDIES
from run_cases import CONFIGURATIONS, CORPORA, QUESTIONS, SPECIFICATIONS

CASES = [*CONFIGURATIONS, *CORPORA, *QUESTIONS, *SPECIFICATIONS, *SAES, *FOLDERS, *STUDIES, *FORGET_EDITS, *DASHBOARDS]

ONCE = {
    ("configuration", "a date that is none"): "a traceback",
    ("configuration", "nested 2,000 deep"): "a traceback",
    ("corpus", "half a surrogate pair"): "a traceback",
    ("questions", "nested 100,000 deep"): "a traceback",
    ("questions", "a number of 5,000 digits"): "a traceback",
    ("SAE", "weights that are integers"): "accepted",
    ("SAE", "more reserved features than features"): "accepted",
    ("output folder", "below a file"): "a traceback",
    ("output folder", "a cache that is a file"): "accepted",
    ("results", "an accuracy of 7"): "accepted",
    ("results", "a number that is text"): "accepted",
    ("results", "a name that speaks to the terminal"): "accepted",
    ("results", "a name of a million characters"): "no end",
    ("results", "a history with text in it"): "accepted",
    ("study", "a setting whose name leaves the folder"): "accepted",
}
"""What these inputs came to when they were first tried."""
