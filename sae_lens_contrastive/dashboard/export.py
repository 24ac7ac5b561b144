"""SAEDashboard's pages and Neuronpedia's JSON of chosen features."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import asdict
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from sae_lens_contrastive.dashboard.adapters import ModelThatHasRead, WholeEncoder, vocabulary_texts
from sae_lens_contrastive.dashboard.pages import IndexRow, harmless, index_page
from sae_lens_contrastive.dashboard.text_at_hook import TextAtHook
from sae_lens_contrastive.errors import UserError
from sae_lens_contrastive.files import write_bytes_atomic, write_json
from sae_lens_contrastive.interventions import check_editable, feature_acts, tokens_at_once
from sae_lens_contrastive.report.page.text import visible
from sae_lens_contrastive.saes.stock import fold_decoder_norms

INDEX_FILE = "index.html"
NEURONPEDIA_FOLDER = "neuronpedia"

try:
    # As objects of any type: the package's own annotations are of another TransformerLens.
    _vis_data: Any = import_module("sae_dashboard.sae_vis_data")
    _vis_runner: Any = import_module("sae_dashboard.sae_vis_runner")
    _layout: Any = import_module("sae_dashboard.layout")
    _components: Any = import_module("sae_dashboard.components_config")
    _writing: Any = import_module("sae_dashboard.data_writing_fns")
    _converter: Any = import_module("sae_dashboard.neuronpedia.neuronpedia_converter")
    _np_config: Any = import_module("sae_dashboard.neuronpedia.neuronpedia_runner_config")
except ImportError as error:
    raise UserError(
        "SAEDashboard is not installed. Install it with pip install 'sae-lens-contrastive[dashboard]' && "
        "pip install --no-deps sae-dashboard==0.8.0."
    ) from error


def export_dashboards(model: Any, sae: Any, features: Sequence[int], text: TextAtHook, out: Path, *, name: str) -> Path:
    """Write `index.html`, a page for each feature and Neuronpedia's JSON into a folder; return the index.

    `feature_<number>.html` is SAEDashboard's feature-centric page, in which no token can be markup;
    `neuronpedia/batch-0.json` holds all features in the format of Neuronpedia's uploads, with its settings beside it.
    `name` stands for the SAE; norms of its decoder rows are folded into the encoder, in place, where that changes no
    reconstruction, as in an evaluation. Raises `UserError` for an SAE that does not decode residual-stream tokens one
    by one and for a feature that it lacks.
    """
    check_features(sae, features)
    sae = fold_decoder_norms(sae)
    labels = vocabulary_texts(model.tokenizer, int(model.cfg.d_vocab))
    reader = ModelThatHasRead(model, text, [visible(label) for label in labels])
    special = set(model.tokenizer.all_special_ids)

    def drawn(layout: Any) -> Any:
        cfg = _vis_data.SaeVisConfig(
            hook_point=text.hook_name,
            features=list(features),
            minibatch_size_tokens=max(1, tokens_at_once(sae, 4096) // text.tokens.shape[1]),
            device=str(sae.W_dec.device),
            ignore_tokens=special,
            ignore_positions=[0],
            feature_centric_layout=layout,
        )
        with warnings.catch_warnings():
            # Of the library that it indexes with.
            warnings.filterwarnings("ignore", message="Using a non-tuple sequence for multidimensional indexing")
            return _vis_runner.SaeVisRunner(cfg).run(encoder=WholeEncoder(sae), model=reader, tokens=text.tokens)

    _write_neuronpedia(drawn, reader, labels, text, out / NEURONPEDIA_FOLDER, name)
    _write_pages(drawn(_layout.SaeVisLayoutConfig.default_feature_centric_layout()), features, out)
    index = index_page(name, model.cfg.model_name, text.hook_name, text.sources, _rows(sae, features, text))
    return write_bytes_atomic(out / INDEX_FILE, index.encode())


def check_features(sae: Any, features: Sequence[int]) -> None:
    """Raise `UserError` for an SAE that does not decode residual-stream tokens one by one, or lacks a feature."""
    check_editable(sae)
    d_sae = int(sae.cfg.d_sae)
    if not features or len(set(features)) < len(features):
        raise UserError(f"The features are {list(features)}. Give one or more, each once.")
    for feature in features:
        if not 0 <= feature < d_sae:
            raise UserError(f"The SAE has no feature {feature}. Its features are 0 to {d_sae - 1}.")


def _write_pages(vis: Any, features: Sequence[int], out: Path) -> None:
    with TemporaryDirectory() as temporary:
        for feature in features:
            written = Path(temporary) / "page.html"
            _writing.save_feature_centric_vis(vis, written, feature_idx=feature, include_only=[feature])
            write_bytes_atomic(out / _page_of(feature), harmless(written.read_text(encoding="utf-8")).encode())


def _write_neuronpedia(
    drawn: Any, reader: ModelThatHasRead, labels: Sequence[str], text: TextAtHook, out: Path, name: str
) -> None:
    n_contexts, context_size = text.tokens.shape
    cfg = _np_config.NeuronpediaRunnerConfig(
        sae_set=name,
        sae_path=name,
        outputs_dir=NEURONPEDIA_FOLDER,
        from_local_sae=True,
        huggingface_dataset_path=", ".join(source for sources in text.sources.values() for source in sources),
        n_prompts_total=n_contexts,
        n_tokens_in_prompt=context_size,
        model_id=str(reader.cfg.model_name).rsplit("/", 1)[-1],
        layer=int(text.hook_name.split(".")[1]),
        ignore_positions=[0],
    )
    # As Neuronpedia's own runner lays a feature out: whole contexts, fewer intervals.
    sequences = _components.SequencesConfig(
        buffer=None,
        n_quantiles=cfg.n_quantiles,
        top_acts_group_size=cfg.top_acts_group_size,
        quantile_group_size=cfg.quantile_group_size,
    )
    parts = (
        sequences,
        _components.ActsHistogramConfig(),
        _components.LogitsHistogramConfig(),
        _components.LogitsTableConfig(),
        _components.FeatureTablesConfig(),
    )
    vis = drawn(_layout.SaeVisLayoutConfig(columns=[_components.Column(*parts)]))
    convert = _converter.NeuronpediaConverter.convert_to_np_json
    batch = convert(reader, vis, cfg, dict(enumerate(labels)))
    write_bytes_atomic(out / "batch-0.json", batch.encode())
    write_json(out / "run_settings.json", asdict(cfg))


def _rows(sae: Any, features: Sequence[int], text: TextAtHook) -> list[IndexRow]:
    with torch.no_grad():
        acts = [feature_acts(sae, residual, features) for residual in text.of_text().values()]
    rates = torch.stack([(of_text > 0).float().mean(0) for of_text in acts])
    highest = torch.cat(acts).amax(0)
    return [
        IndexRow(feature, _page_of(feature), rates[:, place].tolist(), float(highest[place]))
        for place, feature in enumerate(features)
    ]


def _page_of(feature: int) -> str:
    return f"feature_{feature}.html"
