from __future__ import annotations

import pytest
from pydantic import TypeAdapter, ValidationError

from vmproxy.site.model import Memory

MEMORY: TypeAdapter[int] = TypeAdapter(Memory)


@pytest.mark.parametrize(("written", "size"), [("512MiB", 512), ("514MiB", 514), ("3GiB", 3072)])
def test_memory_is_given_with_its_unit(written: str, size: int) -> None:
    assert MEMORY.validate_python(written) == size << 20


@pytest.mark.parametrize("written", ["513MiB", "1023MiB"])
def test_memory_that_hyperv_does_not_take_is_a_mistake(written: str) -> None:
    with pytest.raises(ValidationError, match="a multiple of 2MiB"):
        MEMORY.validate_python(written)
