"""One who is let in is counted, accounted for, and stopped when the access ends."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from appliance.access.authenticator import KeyRing
from appliance.access.grant import read_grant
from appliance.access.key_file import KeyFile
from appliance.access.policy import AccessControl
from appliance.access.secret import new_secret
from appliance.errors import ApplianceError, RateLimited, Unauthorized


class House:
    """A file with the key of ada, and the control over it."""

    def __init__(self, path: Path, **fields: object) -> None:
        self.file = KeyFile(path / "keys.json")
        self.secret, _ = self.file.add("ada", expires=None, grant=read_grant(fields))
        self.control = AccessControl([KeyRing(self.file.path)], lambda: 0.0)
        self.principal = asyncio.run(self.control.identify(self.secret))


@pytest.fixture
def house(tmp_path: Path) -> House:
    return House(tmp_path, tokens_per_minute=100, concurrent=1, requests_per_minute=10)


@pytest.mark.parametrize("credential", ["", "x", "x" * 1_000_000])
def test_a_stranger_is_refused_in_one_wording(house: House, credential: str) -> None:
    said = set()
    for each in (credential, new_secret()):
        with pytest.raises(Unauthorized) as refused:
            asyncio.run(house.control.identify(each))
        said.add(refused.value.message)
    assert len(said) == 1


def test_what_an_answer_did_not_use_comes_back_when_it_is_settled(house: House) -> None:
    admission = house.control.admit(house.principal)
    first = admission.reserve(80)
    with pytest.raises(RateLimited):
        admission.reserve(80)
    first.settle(5)
    first.settle(5)  # a second time changes nothing
    admission.reserve(95)


def test_what_was_never_settled_comes_back_with_the_end_of_the_request(house: House) -> None:
    admission = house.control.admit(house.principal)
    admission.count()
    admission.reserve(100)
    house.control.close(admission)
    again = house.control.admit(house.principal)
    again.count()
    again.reserve(100)


def test_a_request_that_is_closed_twice_frees_one_place(house: House) -> None:
    admission = house.control.admit(house.principal)
    admission.count()
    house.control.close(admission)
    house.control.close(admission)
    assert admission.quota.num_open == 0


def test_a_revoked_key_ends_the_answers_to_it_and_no_other(house: House) -> None:
    ended: list[ApplianceError] = []
    admission = house.control.admit(house.principal)
    running, done = admission.reserve(10), admission.reserve(10)
    running.on_end(ended.append)
    done.on_end(ended.append)
    done.settle(10)
    house.control.refresh()
    house.control.end_revoked()
    assert ended == []
    house.file.revoke("ada")
    house.control.refresh()
    house.control.end_revoked()
    assert [type(error) for error in ended] == [Unauthorized]
