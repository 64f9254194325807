"""`make bench`, the parts without a server: ratios, spreads, CPU accounting, tables, pictures, the results file."""

from __future__ import annotations

import os
import subprocess
import sys
import xml.etree.ElementTree
from pathlib import Path

import pytest

from benchmarks import plots, proc, report
from benchmarks.bench import order
from benchmarks.figures import LESS, Goal, Row, ratios, spread, spread_text, verdict
from benchmarks.java import fetch_rate, rate
from benchmarks.results import Results, cells, markdown
from benchmarks.suites import SUITES


def row(better: str = "more", **values: list[float]) -> Row:
    return Row("produce", "records/s", better, values, goals=(Goal(1.0, 2.0),))


def test_ratios_are_taken_within_a_round_and_above_one_is_better() -> None:
    assert ratios(row(zafka=[100, 300], kafka=[50, 100]), "zafka", "kafka") == [2, 3]
    assert ratios(row(LESS, zafka=[100, 300], kafka=[50, 900]), "zafka", "kafka") == [0.5, 3]
    # A round that one of them did not end is in no ratio.
    assert ratios(row(zafka=[100, 300], kafka=[50]), "zafka", "kafka") == [2]
    assert ratios(row(zafka=[100]), "zafka", "kafka") == []


def test_what_cannot_be_divided_is_left_out() -> None:
    assert ratios(row(zafka=[1.0], kafka=[0.0]), "zafka", "kafka") == []
    assert ratios(row(LESS, zafka=[0.0], kafka=[1.0]), "zafka", "kafka") == []


def test_the_spread_is_the_median_and_the_ends() -> None:
    found = spread([3.0, 1.0, 2.0])
    assert found is not None and (found.median, found.low, found.high) == (2, 1, 3)
    assert spread([]) is None
    assert spread_text(spread([1234567.0, 1000.0, 5e6])) == "1,234,567 (1,000-5,000,000)"
    assert spread_text(spread([0.12345])) == "0.123"
    assert spread_text(None) == "-"


@pytest.mark.parametrize(("ours", "told"), [(0.9, "missed"), (1.0, "reached"), (1.9, "reached"), (2.0, "aim")])
def test_a_goal_is_missed_reached_or_aimed(ours: float, told: str) -> None:
    assert verdict(Goal(1.0, 2.0), spread([ours])) == told
    assert verdict(Goal(1.0, 2.0), None) == "not measured"


def test_each_system_comes_first_as_often_as_the_others() -> None:
    systems = ["a", "b", "c"]
    assert [order(systems, number)[0] for number in range(6)] == ["a", "b", "c"] * 2
    assert all(sorted(order(systems, number)) == systems for number in range(6))
    assert order([], 3) == []


def test_cpu_ticks_are_read_behind_a_name_with_blanks_and_brackets() -> None:
    fields = " ".join(str(number) for number in range(100, 150))
    # state, ppid, ... : utime is the 14th field of all, cstime the 17th.
    assert proc.cpu_ticks(f"71 (a ) (b)) S {fields}") == 110 + 111 + 112 + 113


def test_cpu_of_a_tree_keeps_what_ended_children_used() -> None:
    burn = "import time\nend = time.process_time() + 0.3\nwhile time.process_time() < end: pass"
    run = f"subprocess.run([sys.executable, '-c', {burn!r}])"
    script = f"import subprocess, sys\n{run}\nprint('done', flush=True)\nsys.stdin.read()"
    parent = subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        assert parent.stdout is not None and parent.stdout.readline() == b"done\n"
        assert proc.tree_cpu_s(parent.pid) >= 0.29  # the child that burned it is gone
        assert proc.tree_pss_bytes(parent.pid) > 1_000_000
    finally:
        parent.communicate(b"")


def test_disk_bytes_count_blocks_and_not_holes(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "full").write_bytes(b"x" * 100_000)
    with (tmp_path / "holes").open("wb") as file:
        file.truncate(10_000_000)
    os.sync()
    assert 100_000 <= proc.disk_bytes(tmp_path) < 200_000


