"""Small results and histories, made by hand."""


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
        "below_chance": accuracy < 0.25,
        "frontier": [
            {"retain_threshold": threshold, "n_features": n, "n_surviving": survivors}
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
