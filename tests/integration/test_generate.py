"""What an evaluation chose is put on the model by a command."""

import json

from sae_lens_contrastive.cli import main
from sae_lens_contrastive.forget_edit import load_forget_edit

GENERATE = ["generate", "--sae", "trained/plain/sae", "--edit", "out/forget_edits/plain.json", "--max-new-tokens", "4"]


def test_the_chosen_edit_is_written_and_applied(evaluated, capsys):
    (result,) = json.loads((evaluated / "out/results.json").read_text())
    edit = load_forget_edit(evaluated / "out/forget_edits/plain.json")
    assert edit.features == result["features"]
    assert (edit.intervention, edit.intervention_options) == ("clamp", result["setting"]["intervention_options"])
    assert (edit.model, edit.forget_domain) == ("tiny-random-gemma-2", "countries")
    capsys.readouterr()
    assert main([*GENERATE, "--prompt", "The capital of Peru is", "--prompt", "Iron is a", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert [each["prompt"] for each in said] == ["The capital of Peru is", "Iron is a"]
    assert all(each["changed"] or each["edited"] == each["unedited"] for each in said)
    assert any(each["edited"] != each["unedited"] for each in said)


def test_it_is_printed_for_people_too(evaluated, capsys):
    capsys.readouterr()
    assert main([*GENERATE, "--prompt", "The capital of Peru is"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "> The capital of Peru is"
    assert [line.split(":")[0] for line in lines if line.startswith(("unedited", "edited"))] == ["unedited", "edited"]


def test_a_chat_is_put_as_a_turn(evaluated, capsys):
    said = []
    for options in ([], ["--chat"]):
        capsys.readouterr()
        assert main([*GENERATE, "--prompt", "Hello", "--json", *options]) == 0
        said += json.loads(capsys.readouterr().out)
    assert said[0]["unedited"] != said[1]["unedited"]
