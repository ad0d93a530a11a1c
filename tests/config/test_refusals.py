"""What no specification can mean is refused before anything else looks at it: the entry, its value, what was expected."""

import datetime
import math

import pytest

from gnflow import ConfigError
from gnflow._core import _machine
from gnflow.config import Specification, parse_assignment, read_sweep, read_toml
from gnflow.config._forms import at
from gnflow.config._plain import require_plain, shown

TABLE = {
    "problem": {"kind": "teacher_student", "n_train": 5, "n_test": 4, "input_dim": 2},
    "model": {"kind": "mean_field", "width": 4},
    "flows": {"descent": {"kind": "gradient"}},
}


def table_with(**sections):
    return {**TABLE, **sections}


def nested(levels, make):
    value = 1
    for _ in range(levels):
        value = make(value)
    return value


PLAIN = [
    ({"model": {"width": 2**63}}, r"model\.width = 9223372036854775808; expected an integer that 64 bits hold"),
    ({"model": {"width": -(2**63) - 1}}, r"model\.width = -9223372036854775809; expected an integer that 64 bits hold"),
    ({"seeds": [0, 10**400]}, r"seeds\[1\] = an integer of 1329 bits"),
    ({"model": {"init_scale": math.nan}}, r"model\.init_scale = nan; expected a value that means something"),
    ({"a": [{"b": datetime.date(2020, 1, 1)}]}, r"a\[0\]\.b = 2020-01-01 is a date or a time.*in quotes it is text"),
    ({"a": datetime.time(2)}, r"a = 02:00:00 is a date or a time"),
    ({"name": "a\0b"}, r"name = 'a\\x00b' holds a NUL character"),
    ({"name": "\ud800"}, r"name = '\\ud800' holds a NUL character or bytes that are no text"),
    ({"name": "n" * 5000}, r"name = 'n+\.\.\. has 5000 characters; expected at most 4096"),
    ({"": 1}, r"the table has an entry named ''"),
    ({"model": {"": 1}}, r"model has an entry named ''"),
    ({"model": {"a\nb": 1}}, r"model has an entry named 'a\\nb'"),
    ({"model": {"n" * 400: 1}}, r"model has an entry named 'n+\.\.\.; expected a name of 1 to 300 characters"),
    ({"model": None}, r"model = None is a NoneType; expected text, a number"),
    ({"model": {1, 2}}, r"model = \{1, 2\} is a set"),
    (nested(3000, lambda value: [value]), r"nested more than 32 levels deep; write it flatter"),
    ({"a": nested(3000, lambda value: {"a": value})}, r"a\.a.* is nested more than 32 levels deep"),
]


@pytest.mark.parametrize(("table", "message"), PLAIN)
def test_what_is_no_value_of_a_specification_is_named(table, message):
    with pytest.raises(ConfigError, match=message) as caught:
        require_plain(table)
    assert len(str(caught.value)) < 500


def test_what_a_specification_can_hold_passes():
    require_plain({"a": [1, -(2**63), 2**63 - 1, 1.5, math.inf, "text\n", True, (1, 2)], "model.init_scale": {"b": []}})


@pytest.mark.parametrize(
    "sections",
    [
        {"seeds": [2**63]},
        {"model": {"kind": "mean_field", "width": 10**20}},
        {"problem": nested(2000, lambda v: [v])},
        {"name": "n" * 300},
        {"name": "a\0"},
        {"flows": {}},
        {"flows": {"": {"kind": "gradient"}}},
        {"flows": {"f" * 300: {"kind": "gradient"}}},
        {"flows": [1]},
        {"stop": {"relative_loss": math.inf}},
        {"integration": {"max_steps": 1e22}},
    ],
    ids=lambda sections: next(iter(sections)),
)
def test_what_no_specification_can_be_is_refused(sections):
    with pytest.raises(ConfigError):
        Specification.from_dict(table_with(**sections))


class TestNumbers:
    def refused(self, message, **sections):
        with pytest.raises(ConfigError, match=message):
            Specification.from_dict(table_with(**sections))

    def test_a_number_without_a_fraction_is_told_how_to_be_written(self):
        self.refused(
            r"integration\.max_steps = 30000\.0 is a number; expected an integer\. Write 30000\.",
            integration={"max_steps": 3e4},
        )
        self.refused(r"max_steps = 1e\+22 .*It is larger than any integer", integration={"max_steps": 1e22})
        self.refused(
            r"model\.width = 0\.5 is a number; expected an integer\.$", model={"kind": "mean_field", "width": 0.5}
        )

    def test_infinite_numbers(self):
        self.refused(
            r"model\.init_scale = inf; expected a finite number", model={**TABLE["model"], "init_scale": math.inf}
        )

    @pytest.mark.parametrize("seed", [0, 2**31, 2**63 - 1])
    def test_every_seed_of_64_bits_can_be_prepared(self, seed):
        (run,) = Specification.from_dict(table_with(seeds=[seed])).runs
        assert run.prepare().problem.num_train == 5


