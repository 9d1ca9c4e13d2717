from __future__ import annotations

import getpass
import json
import socket
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench import environment as module
from bench.device import Device, get_device
from bench.environment import environment, variables
from bench.host import Host

CPUINFO = """processor\t: 0
model name\t: Test Processor 9000
flags\t\t: fpu avx2 avx512f avx512_vnni amx_int8 hypervisor
"""


def tree(root: Path, files: dict[str, str]) -> Host:
    """A host whose /proc and /sys hold `files`."""
    for path, text in files.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(text)
    return Host(root)


def test_an_environment_is_json_with_its_parts() -> None:
    env = environment(get_device("cpu"), 3)
    assert json.loads(json.dumps(env)) == env
    assert set(env) == {"host", "machine", "software", "settings", "device", "started"}
    assert env["settings"]["threads"] == 3
    assert env["device"]["name"] == "cpu"
    assert env["software"]["torch"].startswith("2.")


def test_it_names_no_host_user_or_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LD_PRELOAD", f"{Path.home()}/lib/libfast.so.2")
    monkeypatch.setenv("TORCH_HOME", "/home/somebody")
    text = json.dumps(environment(get_device("cpu"), 1))
    words = json.dumps(text).replace("\\", '"').split('"')
    assert socket.gethostname() not in words
    assert getpass.getuser() not in words
    assert str(Path.home()) not in text
    assert "somebody" not in text
    assert "libfast.so.2" in text


def test_variables_that_change_speed_are_recorded_and_others_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    monkeypatch.setenv("MY_SECRET_TOKEN", "hush")
    assert variables()["OMP_NUM_THREADS"] == "7"
    assert "MY_SECRET_TOKEN" not in variables()


@given(st.lists(st.text("abcxyz.-", min_size=1), min_size=2, max_size=5))
def test_no_folder_of_any_path_is_recorded(parts: list[str]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_SOMETHING", "/".join(["", *parts]))
        assert "/" not in variables()["OMP_SOMETHING"]


def test_a_host_is_read_from_its_files(tmp_path: Path) -> None:
    cpu = "sys/devices/system/cpu"
    host = tree(
        tmp_path,
        {
            "proc/cpuinfo": CPUINFO,
            f"{cpu}/cpu0/cpufreq/scaling_governor": "powersave\n",
            f"{cpu}/cpu1/cpufreq/scaling_governor": "performance\n",
            f"{cpu}/intel_pstate/no_turbo": "1\n",
            f"{cpu}/smt/active": "1\n",
            f"{cpu}/cpu0/thermal_throttle/core_throttle_count": "3\n",
            f"{cpu}/cpu1/thermal_throttle/core_throttle_count": "4\n",
            "sys/kernel/mm/transparent_hugepage/enabled": "always [madvise] never\n",
            "proc/sys/kernel/randomize_va_space": "2\n",
            "sys/devices/system/clocksource/clocksource0/current_clocksource": "tsc\n",
            "sys/fs/cgroup/cpu.max": "150000 100000\n",
            "sys/fs/cgroup/memory.max": "1073741824\n",
            "proc/1/cgroup": "0::/kubepods/pod1\n",
            "sys/class/dmi/id/sys_vendor": "QEMU\n",
        },
    )
    assert host.cpu_model == "Test Processor 9000"
    assert host.cpu_flags == ["avx2", "avx512f", "avx512_vnni", "amx_int8"]
    assert host.governors == ["performance", "powersave"]
    assert host.turbo is False
    assert host.smt is True
    assert host.throttles == 7
    assert host.huge_pages == "madvise"
    assert host.aslr == "2"
    assert host.clock_source == "tsc"
    assert host.cpu_quota == 1.5
    assert host.memory_limit == 2**30
    assert host.virtualisation == "virtual machine + container"
    assert host.vendor == "QEMU"


def test_version_1_control_groups_and_amd_boost_are_read(tmp_path: Path) -> None:
    host = tree(
        tmp_path,
        {
            "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "50000",
            "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000",
            "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712",
            "sys/devices/system/cpu/cpufreq/boost": "1",
        },
    )
    assert host.cpu_quota == 0.5
    assert host.memory_limit is None
    assert host.turbo is True


@pytest.mark.parametrize("limit", ["max 100000", ""])
def test_no_quota_is_no_limit(tmp_path: Path, limit: str) -> None:
    assert tree(tmp_path, {"sys/fs/cgroup/cpu.max": limit}).cpu_quota is None


def test_a_host_that_tells_nothing_is_unknown_not_an_error(tmp_path: Path) -> None:
    env = environment(get_device("cpu"), 1, Host(tmp_path))
    machine = env["machine"]
    assert machine["cpu"]
    assert machine["virtualisation"] == "none"
    assert [machine[k] for k in ("turbo", "smt", "huge_pages", "cpu_quota")] == [None] * 4
    assert machine["governors"] == []


def test_the_fingerprint_is_stable_and_differs_between_machines(tmp_path: Path) -> None:
    one = tree(tmp_path / "one", {"etc/machine-id": "aaaa", "proc/cpuinfo": CPUINFO})
    two = tree(tmp_path / "two", {"etc/machine-id": "bbbb", "proc/cpuinfo": CPUINFO})
    assert one.fingerprint("cpu") == one.fingerprint("cpu")
    assert one.fingerprint("cpu") != two.fingerprint("cpu")
    assert one.fingerprint("cpu") != one.fingerprint("Some GPU")
    assert "aaaa" not in one.fingerprint("cpu")


def test_a_gpu_is_described(fake_cuda: Device) -> None:
    env = environment(fake_cuda, 1)
    assert env["device"]["kind"] == "Fake GPU"
    assert env["host"] != environment(get_device("cpu"), 1)["host"]


def git(folder: Path, *arguments: str) -> None:
    identity = ("-c", "user.name=t", "-c", "user.email=t@example.org")
    subprocess.run(["git", "-C", folder, *identity, *arguments], check=True, capture_output=True)


def test_a_checkout_tells_its_commit_and_whether_it_was_changed(tmp_path: Path) -> None:
    git(tmp_path, "init")
    (tmp_path / "file").write_text("1")
    git(tmp_path, "add", "file")
    git(tmp_path, "commit", "-m", "one")
    state = module._git(tmp_path)
    assert len(state["commit"]) == 40
    assert state["changed"] is False
    (tmp_path / "file").write_text("2")
    assert module._git(tmp_path)["changed"] is True


def test_an_installed_package_or_a_missing_git_tells_no_commit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert module._git(tmp_path) is None
    (tmp_path / ".git").mkdir()
    monkeypatch.setenv("PATH", str(tmp_path))
    assert module._git(tmp_path) is None
