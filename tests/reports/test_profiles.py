"""A profile as sentences, tables, figures and sections."""

from __future__ import annotations

from pathlib import Path

import pytest
from made_profile import CONTROL, TREATMENT, made_profile
from matplotlib.figure import Figure

from bench.profiles.record import FILE, Kernel, Profile, folder_in, write_profile
from bench.run import Run
from reports import figures, html_page
from reports.pages import Items, Section, Table, Text
from reports.profiles import figures as profile_figures
from reports.profiles import tables as profile_tables
from reports.profiles import words
from reports.profiles.page import profile_blocks, profile_sections


def text_of(*sections: Section) -> str:
    return "".join(html_page.block(b) for section in sections for b in section.blocks)


class TestWords:
    def test_the_swapped_operators_are_named_with_their_share(self) -> None:
        profile = made_profile()
        assert "600.0 µs less. Of that gap, 100.0% is due to:" in words.explanation(profile)
        assert words.named_changes(profile) == [
            ("aten::addmm", "800.0 µs → 0, 1 → 0 calls, +133% of the gap"),
            ("quantized::linear_dynamic", "0 → 200.0 µs, 0 → 1 calls, −33% of the gap"),
        ]

    def test_no_gap_is_said(self) -> None:
        assert "no gap to explain" in words.explanation(made_profile(CONTROL, CONTROL))

    @pytest.mark.parametrize(
        ("profile", "said"),
        [
            (made_profile(), "The profile agrees with the clock: by the profile 2.50×"),
            (made_profile(gains=[1.0]), "do not explain it: without them it would say"),
            (made_profile(gains=[1.0]), "Believe the clock"),
            (made_profile(gains=[1.0], operator_us=1e3), "more than a request takes"),
            (
                made_profile({f"aten::op{n}": 10.0 for n in range(50)}, {"aten::one": 100.0},
                             gains=[350 / 195], operator_us=5.0),
                "explain it: without them the profile would say 1.79×",
            ),
        ],
    )  # fmt: skip
    def test_agreement_and_disagreement_are_plain(self, profile: Profile, said: str) -> None:
        assert said in words.trust(profile)

    def test_a_clock_that_was_disturbed_is_not_believed(self) -> None:
        profile = made_profile(gains=[1.0])
        slow = profile.clock.model_copy(update={"seconds": (5e-3, 5e-3)})
        disturbed = profile.model_copy(update={"clock": slow})
        assert "believe neither" in words.trust(disturbed)
        assert "it was disturbed as well" in words.interruptions(disturbed)

    def test_interruptions_are_said(self) -> None:
        assert words.interruptions(made_profile()) == ""
        assert words.interruptions(made_profile(interrupted=None)) == ""
        assert "3 of 30 requests of control (left out)" in words.interruptions(
            made_profile(interrupted=3)
        )
        assert "(kept, with the wait, for too few" in words.interruptions(
            made_profile(interrupted=28)
        )

    def test_a_folder_with_blanks_is_quoted(self) -> None:
        assert "--logdir '/a b/c'" in words.opening(Path("/a b/c"))[0][1]


class TestTables:
    def test_the_difference_adds_up_to_the_gap(self) -> None:
        frame = profile_tables.difference_table(made_profile())
        assert list(frame["Operator"][:2]) == ["aten::addmm", "quantized::linear_dynamic"]
        assert list(frame["Share of the gap"][:2]) == ["+133%", "−33%"]

    def test_operators_beyond_the_first_are_one_line(self) -> None:
        many = {f"aten::op{n}": 10.0 + n for n in range(40)}
        frame = profile_tables.difference_table(made_profile(many, TREATMENT))
        assert frame["Operator"].iloc[-1].endswith("others")
        assert len(frame) == profile_tables.TOP + 1

    def test_parts_end_with_the_whole(self) -> None:
        frame = profile_tables.parts_table(made_profile())
        assert list(frame.iloc[-1]) == [
            "Wall time", "1.000 ms (100%)", "400.0 µs (100%)", "+600.0 µs",
        ]  # fmt: skip

    def test_the_roofline_is_of_both_arms(self) -> None:
        frame = profile_tables.roofline_table(made_profile())
        assert set(frame["Arm"]) == {"control", "treatment"}
        assert "2.5 GFLOP/s" in set(frame["Reached"])
        assert profile_tables.roofline_table(made_profile({}, {})).empty


