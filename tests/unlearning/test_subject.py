import pytest
import torch
from evaluating import evaluate
from sae_lens.saes.gated_sae import GatedSAE, GatedSAEConfig
from sae_lens.saes.jumprelu_sae import JumpReLUSAE, JumpReLUSAEConfig
from sae_lens.saes.standard_sae import StandardSAE, StandardSAEConfig
from sae_lens.saes.topk_sae import TopKSAE, TopKSAEConfig

from sae_lens_contrastive.errors import UserError
from sae_lens_contrastive.unlearning import evaluate as evaluate_module
from sae_lens_contrastive.unlearning import evaluate_saes
from sae_lens_contrastive.unlearning.subject import SaeUnderTest, load_sae, reserved_features

HOOK = "blocks.19.hook_resid_post"
SAVED = {
    "standard": (StandardSAE, StandardSAEConfig),
    "topk": (TopKSAE, TopKSAEConfig),
    "jumprelu": (JumpReLUSAE, JumpReLUSAEConfig),
    "gated": (GatedSAE, GatedSAEConfig),
}


def test_names_that_are_no_file_names_are_refused(spec, under_test, planted):
    for name in ("../x", "a/b", "", "results"):
        with pytest.raises(UserError, match="cannot name an SAE"):
            evaluate_saes(spec, {name: under_test(planted)}, None)
    with pytest.raises(UserError, match="no SAE to evaluate"):
        evaluate_saes(spec, {}, None)


@pytest.mark.parametrize("architecture", SAVED)
def test_saes_of_every_architecture_are_evaluated_as_saelens_saves_them(tiny, make_spec, tmp_path, files, architecture):
    sae_class, config_class = SAVED[architecture]
    torch.manual_seed(0)
    options = {"k": 3} if "topk" in architecture else {}
    sae = sae_class(config_class(d_in=32, d_sae=16, **options))
    sae.cfg.metadata.hook_name = HOOK
    with torch.no_grad():
        for weight in sae.parameters():
            weight.copy_(torch.randn_like(weight))
    sae.save_model(tmp_path / "sae")
    spec = make_spec(selectors={"mutual_information": {"retain_threshold": 1.0}}, n_features=[4])
    result = evaluate(spec, SaeUnderTest(variant="v", path=tmp_path / "sae"), tiny)
    assert min(s.forget_accuracy for s in result.frontier) < 1
    assert result.cause_of_zero in {None, "retain_gate"}


def test_decoder_norms_are_folded_so_that_a_multiplier_means_the_same(tiny, spec, planted, under_test):
    unit = evaluate(spec, under_test(planted, "unit"), tiny)
    with torch.no_grad():
        planted.W_dec *= 4
        planted.W_enc /= 4
        planted.b_enc /= 4
    scaled = evaluate(spec, under_test(planted, "scaled"), tiny)
    assert scaled.frontier == unit.frontier
    assert unit.unlearning_score > 0


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda sae, folder: (folder / "cfg.json").unlink(), "no cfg.json"),
        (lambda sae, folder: (folder / "cfg.json").write_text("{"), "not a loadable SAE"),
        (lambda sae, folder: (folder / "sae_weights.safetensors").write_bytes(b"x" * 40), "not a loadable SAE"),
        (lambda sae, folder: (folder / "sae_weights.safetensors").unlink(), "not a loadable SAE"),
        (lambda sae, folder: _resave(sae, folder, nan=True), "W_dec has values that are not finite"),
        (lambda sae, folder: _resave(sae, folder, hook_name=None), "names no hook"),
        (lambda sae, folder: _resave(sae, folder, normalize="layer_norm"), "normalize_activations 'layer_norm'"),
    ],
)
def test_unusable_saes_are_refused_before_the_model_loads(spec, planted, under_test, monkeypatch, spoil, message):
    monkeypatch.setattr(evaluate_module, "load_model", None)
    subject = under_test(planted)
    spoil(planted, subject.path)
    with pytest.raises(UserError, match=f"SAE 'one'.*{message}"):
        evaluate_saes(spec, {"one": subject}, None)


def _resave(sae, folder, *, nan=False, hook_name=HOOK, normalize="none"):
    if nan:
        with torch.no_grad():
            sae.W_dec[3, 1] = float("nan")
    sae.cfg.metadata.hook_name = hook_name
    sae.cfg.normalize_activations = normalize
    sae.save_model(folder)


def test_an_sae_of_another_hook_or_width_is_refused(tiny, spec, planted, under_test):
    planted.cfg.metadata.hook_name = "blocks.40.hook_resid_post"
    with pytest.raises(UserError, match="layers 0 to 25"):
        evaluate(spec, under_test(planted), tiny)


def test_a_subject_has_one_place():
    with pytest.raises(ValueError, match="either path, or release"):
        SaeUnderTest(variant="v", release="only")


def test_an_unknown_release_is_a_user_error(spec):
    subject = SaeUnderTest(variant="v", release="no-such-release", sae_id="x")
    with pytest.raises(UserError, match=r"'no-such-release'.*could not be loaded"):
        evaluate_saes(spec, {"one": subject}, None)


def test_a_saved_sae_says_which_features_it_reserved(tmp_path):
    paths = []
    for name, n_reserved in (("two", 2), ("none", None), ("one", 1)):
        sae = StandardSAE(StandardSAEConfig(d_in=4, d_sae=3))
        sae.cfg.metadata.hook_name = HOOK
        if n_reserved:
            sae.cfg.metadata.n_reserved_features = n_reserved
        sae.save_model(tmp_path / name)
        paths.append(str(tmp_path / name))
    single, plain = (SaeUnderTest(variant="v", path=path) for path in paths[:2])
    assert reserved_features(load_sae("single", single, "cpu")).tolist() == [True, True, False]
    assert reserved_features(load_sae("plain", plain, "cpu")).tolist() == [False] * 3
    ensemble = load_sae("three", SaeUnderTest(variant="v", members=paths), "cpu")
    assert reserved_features(ensemble).tolist() == [True, True, False, False, False, False, True, False, False]
