"""What the commands do that take one SAE: let the model speak, run tasks, show features."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from typing import Any

from sae_lens_contrastive.cli.edits import model_of, one_sae, sae_and_edit, sae_name
from sae_lens_contrastive.errors import UserError
from sae_lens_contrastive.files import usable_folder, write_json


def generate(options: argparse.Namespace) -> Any:
    """Let a model speak with a forget edit and without."""
    from sae_lens_contrastive.forget_edit import side_by_side

    if options.max_new_tokens < 1:
        raise UserError(f"--max-new-tokens is {options.max_new_tokens}. Give 1 or more.")
    sae, edit = sae_and_edit(options)
    model = model_of(edit.model, options)
    said = []
    how = {"max_new_tokens": options.max_new_tokens, "chat": options.chat}
    for each in side_by_side(model, sae, edit, options.prompt, **how):
        edited = each.edited if each.changed else "the same: no token was changed"
        print(f"> {each.prompt}\nunedited: {each.unedited.strip()}\nedited:   {edited.strip()}\n", flush=True)
        said.append(asdict(each))
    return said


def harness(options: argparse.Namespace) -> Any:
    """Run tasks of the lm-evaluation-harness."""
    from sae_lens_contrastive.forget_edit import apply_forget_edit
    from sae_lens_contrastive.harness import EditedLM, check_tasks, evaluate_tasks, side_by_side_table

    for name, least in (("limit", 1), ("num_fewshot", 0), ("batch_size", 1)):
        if (value := getattr(options, name)) is not None and value < least:
            raise UserError(f"--{name.replace('_', '-')} is {value}. Give {least} or more.")
    manager = check_tasks(options.tasks, options.include_path)
    if options.out is not None:
        usable_folder(options.out, "--out")
    sae, edit = sae_and_edit(options)
    model = model_of(edit.model, options)
    how = {"manager": manager, "limit": options.limit, "n_shots": options.num_fewshot}
    found = {"unedited": evaluate_tasks(EditedLM(model, batch_size=options.batch_size), options.tasks, **how)}
    with apply_forget_edit(model, sae, edit) as applied:
        lm = EditedLM(model, applied, batch_size=options.batch_size)
        found["edited"] = evaluate_tasks(lm, options.tasks, **how)
    if options.out is not None:
        write_json(options.out / "harness.json", found)
    print(side_by_side_table(found))
    return found


def dashboard(options: argparse.Namespace) -> Any:
    """Show features as SAEDashboard and Neuronpedia do."""
    from sae_lens_contrastive.dashboard import (
        check_features,
        check_texts,
        export_dashboards,
        read_text,
        texts_of_training,
    )
    from sae_lens_contrastive.models import check_hook

    if options.features is None:
        sae, edit = sae_and_edit(options)
        features, named, model_name, hook_name = edit.features, "edit", edit.model, edit.hook_name
    elif options.edit is not None:
        raise UserError("Give --edit for the features of an edit, or --features for others.")
    else:
        sae = one_sae(options)
        metadata = sae.cfg.metadata
        features, named, model_name, hook_name = options.features, "SAE", metadata.model_name, str(metadata.hook_name)
    check_features(sae, features)
    texts = {"given": options.text} if options.text else texts_of_training(options.sae)
    check_texts(texts, options.max_tokens)
    usable_folder(options.out, "--out")
    model = model_of(model_name, options, named)
    check_hook(model, hook_name, sae.cfg.d_in)
    text = read_text(model, hook_name, texts, max_tokens=options.max_tokens)
    name = options.sae_id if options.sae is None else sae_name(options.sae)
    index = export_dashboards(model, sae, features, text, options.out, name=name)
    print(index)
    return {"index": index, "features": features}
