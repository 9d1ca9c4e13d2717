from __future__ import annotations

import pytest
from made_profile import made_profile

from bench.profiles.roofline import placed


def test_a_known_product_has_its_place_under_the_roofs() -> None:
    profile = made_profile()  # 2 MFLOP on 40 kB in 800 µs; 50 GFLOP/s, 10 GB/s
    product = next(
        p for p in placed(profile.arms[0], profile.peaks) if p.operator.name == "aten::addmm"
    )
    assert product.intensity == pytest.approx(50)
    assert product.rate == pytest.approx(2.5e9)
    assert product.roof == "compute"
    assert product.reached == pytest.approx(0.05)


def test_what_computes_nothing_is_held_against_the_bandwidth() -> None:
    profile = made_profile()
    copy = next(
        p for p in placed(profile.arms[0], profile.peaks) if p.operator.name == "aten::copy_"
    )
    assert (copy.intensity, copy.roof) == (0.0, "memory")
    assert copy.reached == pytest.approx(40_000 / 60e-6 / 10e9)


def test_few_flops_for_a_byte_are_under_the_slope() -> None:
    profile = made_profile()
    slow = profile.peaks.model_copy(update={"bandwidth": 1e8})
    product = placed(profile.arms[0], slow)[0]
    assert product.roof == "memory"
    assert product.reached == pytest.approx(2.5e9 / (50 * 1e8))


def test_light_operators_are_left_out() -> None:
    profile = made_profile({"aten::addmm": 5000.0, "aten::relu": 1.0})
    assert [p.operator.name for p in placed(profile.arms[0], profile.peaks)] == ["aten::addmm"]
