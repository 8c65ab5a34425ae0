import pytest

from bbb.runs import SettingsError, check_text


def test_a_value_nested_too_deeply_is_refused():
    with pytest.raises(SettingsError, match="lr: its value is nested too deeply"):
        check_text("lr", "-" * 5000 + "1")
