"""Rule: a join token is one line that is read back as it was written, and never shown when it is wrong."""

from pathlib import Path

import pytest

from client.entrance import given_token
from common.errors import UsageError
from common.token import Token, fingerprint, parse_token

TOKEN = Token("ab" * 32, "cd" * 16)


def test_a_token_reads_back_also_with_space_around_it() -> None:
    assert str(TOKEN) == f"fedge1.{'ab' * 32}.{'cd' * 16}"
    assert parse_token(f"  {TOKEN}\n", "--token") == TOKEN


def test_a_token_does_not_show_its_secret_by_accident() -> None:
    assert TOKEN.secret not in repr(TOKEN)


@pytest.mark.parametrize("text", ["", "fedge1", str(TOKEN)[:-1], f"{TOKEN}0", str(TOKEN).upper(), f"x{TOKEN}"])
def test_what_is_no_token_is_refused_without_being_repeated(text: str) -> None:
    with pytest.raises(UsageError, match=r"^--token is no join token: it has \d+ characters, expected fedge1") as error:
        parse_token(text, "--token")
    assert TOKEN.secret[:16] not in str(error.value)


def test_a_fingerprint_is_the_sha256_of_the_certificate() -> None:
    assert fingerprint(b"abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def test_a_flag_wins_over_a_file_and_that_over_the_environment(tmp_path: Path) -> None:
    file = tmp_path / "token"
    other = Token("12" * 32, "34" * 16)
    file.write_text(f"{other}\n")
    assert given_token(str(TOKEN), str(file), "nonsense") == TOKEN
    assert given_token(None, str(file), "nonsense") == other
    assert given_token(None, None, str(TOKEN)) == TOKEN
    assert given_token(None, None, "") is None
    with pytest.raises(UsageError, match=r"^cannot read the join token in .*absent"):
        given_token(None, str(file) + "-absent", None)
