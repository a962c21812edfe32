"""The socket of the explorer's server: what is refused before anything is computed."""

import pytest

from rfdiff import InputError
from rfdiff.explorer.serving import bound


@pytest.mark.parametrize("host", ["a" * 64, "a" * 64 + ".example", "two..dots"])
def test_what_is_no_name_of_a_machine_is_refused_in_one_sentence(host: str) -> None:
    with pytest.raises(InputError, match="^address: .*allowed: an address of this machine"):
        bound(host, 0)
