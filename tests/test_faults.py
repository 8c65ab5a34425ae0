"""The deliberate faults: each can still be put into the code. That a test notices takes long; see tests/faults.py."""

import pytest

from tests.documentation import REPOSITORY
from tests.faults import FAULTS


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_the_text_of_a_fault_stands_once_in_the_code_and_its_tests_exist(fault):
    assert (REPOSITORY / "bbb" / fault.file).read_text().count(fault.right) == 1
    assert fault.wrong != fault.right
    assert all((REPOSITORY / "tests" / name).exists() for name in fault.tests.split())
