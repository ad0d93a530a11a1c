import tomllib

import pytest

from gnflow import ConfigError
from gnflow.config import read_toml, to_toml


def test_what_is_written_reads_back_equal():
    table = {
        "name": 'a "quoted" \\ name, tab\t, del\x7f and µ',
        "seeds": [0, 1],
        "nested": [[1.5, 2.0], []],
        "model": {"kind": "mean_field", "bias": False, "init_scale": 1e-7, "width": 20, "huge": float("inf")},
        "empty": {},
        "flows": {
            "gn": {"kind": "gauss_newton", "damping": {"kind": "constant", "value": 1.0}},
            "tau=1": {"kind": "gradient"},
        },
        "variants": {"a": {"model.init_scale": 0.1, "model": {"width": 3}}},
    }
    assert tomllib.loads(to_toml(table)) == table


def test_flows_and_variants_get_headers_of_their_own():
    text = to_toml({"flows": {"gn": {"kind": "gauss_newton"}}, "variants": {"tau0=1": {"model.width": 3}}})
    assert "[flows.gn]\n" in text
    assert '[variants."tau0=1"]\n"model.width" = 3\n' in text


def test_what_toml_cannot_hold_is_refused():
    with pytest.raises(ConfigError, match=r"None.*cannot be written"):
        to_toml({"t1": None})


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"a = [1", "not valid TOML.*line 1|not valid TOML.*end of document"), (b"a = '\xff'", "not UTF-8")],
)
def test_unreadable_files_are_named(tmp_path, content, message):
    path = tmp_path / "bad.toml"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=message) as caught:
        read_toml(path)
    assert str(path) in str(caught.value)


def test_missing_file_and_folder(tmp_path):
    with pytest.raises(ConfigError, match="there is no file"):
        read_toml(tmp_path / "none.toml")
    with pytest.raises(ConfigError, match="cannot read"):
        read_toml(tmp_path)