@pytest.mark.parametrize("name", ["parts", "waterfall", "roofline", "memory"])
@pytest.mark.parametrize(
    "profile",
    [
        made_profile(),
        made_profile(TREATMENT, CONTROL),
        made_profile({}, {}),
        made_profile({"a$b$" * 400: 5.0}, CONTROL, names=("control", "x" * 300)),
    ],
)
def test_every_figure_can_be_drawn(name: str, profile: Profile) -> None:
    figure = getattr(profile_figures, name)(profile)
    assert isinstance(figure, Figure)
    assert figures.svg(figure).startswith("<?xml")


class TestSections:
    def place(self, run: Run, profile: Profile) -> Path:
        folder = folder_in(run.path, profile.cell)
        write_profile(folder, profile)
        return folder

    @pytest.fixture
    def fresh(self, small_run: Path, tmp_path: Path) -> Run:
        for name in ("plan.json", "environment.json"):
            (tmp_path / name).write_bytes((small_run / name).read_bytes())
        return Run.load(tmp_path)

    def test_a_run_without_a_profile_says_what_to_type(self, fresh: Run) -> None:
        (section,) = profile_sections(fresh)
        (block,) = section.blocks
        assert isinstance(block, Text)
        command = f"leanrec profile --diff dcnv2-int8_linear-offline-cpu --run {fresh.path}"
        assert command in block.text

    def test_a_profile_is_a_section(self, fresh: Run) -> None:
        folder = self.place(fresh, made_profile())
        (section,) = profile_sections(fresh)
        assert section.title == "Profile: dcnv2 × int8-linear × offline on cpu"
        shown = text_of(section)
        assert "aten::addmm" in shown
        assert f"tensorboard --logdir {folder}" in shown

    def test_kernels_are_shown_where_there_are_some(self, tmp_path: Path) -> None:
        kernels = (Kernel(name="sgemm_128", calls=2, us=50),)
        shown = text_of(Section("", profile_blocks(made_profile(kernels=kernels), tmp_path)))
        assert "sgemm_128" in shown

    @pytest.mark.parametrize("content", ["", "{", '{"version": 9}'])
    def test_a_corrupt_profile_is_a_warning(self, fresh: Run, content: str) -> None:
        folder = self.place(fresh, made_profile())
        (folder / FILE).write_text(content)
        (section,) = profile_sections(fresh)
        (block,) = section.blocks
        assert isinstance(block, Items)
        assert block.warning
        assert "cannot be read" in block.items[0][1]

    def test_a_profile_of_another_cell_is_a_warning(self, fresh: Run) -> None:
        folder = self.place(fresh, made_profile())
        other = made_profile().cell.model_copy(update={"baseline": "x"})
        write_profile(folder, made_profile(cell=other))
        assert "is of another cell" in text_of(*profile_sections(fresh))

    def test_hostile_names_are_text(self, fresh: Run) -> None:
        evil = "<script>alert(1)</script>"
        self.place(fresh, made_profile({evil: 900.0}, TREATMENT, names=("control", evil)))
        shown = text_of(*profile_sections(fresh))
        assert evil not in shown
        assert "&lt;script&gt;" in shown

    def test_tables_are_text(self) -> None:
        blocks = profile_blocks(made_profile(), Path("/p"))
        frames = [b.frame for b in blocks if isinstance(b, Table)]
        assert all(isinstance(v, str) for f in frames for row in f.to_numpy() for v in row)
