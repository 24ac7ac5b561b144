"""What is trained here is read with SAELens alone."""

import json
import subprocess
import sys

import torch
import yaml
from sae_lens import SAE
from safetensors.torch import save_file

from sae_lens_contrastive.training import resolve_runs, train_runs

READER = """
import sys

class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "sae_lens_contrastive":
            raise ModuleNotFoundError(name)

sys.meta_path.insert(0, Blocked())
import torch
from sae_lens import SAE
from safetensors.torch import load_file

for folder in sys.argv[1:]:
    expected = load_file(f"{folder}/expected.safetensors")
    sae = SAE.load_from_disk(f"{folder}/sae")
    print(sae.cfg.architecture(), sae.cfg.metadata.hook_name)
    torch.testing.assert_close(sae.encode(expected["x"]), expected["feature_acts"])
    torch.testing.assert_close(sae(expected["x"]), expected["sae_out"])
assert "sae_lens_contrastive" not in sys.modules
"""


def test_trained_saes_load_where_the_package_is_absent(work, tiny):
    variants = {
        "with_terms": {
            "loss_terms": {
                "supervised_contrastive": {"coefficient": 0.1},
                "group_contrastive": {"coefficient": 0.1},
                "forget_margin": {"coefficient": 0.1, "n_features": 4},
            },
            "grouping": {"every_n_steps": 2, "percentile": 75},
        },
        "standard": {"architecture": "standard", "l1_coefficient": 0.1},
    }
    for name, sae in variants.items():
        (work / f"{name}.yaml").write_text(yaml.safe_dump({"sae": sae}))
    target = yaml.safe_load((work / "target.yaml").read_text())
    target["architectures"] = {"topk": {"k": target["sae"].pop("k")}}
    (work / "target.yaml").write_text(yaml.safe_dump(target))
    runs = resolve_runs(work / "target.yaml", [work / f"{name}.yaml" for name in variants])
    folders = train_runs(runs, work / "out", tiny)
    x = 10 * torch.randn(6, 32, generator=torch.Generator().manual_seed(0))
    for folder in folders:
        sae = SAE.load_from_disk(folder / "sae")
        with torch.no_grad():
            tensors = {"x": x, "feature_acts": sae.encode(x).contiguous(), "sae_out": sae(x).contiguous()}
        assert tensors["feature_acts"].count_nonzero() > 0
        save_file(tensors, folder / "expected.safetensors")
        config = json.loads((folder / "sae" / "cfg.json").read_text())
        assert not {"loss_terms", "grouping"} & config.keys()
    done = subprocess.run([sys.executable, "-c", READER, *map(str, folders)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    hook = "blocks.19.hook_resid_post"
    assert done.stdout.splitlines()[-2:] == [f"topk {hook}", f"standard {hook}"]
