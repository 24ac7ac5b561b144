import pytest
from pydantic import Field

from sae_lens_contrastive.config import StrictModel, load_yaml, merge, parse_config, parse_overrides
from sae_lens_contrastive.errors import ConfigError, UserError


class Inner(StrictModel):
    lr: float = Field(default=0.1, gt=0)
    """Learning rate."""


class Outer(StrictModel):
    name: str
    inner: Inner = Inner()
    sizes: tuple[int, ...] = ()
    maybe: Inner | None = None
    several: tuple[Inner, ...] = ()
    named: dict[str, Inner] | None = None


def test_nested_mappings_merge_and_everything_else_is_replaced():
    base = {"a": 1, "list": [1, 2], "sub": {"x": 1, "y": 2}}
    merged = merge(base, {"sub": {"y": 3, "z": {"q": 1}}, "list": [9]}, {"sub": {"z": {"r": 2}}, "a": None})
    assert merged == {"a": None, "list": [9], "sub": {"x": 1, "y": 3, "z": {"q": 1, "r": 2}}}
    assert base == {"a": 1, "list": [1, 2], "sub": {"x": 1, "y": 2}}


def test_a_mapping_replaces_a_plain_value_and_the_other_way_round():
    assert merge({"a": 1, "b": {"x": 1}}, {"a": {"x": 1}, "b": 2}) == {"a": {"x": 1}, "b": 2}


def test_overrides_are_nested_yaml():
    assert parse_overrides(["seed=1", "t.lr=0.001", "t.on=true", "xs=[a, b]", "t.url=a=b", "none="]) == {
        "seed": 1,
        "t": {"lr": 0.001, "on": True, "url": "a=b"},
        "xs": ["a", "b"],
        "none": None,
    }


@pytest.mark.parametrize(
    ("text", "number"), [("1e-3", 0.001), ("3E4", 30000.0), ("-2.5e+2", -250.0), (".5", 0.5), ("720_000", 720000)]
)
def test_numbers_are_read_as_people_write_them(tmp_path, text, number):
    path = tmp_path / "a.yaml"
    path.write_text(f"x: {text}\n")
    for value in (parse_overrides([f"x={text}"])["x"], load_yaml(path)["x"]):
        assert value == number
        assert type(value) is type(number)


def test_words_that_look_a_little_like_numbers_stay_words():
    assert parse_overrides(["a=e5", "b=1e", "c=blocks.12.hook", "d='1e3'"]) == {
        "a": "e5",
        "b": "1e",
        "c": "blocks.12.hook",
        "d": "1e3",
    }


@pytest.mark.parametrize("assignment", ["seed", "=1", "a..b=1", ".a=1", "a.=1", ""])
def test_a_malformed_override_is_shown_with_an_example(assignment):
    with pytest.raises(ConfigError, match=rf"--set takes key=value, got '{assignment}'.*Example: --set"):
        parse_overrides([assignment])


def test_an_override_that_is_not_yaml_is_shown():
    with pytest.raises(ConfigError, match=r"--set 'a=\[1': the value is not valid YAML"):
        parse_overrides(["a=[1"])


def test_fields_have_their_docstrings_as_help():
    assert Inner.model_fields["lr"].description == "Learning rate."


def test_configurations_are_frozen():
    config = parse_config(Outer, {"name": "a", "sizes": [1, 2]}, "x.yaml")
    assert config.sizes == (1, 2)
    with pytest.raises(ValueError, match="frozen"):
        config.name = "b"  # pyright: ignore[reportAttributeAccessIssue]


@pytest.mark.parametrize(
    ("values", "messages"),
    [
        ({}, ["x.yaml", "The key 'name' is missing"]),
        ({"nmae": "a", "name": "a"}, ["Unknown key 'nmae'", "Did you mean 'name'?", "Allowed: inner, maybe,"]),
        ({"name": "a", "inner": {"lrr": 1}}, ["Unknown key 'inner.lrr'", "Did you mean 'inner.lr'?"]),
        ({"name": "a", "maybe": {"lrr": 1}}, ["Unknown key 'maybe.lrr'", "Allowed: maybe.lr."]),
        ({"name": "a", "several": [{"lrr": 1}]}, ["Unknown key 'several.0.lrr'", "Allowed: several.0.lr."]),
        ({"name": "a", "named": {"b": {"lrr": 1}}}, ["Unknown key 'named.b.lrr'", "Allowed: named.b.lr."]),
        ({"name": "a", "inner": {"lr": -1}}, ["inner.lr", "greater than 0", "got -1"]),
        ({"name": "a", "sizes": ["b"]}, ["sizes.0", "got 'b'"]),
        ({"name": 3, "inner": 4}, ["name: ", "got 3", "inner: ", "got 4"]),
    ],
)
def test_wrong_keys_and_values_are_all_named(values, messages):
    with pytest.raises(ConfigError) as caught:
        parse_config(Outer, values, "x.yaml")
    assert [message for message in messages if message not in str(caught.value)] == []


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "must hold a mapping of keys to values, got NoneType"),
        (b"- a\n", "must hold a mapping of keys to values, got list"),
        (b"a: [", "is not valid YAML"),
        (b"\xff\xfe\x00", "is not valid YAML"),
    ],
)
def test_a_file_that_is_no_yaml_mapping_is_named(tmp_path, content, message):
    path = tmp_path / "a.yaml"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=rf"a\.yaml {message}"):
        load_yaml(path)


def test_a_missing_yaml_file_points_to_the_examples(tmp_path):
    with pytest.raises(UserError, match=r"No file at .*a\.yaml.*examples are in configs/"):
        load_yaml(tmp_path / "a.yaml")