class TestFiles:
    def write(self, tmp_path, content):
        (tmp_path / "a.toml").write_bytes(content)
        return tmp_path / "a.toml"

    def test_a_byte_order_mark_is_none_of_the_text(self, tmp_path):
        assert read_toml(self.write(tmp_path, b"\xef\xbb\xbfname = 'a'\n")) == {"name": "a"}

    @pytest.mark.parametrize(
        ("content", "message"),
        [
            (b"a = " + b"[" * 2000 + b"]" * 2000, "not valid TOML: its arrays or tables are nested too deep"),
            (b"a = " + b"{a = " * 2000 + b"1" + b"}" * 2000, "nested too deep"),
            (b"a" + b".a" * 2000 + b" = 1", "nested more than 32 levels"),
            (b"a = " + b"9" * 5000, "not valid TOML"),
            (b"a = 99999999999999999999", "a = 99999999999999999999; expected an integer that 64 bits hold"),
            (b"a = 2020-01-01", "is a date or a time"),
            (b"a = nan", "a = nan"),
            (b"\xff\xfea\0", "is not UTF-8 text"),
            (b"#" * (2**24 + 1), "is larger than 16777216 bytes"),
        ],
        ids=lambda value: str(value[:12]),
    )
    def test_what_is_refused_is_named_with_its_file(self, content, message, tmp_path):
        file = self.write(tmp_path, content)
        for read in (read_toml, read_sweep):
            with pytest.raises(ConfigError, match=message) as caught:
                read(file)
            assert str(file) in str(caught.value)

    @pytest.mark.parametrize("read", [read_toml, read_sweep])
    @pytest.mark.parametrize("name", ["", "a\0", "n" * 300, "x/" * 3000])
    def test_what_is_no_path(self, name, read):
        with pytest.raises(ConfigError):
            read(name)


class TestAssignments:
    def test_dates_and_times_are_text(self):
        assert parse_assignment("walltime=02:00:00") == (("walltime",), "02:00:00")
        assert parse_assignment("name=2020-01-01") == (("name",), "2020-01-01")

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("model.width=99999999999999999999", r"--set model\.width = 99999999999999999999; expected an integer"),
            ("model.width=nan", r"--set model\.width = nan"),
            ("a=\0", r"--set a = '\\x00' holds a NUL"),
            (".".join("a" * 500) + "=1", "not a dotted key of at most 16 names"),
            ("a\nb=1", "is not a dotted key"),
            ("a=" + "x" * 5000, "has 5000 characters"),
        ],
    )
    def test_what_is_refused(self, text, message):
        with pytest.raises(ConfigError, match=message):
            parse_assignment(text)

    def test_what_is_nested_too_deep_for_toml_is_text(self):
        assert parse_assignment("a=" + "[" * 2000)[1] == "[" * 2000


class TestNumberOfRuns:
    def test_seeds(self):
        with pytest.raises(ConfigError, match=r"has 1000001 (entries|values); expected at most 1000000"):
            Specification.from_dict(table_with(seeds=list(range(1_000_001))))

    def test_products(self):
        variants = {f"v{i}": {"model.width": i} for i in range(1, 1001)}
        with pytest.raises(ConfigError, match="1000 variants x 1 flows x 2000 seeds = 2000000 runs"):
            Specification.from_dict(table_with(variants=variants, seeds=list(range(2000))))
        axes = {"w": {"path": "model.width", "linspace": [1, 1000, 1000]}}
        with pytest.raises(ConfigError, match="1000 w x 1 flows x 2000 seeds = 2000000 runs"):
            Specification.from_dict(table_with(axes=axes, seeds=list(range(2000))))


class TestMemory:
    @pytest.mark.parametrize(
        ("sections", "message"),
        [
            ({"problem": {**TABLE["problem"], "n_train": 10**9}}, r"problem: n_train \+ n_test = .* GiB are free"),
            ({"problem": {**TABLE["problem"], "input_dim": 10**9}}, "of 1000000000 features would take"),
            ({"model": {"kind": "mean_field", "width": 10**12}}, r"model: MeanFieldNetwork of .* weights would take"),
            ({"model": {"kind": "mlp", "width": 10**5, "depth": 3}}, "model: MLP of .* weights would take"),
            ({"model": {"kind": "mlp", "width": 1, "depth": 10**6}}, r"model: depth = 1000000; .* at most 10000"),
        ],
    )
    def test_what_does_not_fit_is_refused_before_it_is_made(self, sections, message, monkeypatch):
        (run,) = Specification.from_dict(table_with(**sections)).runs
        monkeypatch.setattr(_machine, "available_memory_gib", lambda: 1.0)
        with pytest.raises(ConfigError, match=message):
            run.prepare()


class TestConstructors:
    def test_an_error_of_any_kind_is_told_with_its_entry(self):
        for error in (TypeError("no"), ValueError("a\nb"), OverflowError("big"), ZeroDivisionError(), IndexError("i")):
            with (
                pytest.raises(
                    ConfigError, match=rf"^model cannot be made of these options \({type(error).__name__}: "
                ) as caught,
                at("model"),
            ):
                raise error
            assert "\n" not in str(caught.value)
            assert caught.value.__cause__ is error

    def test_too_little_memory_is_told_so(self):
        with pytest.raises(ConfigError, match="problem asks for more memory than there is"), at("problem"):
            raise MemoryError

    def test_interrupts_pass(self):
        with pytest.raises(KeyboardInterrupt), at("problem"):
            raise KeyboardInterrupt

    def test_an_error_of_gnflows_names_the_entry(self):
        table = table_with(model={"kind": "mean_field", "width": 4, "activation": "rellu"})
        with pytest.raises(ConfigError, match=r"^model.*rellu.*relu"):
            Specification.from_dict(table).check()
        with pytest.raises(ConfigError, match=r"^flows\.descent\.stop\.relative_loss: .*-1"):
            Specification.from_dict(table_with(stop={"relative_loss": -1.0})).check()


def test_long_values_are_cut_in_messages():
    assert shown("a" * 10) == repr("a" * 10)
    for value in ("a" * 10**6, list(range(10**6)), {"a": "b" * 1000}):
        assert len(shown(value)) < 100
    with pytest.raises(ConfigError) as caught:
        Specification.from_dict(table_with(model={"kind": "mean_field", "width": list(range(100_000))}))
    assert len(str(caught.value)) < 300
