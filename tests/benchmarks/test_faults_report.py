import dataclasses
import time
from pathlib import Path

from benchmarks.faults.__main__ import run_fault
from benchmarks.faults.bench import Bench
from benchmarks.faults.fault import Fault
from benchmarks.faults.forks import fork
from benchmarks.faults.progress import Progress
from benchmarks.faults.report import TWIN, as_markdown, summaries, write_figures

FAULT = Fault("f", "a fault", "done so", "nothing guards", lambda *_: ["1", "2"], lambda *_: [], lambda *_: [])


def test_a_stopped_run_goes_on_and_results_of_other_code_do_not_count(tmp_path: Path) -> None:
    path = tmp_path / "long.jsonl"
    progress = Progress(path, "code")
    progress.add("f", "1", problems=[], seconds=1.0)
    progress.add("f", "2", skipped="strace is not installed")
    path.write_text(path.read_text() + '{"cut')
    again = Progress(path, "code")
    assert again.missing("f", ["1", "2", "3"]) == ["2", "3"]
    again.add("f", "2", problems=[])
    assert Progress(path, "code").missing("f", ["1", "2", "3"]) == ["3"]
    assert Progress(path, "other code").missing("f", ["1"]) == ["1"]


def test_the_report_prints_n_beside_every_zero_and_what_broke(tmp_path: Path) -> None:
    progress = Progress(tmp_path / "long.jsonl", "code")
    progress.add("f", "1", problems=[], seconds=1.0)
    progress.add("f", TWIN, problems=["I2: half a file"], seconds=1.0)
    rows = summaries([FAULT], progress, {"f": 2})
    assert "| a fault | 1 of 2 | 0 of 1 | red | 2 |" in as_markdown([FAULT], rows, command="make faults", code="code")
    progress.add("f", "2", problems=[f"I4: /work-folder/trials/{'0' * 32}/photos"], seconds=1.0)
    text = as_markdown([FAULT], summaries([FAULT], progress, {"f": 2}), command="make faults", code="code")
    assert "| a fault | 2 | 1 of 2 | red | 3 |" in text
    assert "- a fault, 2: I4: STORE/photos" in text


def test_figures_take_the_place_of_older_ones_in_a_page(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("# Before\n<!-- figures -->\nold\n<!-- end of figures -->\nafter\n")
    write_figures(page, "new\n")
    assert page.read_text() == "# Before\n<!-- figures -->\nnew\n<!-- end of figures -->\nafter\n"


def test_a_fault_that_cannot_be_injected_is_listed_with_its_reason(tmp_path: Path) -> None:
    progress = Progress(tmp_path / "long.jsonl", "code")
    progress.add("f", TWIN, skipped="strace is not installed")
    text = as_markdown([FAULT], summaries([FAULT], progress, {"f": None}), command="make faults", code="code")
    assert "- a fault: strace is not installed." in text
    assert "| a fault | 0 of 0 | 0 of 0 | not run | 0 |" in text


def test_trials_from_one_state_are_run_once_and_their_verdict_counts_for_all(tmp_path: Path) -> None:
    ran = []

    def run(_: Bench, key: str) -> list[str]:
        ran.append(key)
        return [f"I2: {key[0]} broke"] if key[0] == "b" else []

    keys = ["a1", "a2", "b1", "b2", "b3"]
    fault = dataclasses.replace(FAULT, keys=lambda *_: keys, run=run, state=lambda _, key: key[0], warm=False)
    path = tmp_path / "long.jsonl"
    assert run_fault(fault, Bench(tmp_path), Progress(path, "code"), long=True, until=None) == 5
    assert sorted(key[0] for key in ran) == ["a", "b"]

    resumed = Progress(path, "code")
    row = summaries([fault], resumed, {"f": 5})[0]
    assert (row["run"], row["states"], row["broken"]) == (5, 2, 3)
    assert "| a fault | 5, of 2 distinct states | 3 of 5 |" in as_markdown(
        [fault], [row], command="make faults", code="c"
    )

    more = dataclasses.replace(fault, keys=lambda *_: [*keys, "a3", "c1"])
    run_fault(more, Bench(tmp_path), resumed, long=True, until=None)
    assert len(ran) == 3
    assert ran[-1] == "c1"


def test_what_did_not_finish_is_listed_as_such(tmp_path: Path) -> None:
    progress = Progress(tmp_path / "long.jsonl", "code")
    progress.add("f", "1", problems=[], seconds=1.0)
    text = as_markdown([FAULT], summaries([FAULT], progress, {"f": 1_000}), command="make faults", code="code")
    assert "### Not finished\n- a fault: 1 of 1,000 trials were run, and nothing is said of the others." in text
    text = as_markdown([FAULT], summaries([FAULT], progress, {"f": 1}), command="make faults", code="code")
    assert "### Not finished\n- nothing" in text


def test_a_child_that_answered_in_time_is_not_late_because_its_parent_was_stopped() -> None:
    child = fork(lambda: "done")
    time.sleep(0.5)
    ended = child.wait(timeout_s=0.0)
    assert (ended.value, ended.error) == ("done", None)
    late = fork(lambda: time.sleep(30)).wait(timeout_s=0.1)
    assert late.error is not None
    assert late.error.startswith("TimeoutError")
