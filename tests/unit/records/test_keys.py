from __future__ import annotations

from slipway.records import BaseLock, python_lock_keys
from tests.support.lock_samples import addon, base, image

SM, DS = addon("sagemaker-training", "5.1.4"), addon("deepspeed", "0.19.8")


def keys(*addons: object, lock: BaseLock | None = None) -> list[str]:
    locks = {"b": lock} if lock else {}
    return [key for _, key in python_lock_keys(image(base("b"), *addons), locks)]  # type: ignore[arg-type]


def test_bases_whose_packages_are_not_known_share_by_python() -> None:
    assert keys(SM) == ["py312_sagemaker-training-5.1.4"]
    assert keys(SM, lock=BaseLock("b", unresolved="why")) == ["py312_sagemaker-training-5.1.4"]


def test_a_base_whose_packages_are_known_has_closures_of_its_own() -> None:
    assert keys(SM, lock=BaseLock("b", packages={})) == ["b_sagemaker-training-5.1.4"]


def test_a_layer_is_keyed_by_what_is_below_it_and_never_by_what_is_on_top() -> None:
    assert keys(SM, DS) == [
        "py312_sagemaker-training-5.1.4",
        "py312_sagemaker-training-5.1.4_deepspeed-0.19.8",
    ]
    assert keys(SM)[0] == keys(SM, DS)[0]
    assert keys(DS) == ["py312_deepspeed-0.19.8"]


def test_everything_that_an_addon_asks_for_is_in_its_key() -> None:
    more = addon("sagemaker-training", "5.1.4", "sagemaker-pytorch-training==3.0.0")
    assert keys(more) == ["py312_sagemaker-training-5.1.4+sagemaker-pytorch-training-3.0.0"]


def test_ranges_that_differ_have_keys_that_differ() -> None:
    found = {keys(addon("a", "1", asked))[0] for asked in ("b>1", "b<1", "b~=1", "b>1,<3")}
    assert len(found) == 4
    assert all(set(key) <= set("abcdefghijklmnopqrstuvwxyz0123456789_.+-") for key in found)


def test_kept_addons_and_tools_have_no_lock() -> None:
    kept = addon("deepspeed", "0.19.2", action="keep")
    assert keys(SM, kept) == ["py312_sagemaker-training-5.1.4"]