def test_a_table_names_the_systems_and_judges_each_goal() -> None:
    two = Row("produce 1 kB", "records/s", "more", {"zafka": [80, 90, 85], "zafka os": [150], "kafka": [100, 100, 100]},
              (Goal(0.8, 1.1), Goal(1.0, 1.4, subject="zafka os")))
    first, second = cells(two)
    assert first[2:5] == ["85 (80-90)", "150", "100"]
    assert first[-4:] == ["0.85x [0.80-0.90]", "0.8x", "1.1x", "reached"]
    assert second[-4:] == ["1.50x [1.50-1.50] (zafka os / kafka)", "1x", "1.4x", "aim"]
    text = markdown([two])
    assert "Kafka, flush.messages=1" not in text and "zafka, fsync: os" in text
    assert len({line.count("|") for line in text.splitlines()}) == 1


def test_results_of_suites_merge_and_a_suite_replaces_its_own(tmp_path: Path) -> None:
    file = tmp_path / "results.json"
    for suite, value in (("a", 1.0), ("b", 2.0), ("a", 3.0)):
        results = Results.load(file)
        results.put(suite, [row(zafka=[value])], rounds=1, seconds=2.0, about={})
        results.save(file)
    again = Results.load(file)
    assert again.rows("a") == [row(zafka=[3.0])]
    assert again.rows("b") == [row(zafka=[2.0])]
    assert again.rows("c") == []
    assert [path.name for path in tmp_path.iterdir()] == ["results.json"]


def test_pictures_are_svg_with_a_bar_for_each_system(tmp_path: Path) -> None:
    results = Results()
    measured = Row("produce 100 B", "records/s", "more", {"zafka": [10.0, 20.0], "kafka": [5.0]})
    results.put("throughput", [measured, Row("produce 100 B: disk", "bytes", "less", {"zafka": [1.0]})],
                rounds=1, seconds=1, about={})
    (file,) = [path for path in plots.draw(results, tmp_path) if path.name == "throughput.svg"]
    space = "{http://www.w3.org/2000/svg}"
    drawn = xml.etree.ElementTree.parse(file).getroot()
    bars = [float(one.get("width", "0")) for one in drawn.iter(f"{space}rect") if one.get("height") == "12"][2:]
    assert bars == [pytest.approx(plots.BAR_WIDTH * 15 / 20), pytest.approx(plots.BAR_WIDTH * 5 / 20)]
    assert not any("disk" in (one.text or "") for one in drawn.iter(f"{space}text"))


def test_java_must_account_for_all_records() -> None:
    told = ("50000 records sent, 10000.0 records/sec (0.95 MB/sec), 2.0 ms avg latency, 9.0 ms max latency.\n"
            "90000 records sent, 345678.9 records/sec (32.97 MB/sec), 1.5 ms avg latency\n")
    assert rate(told, 90_000) == 345678.9
    with pytest.raises(RuntimeError, match="did not send 90001"):
        rate(told, 90_001)


    told = ("start.time, end.time, data.consumed.in.MB, MB.sec, data.consumed.in.nMsg, nMsg.sec, rebalance.time.ms, "
            "fetch.time.ms, fetch.MB.sec, fetch.nMsg.sec\n2026-11-26 04:05:09:195, 2026-11-26 04:05:10:046, 95.3674, "
            "112.0651, 90000, 1175088.1316, 316, 535, 178.2569, 1869158.8785\n")
    assert fetch_rate(told, 90_000) == 1869158.8785
    with pytest.raises(RuntimeError, match="did not read 90001"):
        fetch_rate(told, 90_001)


def test_every_suite_says_what_it_measures() -> None:
    assert all(suite.about and suite.minutes > 0 for suite in SUITES.values())


def test_a_report_writes_figures_into_their_places_and_nothing_else(tmp_path: Path) -> None:
    results = Results()
    about = {"cores": 2, "load before": 0.1}
    results.put("small", [Row("small requests, 1 in flight", "records/s", "more", {"zafka": [10, 20, 30], "kafka": [20, 20, 20]})],
                rounds=3, seconds=2.0, about=about)
    document = tmp_path / "performance.md"
    document.write_text("before\n<!-- bench small -->\n<!-- end -->\nbetween\n<!-- bench -->\nold\n<!-- end -->\nafter\n")
    report.rewrite(document, results)
    text = document.read_text()
    assert "3 rounds, 2 cores, load average 0.1 before and - after." in text
    assert "| small requests, 1 in flight | records/s | 20 | - | 20 | 1.00x |" in text
    assert "old" not in text and text.startswith("before\n") and "\nbetween\n" in text and text.endswith("\nafter\n")
    report.rewrite(document, results)
    assert document.read_text() == text
    document.write_text("<!-- bench java -->\n<!-- end -->")
    with pytest.raises(SystemExit, match="no figures of 'java'"):
        report.rewrite(document, results)
