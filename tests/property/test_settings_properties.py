"""Rule: whatever a person types, settings load or fail with one line that names the key."""

from hypothesis import given
from hypothesis import strategies as st

from common.errors import SettingsError
from common.layers import CONFIGS, from_assignments, from_file, load

KEYS = list(from_file(CONFIGS / "default.yaml")[1])
ODD = ["{}", "[1, 2]", "{a: 1}", "null", "0x1F", "1:30", "{x}", "9" * 5000, "1e999", "2026-99-99", "&a *a", "!!set x"]
VALUES = st.one_of(
    st.text(max_size=30), st.integers().map(str), st.floats().map(str), st.sampled_from(ODD), st.binary().map(str)
)


def complaint(assignment: str) -> str:
    try:
        load(from_assignments([assignment]))
    except SettingsError as error:
        return str(error)
    return ""


@given(key=st.sampled_from(KEYS), value=VALUES)
def test_any_value_loads_or_is_named(key: str, value: str) -> None:
    text = complaint(f"{key}={value}")
    assert text == "" or text.startswith((key, "link.silence_seconds must be greater than beat_seconds"))
    assert "\n" not in text
    assert len(text) < 300


@given(text=st.text(max_size=60))
def test_any_assignment_loads_or_is_refused_in_one_line(text: str) -> None:
    assert len(complaint(text)) < 400
