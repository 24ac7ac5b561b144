"""Small results and histories, made by hand."""

from sae_lens_contrastive.report.results import SavedRun
from sae_lens_contrastive.report.tracker_records import TrackerRecords


def row(variant, score, forgetting, *, seed=0, cause=None, accuracy=None, **changes):
    accuracy = 1 - 0.75 * forgetting if accuracy is None else accuracy
    return {
        "variant": variant,
        "seed": seed,
        "forget_domain": "countries",
        "unlearning_score": score,
        "held_out": {
            "forget_accuracy": accuracy,
            "chance": 0.25,
            "forgetting": forgetting,
            "retain_accuracy": 0.995,
            "ci95": [max(0.0, accuracy - 0.1), min(1.0, accuracy + 0.08)],
        },
        "cause_of_zero": cause,
        "retain_gate": 0.99,
        "n_settings_passing": 2,
        "below_chance": accuracy < 0.25,
        "frontier": [
            {
                "selector": "firing_rate",
                "selector_options": {"retain_threshold": threshold},
                "n_features": n,
                "intervention": "clamp",
                "intervention_options": {"multiplier": 50},
                "n_surviving": survivors,
                "n_selected": min(n, survivors),
                "forget_accuracy": accuracy,
                "retain_accuracy": 0.98 + n / 1000,
            }
            for threshold, survivors in ((0.001, 3), (0.01, 41))
            for n in (10, 20)
        ],
        **changes,
    }


def history(n=20, *, scale=1.0, threshold=None, terms=()):
    records = []
    for i in range(n):
        loss = scale * (5 / (i + 1) + 0.4)
        record = {
            "step": 5 * (i + 1),
            "overall_loss": loss,
            "mse_loss": 0.9 * loss,
            "auxiliary_reconstruction_loss": 0.0,
        }
        record |= dict.fromkeys(terms, 0.05 * loss)
        if threshold is not None and i >= n // 2:
            record |= {"correlation_threshold": threshold, "n_groups": 7.0}
        records.append(record)
    return records


def grouping(n=4, *, threshold=0.2, n_groups=3, sizes=(6, 3, 2), n_grouped=12):
    changes = {"n_kept": 2, "n_split": 1, "n_merged": 0, "n_born": 1, "n_died": 4, "n_moved": 5}
    return [
        {
            "step": 100 * (i + 1) - 1,
            "method": "agglomerative",
            "threshold": threshold,
            "n_groups": n_groups,
            "largest_group": max(sizes, default=0),
            "n_grouped": n_grouped,
            "n_fired": 50,
            **{"p50": 0.02, "p75": 0.05, "p85": 0.1, "p95": 0.2, "p99": 0.5},
            "clusters": {**changes, "adjusted_rand_index": 0.1 * i} if i else None,
            "sizes": list(sizes),
        }
        for i in range(n)
    ]


def importance(n=4, *, n_below_threshold=30, scale=1.0):
    quantiles = {"p10": 0.0, "p25": 0.001, "p50": 0.01, "p75": 0.05, "p90": 0.1, "p99": 0.6}
    return [
        {
            "step": 50 * (i + 1) - 1,
            "quantiles": {name: scale * value for name, value in quantiles.items()},
            "top_features": list(range(10)),
            "top_importance": [0.9] * 10,
            "n_below_threshold": n_below_threshold,
        }
        for i in range(n)
    ]


def stability(n=4, *, mean=0.9, adjusted_rand_index=0.5):
    return [
        {
            "step": 100 * (i + 1) - 1,
            "decoder_cosine_mean": mean,
            "decoder_cosine_p5": 0.6,
            "adjusted_rand_index": adjusted_rand_index,
            "importance_spearman": None,
        }
        for i in range(n)
    ]


PRUNING = [{"step": 49, "n_pruned": 0, "n_newly_pruned": 0}, {"step": 99, "n_pruned": 8, "n_newly_pruned": 8}]
REINITIALISATION = [
    {"step": 99, "n_reinitialised": 0, "n_alive_again": 0},
    {"step": 199, "n_reinitialised": 8, "n_alive_again": 0},
    {"step": 299, "n_reinitialised": 2, "n_alive_again": 5},
]
CURRICULUM = [
    {"step": 0, "stage": "reconstruct", "forget_share": 0.5},
    {"step": 15, "stage": "differentiate", "forget_share": 0.65},
    {"step": 50, "stage": "unlearn", "forget_share": 1.0},
]
RELEARNING = {"unedited_accuracy": 1.0, "steps": [0, 1, 2], "accuracy": [0.2, 0.3, 0.8], "loss": [3.0, 2.0, 1.0]}


def run(variant, seed=0, setting="", *, records=None, **trackers):
    """A run as `load_results` gives it."""
    records = history() if records is None else records
    return SavedRun(variant, seed, setting, records, TrackerRecords.model_validate(trackers))


def examples(variant, seed=0, *, features_from="edit", questions=True, token=" Nairobi"):
    """What an evaluation saves to look at, as in `EvaluationExamples`."""
    snippet = {"corpus": "forget", "tokens": ["the", " city", token], "activations": [0.0, 1.5, 6.0]}
    question = {
        "side": "forget",
        "domain": "countries",
        "stem": "The capital of Kenya is",
        "options": ["Lima", "Nairobi"],
        "answer_index": 1,
        "before": [0.125, 0.875],
        "after": [0.75, 0.25],
    }
    return {
        "variant": variant,
        "seed": seed,
        "forget_domain": "countries",
        "features_from": features_from,
        "features": [{"feature": 517, "forget_rate": 0.25, "retain_rate": 0.0125, "snippets": [snippet]}],
        "questions": [question] if questions else [],
    }
