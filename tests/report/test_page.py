"""The page in a real browser: it works offline, shows results as text, and is usable by keyboard and screen reader."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from report.made_methods import make_every_method
from report.made_results import TASKS, MadeTask, make_board_results, make_result
from uwbench.methods import METHODS
from uwbench.report.board import Board
from uwbench.report.build import build_board
from uwbench.report.compare import compare_models
from uwbench.report.curves import curve_rows
from uwbench.report.html import render_html, script_json, without_folders
from uwbench.report.ranks import certainty, rank_envelopes
from uwbench.results.record import read_result, write_result

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

HOSTILE = "<script>alert(1)</script>"
MARKUP = "Words <img src=x onerror=alert(2)> </script><b>"
FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
VIEWS = (
    "board",
    "choose",
    "tasks",
    "charts",
    "methods",
    "curves",
    "robustness",
    "compare",
    "stability",
    "published",
    "method",
)


def lacking(what: str) -> None:
    if os.environ.get("CI") == "true":
        pytest.fail(f"{what} is missing, and CI=true allows no skipping")
    pytest.skip(f"{what} is missing")


@pytest.fixture(scope="module")
def board(tmp_path_factory: pytest.TempPathFactory) -> Board:
    results = tmp_path_factory.mktemp("made")
    titled = [MadeTask(**task.__dict__) for task in TASKS]
    make_board_results(results, {"good": 0.8, "fair": 0.65, "poor": 0.35}, titled, further=True)
    for task in TASKS:
        make_result(results, HOSTILE, task, 0.5, labels=MARKUP if task.name == "words" else None, parameters=2_000_000)
    make_result(results, "half", TASKS[1], 0.6, training_data=({"dataset": "speakers", "split": "test"},))
    make_result(results, "broken", TASKS[0], 0.5, status="failed", error=f"cannot read {HOSTILE}")
    hostile = MadeTask("tags", classes=("<i>one</i>", "</script>two", "three"), n=60)
    for model, skill in (("good", 0.8), (HOSTILE, 0.5)):
        make_result(results, model, hostile, skill)
    return build_board(results)


@pytest.fixture(scope="module")
def html(board: Board, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("page") / "leaderboard.html"
    path.write_text(render_html(board), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    program = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if program is None:
        lacking("chromium (apt-get install chromium)")
    try:
        from playwright import sync_api as playwright
    except ImportError:
        lacking("playwright (pip install playwright)")
        raise
    with playwright.sync_playwright() as driver:
        started = driver.chromium.launch(executable_path=program, headless=True, args=list(FLAGS))
        yield started
        started.close()


@contextmanager
def opened(browser: Browser, path: Path) -> Iterator[Page]:
    """Open a page; afterwards check that it logged no error and requested nothing from elsewhere."""
    context = browser.new_context(viewport={"width": 1280, "height": 900}, color_scheme="light")
    page = context.new_page()
    faults: list[str] = []
    page.on("console", lambda message: faults.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.on("dialog", lambda dialog: faults.append(f"dialog {dialog.message}"))
    page.on("request", lambda r: None if re.match(r"file:|data:|blob:", r.url) else faults.append(f"request {r.url}"))
    page.goto(path.as_uri())
    page.wait_for_selector("body[data-drawn]")
    yield page
    context.close()
    assert faults == []


@pytest.fixture
def page(browser: Browser, html: Path) -> Iterator[Page]:
    with opened(browser, html) as page:
        yield page


@pytest.fixture(scope="module")
def ranked(tmp_path_factory: pytest.TempPathFactory) -> Board:
    """A board of three ranked models, and one that has a single task."""
    results = tmp_path_factory.mktemp("ranked")
    make_board_results(results, {"good": 0.8, "fair": 0.65, "poor": 0.35})
    make_result(results, "half", TASKS[1], 0.6)
    return build_board(results)


@pytest.fixture
def ranked_page(browser: Browser, ranked: Board, tmp_path: Path) -> Iterator[Page]:
    (tmp_path / "ranked.html").write_text(render_html(ranked), encoding="utf-8")
    with opened(browser, tmp_path / "ranked.html") as page:
        yield page


# Tables and charts that are wider than the place they are in.
CUT = """[...document.querySelectorAll('.scroll, .chart')].filter((e) => e.scrollWidth > e.clientWidth + 1)
.map((e) => `${e.getAttribute('aria-label')}: ${e.scrollWidth} > ${e.clientWidth}`)"""


def names(page: Page) -> list[str]:
    return [str(row.get_attribute("data-model")) for row in page.query_selector_all("tr[data-model]")]


def go(page: Page, view: str) -> None:
    page.evaluate("view => { delete document.body.dataset.drawn; location.hash = view; }", view)
    page.wait_for_selector("body[data-drawn]")


def test_a_contaminated_score_is_marked_with_the_reason(page: Page) -> None:
    assert "1 task seen in training" in page.inner_text("tr[data-model=half]")
    assert "trained on test" in str(page.get_attribute("tr[data-model=half] .seen", "title"))
    go(page, "tasks=speakers")
    row = page.inner_text("tr:has(a:text-is('half'))")
    assert "trained on test" in row
    assert "speakers (test)" in row
    assert page.locator(".seen").count() == 1
    legend = page.inner_text("section:has(h2:text-is('What models were trained on'))")
    assert "clips that the task is scored on" in legend
    assert "training data unknown" in page.inner_text("tr:has(a:text-is('good'))")


def test_sorting_by_a_column_and_back(page: Page) -> None:
    assert names(page)[0] == "good"
    page.click("[data-sort=name]")
    assert names(page) == sorted(names(page), key=str.lower)
    assert page.get_attribute("th:has([data-sort=name])", "aria-sort") == "ascending"
    page.click("[data-sort=name]")
    assert names(page) == sorted(names(page), key=str.lower, reverse=True)
    page.click("[data-sort=score]")
    shown = [float(cell) for cell in page.locator("tr[data-model] td[data-column=score] .value").all_inner_texts()]
    assert shown == sorted(shown, reverse=True)


def test_filtering_by_a_word_keeps_the_focus(page: Page) -> None:
    page.fill("#filter", "FAI")
    assert names(page) == ["fair"]
    assert page.evaluate("document.activeElement.id") == "filter"
    page.fill("#filter", "nothing like it")
    assert names(page) == []
    page.fill("#filter", "")
    assert len(names(page)) == 5


def test_average_probe_and_tasks_can_be_chosen(page: Page, board: Board) -> None:
    def shown() -> str:
        return page.locator("tr[data-model=good] .value").first.inner_text()

    def expected(method: Any, average: str, scope: str = "suite") -> str:
        key = next(model.key for model in board.models if model.label == "good")
        row = board.row(key, method, average, scope)
        assert row is not None
        return f"{row.average.score:.3f}"

    assert shown() == expected("mlp", "weighted")
    page.check("input[name=average][value=chance]", force=True)
    assert shown() == expected("mlp", "chance")
    page.check("input[name=method][value=knn]", force=True)
    assert shown() == expected("knn", "chance")
    page.select_option("#scope", "domain:music")
    assert shown() == expected("knn", "chance", "domain:music")


def set_slider(page: Page, task: str, value: float) -> None:
    page.get_by_role("slider", name=task, exact=True).fill(str(value))


def test_my_mix_ranks_by_own_weights_which_the_address_keeps(ranked_page: Page, ranked: Board) -> None:
    page = ranked_page
    page.check("input[name=average][value=mix]", force=True)
    set_slider(page, "Genres", 3)
    set_slider(page, "Scenes", 0)
    weights = {task.name: 1.0 for task in TASKS} | {"genres": 3.0, "scenes": 0.0}
    expected = {}
    for model in ranked.models[:3]:
        cells = {name: ranked.cell(model.key, name, "mlp") for name in weights}
        total = sum(weights[name] * cell.score.main_score for name, cell in cells.items() if cell is not None)
        expected[model.label] = f"{total / sum(weights.values()):.3f}"
    assert names(page) == ["good", "fair", "poor", "half"]
    for rank, label in enumerate(expected, 1):
        row = page.locator(f"tr[data-model={label}]")
        assert row.locator("[data-column=rank]").inner_text() == str(rank)
        assert row.locator("[data-column=score] .value").inner_text() == expected[label]
    half = page.locator("tr[data-model=half]")
    assert half.locator("[data-column=rank]").inner_text() == "–"
    assert half.locator("[data-column=tasks]").inner_text() == "1 of 5"
    assert "mix=" in page.url
    page.reload()
    page.wait_for_selector("body[data-drawn]")
    assert page.inner_text("tr[data-model=good] [data-column=score] .value") == expected["good"]
    assert page.get_by_role("slider", name="Genres", exact=True).input_value() == "3"
    page.get_by_role("button", name="Reset").click()
    assert "mix=" not in page.url
    plain = ranked.row(ranked.models[0].key, "mlp", "task")
    assert plain is not None
    assert page.inner_text("tr[data-model=good] [data-column=score] .value") == f"{plain.average.score:.3f}"


def test_my_mix_is_set_by_keyboard(page: Page) -> None:
    page.check("input[name=average][value=mix]", force=True)
    slider = page.get_by_role("slider", name="Words", exact=True)
    slider.focus()
    for _ in range(4):
        page.keyboard.press("ArrowLeft")
    assert slider.input_value() == "0"
    assert page.evaluate("document.activeElement.type") == "range"
    assert "mix=words:0" in page.url


def test_a_rank_stands_beside_the_paired_difference_to_the_best_or_a_chosen_model(
    ranked_page: Page, ranked: Board
) -> None:
    page, board = ranked_page, ranked

    def shown(label: str) -> str:
        return page.inner_text(f"tr[data-model={label}] td[data-column=difference]")

    def text(value: float) -> str:
        return f"{value:+.3f}".replace("-", "−")

    for average in ("weighted", "chance"):
        page.check(f"input[name=average][value={average}]", force=True)
        for label in ("fair", "poor"):
            overall = {row.average: row for row in compare_models(board, label, "good", "mlp").overall}[average]
            assert shown(label).split() == [text(overall.difference), text(overall.low), "to", text(overall.high)]
    page.select_option("#ref", label="fair")
    page.check("input[name=average][value=task]", force=True)
    overall = {row.average: row for row in compare_models(board, "good", "fair", "mlp").overall}["task"]
    assert shown("good").split() == [text(overall.difference), text(overall.low), "to", text(overall.high)]
    # A mix of equal weights is the task mean, whose interval the page combines from those of the tasks.
    page.check("input[name=average][value=mix]", force=True)
    words = shown("good").replace("−", "-").replace("to", "").split()
    value, low, high = map(float, words)
    assert value == pytest.approx(overall.difference, abs=1e-3)
    assert (low, high) == pytest.approx((overall.low, overall.high), abs=0.01)


def test_filters_hide_models_in_tables_and_charts_alike(page: Page) -> None:
    go(page, "choose")
    page.get_by_text("More filters").click()
    page.fill("#size", "8.5")
    assert page.locator("#view [role=status]").inner_text().startswith("3 of 5 models hidden")
    small = {HOSTILE, "half"}
    chosen = "[...document.querySelectorAll('tr[data-choice]')].map((row) => row.dataset.choice)"
    assert set(page.evaluate(chosen)) == small
    for view in ("board", "tasks", "charts"):
        page.get_by_role("link", name={"board": "Leaderboard"}.get(view, view.title()), exact=True).click()
        page.wait_for_function("view => location.hash.startsWith(`#${view}&`)", arg=view)
        page.wait_for_selector("body[data-drawn]")
        text = page.inner_text("#view")
        assert "3 of 5 models hidden by filters" in text
        assert "poor" not in text
    page.select_option("#seen", "unseen")
    assert "4 of 5 models hidden" in page.inner_text("#view")
    page.get_by_role("button", name="Show all").click()
    assert "poor" in page.inner_text("#view")
    page.fill("#speed", "1000000")
    assert "5 of 5 models hidden" in page.inner_text("#view")


def test_the_models_that_no_other_beats_in_quality_and_cost_are_marked(page: Page, board: Board) -> None:
    go(page, "choose")
    rows = {model.label: board.row(model.key, "mlp", "weighted") for model in board.models}
    ranked = {label: row.average.score for label, row in rows.items() if row is not None and row.rank is not None}
    sizes = {model.label: model.info.parameters or 0 for model in board.models}
    best = {
        label
        for label in ranked
        if not any(ranked[rival] > ranked[label] and sizes[rival] <= sizes[label] for rival in ranked)
    }
    marked = page.locator("tr[data-choice]", has_text="best for its size")
    assert {row.get_attribute("data-choice") for row in marked.all()} == best
    assert page.locator("#view .chart svg").count() == 2


def test_licences_of_known_models_can_be_filtered(browser: Browser, tmp_path: Path) -> None:
    for model in ("mms-300m", "openai/whisper-tiny", "own"):
        make_result(tmp_path / "r", model, TASKS[0], 0.5)
    path = tmp_path / "licences.html"
    path.write_text(render_html(build_board(tmp_path / "r")), encoding="utf-8")
    page = browser.new_page()
    page.goto(path.as_uri())
    page.wait_for_selector("body[data-drawn]")
    page.get_by_text("More filters").click()
    page.uncheck("text=CC BY-NC 4.0")
    page.uncheck("text=unknown")
    assert names(page) == ["openai/whisper-tiny"]
    page.reload()
    page.wait_for_selector("body[data-drawn]")
    assert names(page) == ["openai/whisper-tiny"]
    page.close()


def test_the_page_names_no_folder_of_its_maker(tmp_path: Path) -> None:
    results = tmp_path / "results"
    make_result(results, "m", TASKS[0], 0.5, notes=(f"2 clips are missing, first: {tmp_path}/data/a.wav",))
    make_result(results, "m", TASKS[1], 0.5, status="failed", error=f"{tmp_path}/data/b.wav: cannot be read")
    (results / "m" / "x" / "uwbench-1").mkdir(parents=True)
    (results / "m" / "x" / "uwbench-1" / "broken.json").write_text("{")
    text = render_html(build_board(results))
    assert str(tmp_path) not in text
    for name in ("…/a.wav", "…/b.wav", "…/broken.json"):
        assert name in text
    kept = "see https://example.org/a/b/c, label /m/09x0r, folds/1/a/b.wav"
    assert without_folders(kept) == kept
    assert without_folders(r"C:\Users\me\data\a.wav is silent") == "…/a.wav is silent"


def test_every_method_is_shown_with_its_metric_and_direction(page: Page, board: Board) -> None:
    go(page, "methods")
    heads = page.locator("section.flush table").first.locator("thead th").all_inner_texts()
    assert [head.split("\n")[0] for head in heads[1:]] == [METHODS[method].short for method in board.methods]
    assert "area of accuracy" in heads[-1]
    assert "better" in heads[-1]
    good = next(model.key for model in board.models if model.label == "good")
    shown = page.locator("tr[data-methods=good] .value").all_inner_texts()
    rows = [board.row(good, method, "weighted") for method in board.methods]
    assert shown == ["–" if row is None else f"{row.average.score:.3f}" for row in rows]
    page.select_option("#task", label="Genres")
    page.wait_for_selector("caption:has-text('Genres')")
    cells = [board.cell(good, "genres", method) for method in board.methods]
    assert page.locator("tr[data-methods=good] .value").all_inner_texts() == [
        "–" if cell is None else f"{cell.score.main_score:.3f}" for cell in cells
    ]


def test_ranks_over_methods_orders_and_equality_within_the_readers_margin(ranked_page: Page, ranked: Board) -> None:
    page = ranked_page
    go(page, "methods")
    for row in rank_envelopes(ranked):
        cells = page.locator(f"tr[data-envelope={row.model}] td").all_inner_texts()
        assert cells[:2] == [f"{a}–{b}" if a != b else f"{a}" for a, b in ((row.best, row.worst), (row.low, row.high))]
    every = [row for row in certainty(ranked).pairs if row.method == "every"]
    assert page.locator("tr[data-order]").count() == len(every) == 3
    assert page.locator("tr[data-order=ahead]").count() == sum(row.verdict == "ahead" for row in every) > 0
    assert "0 of 3 pairs" in page.inner_text("section:has(#margin) [role=status]")
    smallest = min(row.equal_from for row in certainty(ranked).pairs if row.method == "mlp" and row.equal_from)
    page.fill("#margin", f"{100 * smallest - 0.1:.1f}")
    assert page.locator("tr[data-equal]").count() == 0
    page.fill("#margin", f"{100 * smallest:.1f}")
    assert page.locator("tr[data-equal]").count() == 1
    assert "margin=" in page.url


def test_curves_and_their_crossings(page: Page, board: Board) -> None:
    go(page, "curves")
    assert page.locator("#view .chart svg").count() == 2
    page.get_by_text("Numbers of these curves").click()
    points = curve_rows(board)
    assert page.locator("#view details tbody tr").count() == len(points)
    page.select_option("#first", label="good")
    page.select_option("#second", label="poor")
    crossings = compare_models(board, "good", "poor", "few-shot").crossings
    rows = page.locator("section:has(#first) tbody tr").all_inner_texts()
    assert len(rows) == len(crossings) == 4
    assert all(crossing.ahead in row for row, crossing in zip(rows, crossings, strict=True))


def test_drops_on_corrupted_clips(page: Page) -> None:
    go(page, "robustness")
    row = page.locator("tr[data-robust=good]").inner_text()
    assert "−0.030" in row
    assert "−0.140 to −0.100" in row
    assert "7.80 dB" in row
    assert page.locator("tr[data-robust]").count() == 3
    assert page.locator("#view .chart svg").count() == 1


def test_a_page_without_sizes_and_speeds_says_so(browser: Browser, tmp_path: Path) -> None:
    for model in ("a", "b"):
        make_result(tmp_path / "r", model, TASKS[0], 0.5, parameters=0)
    (tmp_path / "page.html").write_text(render_html(build_board(tmp_path / "r")), encoding="utf-8")
    with opened(browser, tmp_path / "page.html") as page:
        go(page, "choose")
        assert "Quality against size is left out" in page.inner_text("#view")
        assert page.locator("#view .chart svg").count() == 1


def test_a_model_page_shows_its_errors(page: Page, board: Board) -> None:
    page.click("tr[data-model=good] a")
    page.wait_for_selector("details[data-task=genres]")
    page.click("details[data-task=genres] summary")
    page.wait_for_selector("details[data-task=genres] .chart svg")
    text = page.inner_text("details[data-task=genres]")
    assert "Worst classes" in text
    assert "Clips most often wrong" in text
    assert "clips/" in text
    assert "width 512" in text


def test_two_models_are_compared_either_way(page: Page) -> None:
    go(page, "compare")
    page.select_option("#first", label="poor")
    page.wait_for_function("document.querySelector('#view h2').textContent.startsWith('poor against')")
    page.select_option("#second", label="good")
    page.wait_for_function("document.querySelector('#view h2').textContent === 'poor against good'")
    assert page.locator("#view table").first.locator(".value").first.inner_text().startswith("−")
    assert page.locator("#view .chart svg").count() == 1


def test_every_view_draws_in_both_themes_and_on_a_phone(page: Page) -> None:
    for width, theme in ((1280, "light"), (1280, "dark"), (420, "light")):
        page.set_viewport_size({"width": width, "height": 844})
        page.evaluate("theme => setTheme(theme)", theme)
        for view in VIEWS:
            go(page, view)
            assert page.inner_text("#view").strip()
            assert page.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth"), view
            assert page.evaluate(CUT) == [], f"{view} at {width}"


def test_with_every_method_and_long_names_nothing_is_cut_off(browser: Browser, tmp_path: Path) -> None:
    """One model alone embeds texts: zero-shot ranks nothing, and has no part in the ranks over methods."""
    for task in (TASKS[0], TASKS[3]):
        make_every_method(tmp_path / "r", "clap-htsat-unfused", task, 0.8, context="trimmed")
        for model in ("wav2vec2-conformer-rel-pos-large", "logmel"):
            result = read_result(make_every_method(tmp_path / "r", model, task, 0.6))
            scores = {method: score for method, score in result.scores.items() if method != "zero-shot"}
            write_result(tmp_path / "r", result.model_copy(update={"scores": scores}))
    board = build_board(tmp_path / "r")
    assert len(board.methods) == 10
    (tmp_path / "page.html").write_text(render_html(board), encoding="utf-8")
    with opened(browser, tmp_path / "page.html") as page:
        for width in (1400, 390):
            page.set_viewport_size({"width": width, "height": 900})
            for view in ("methods", f"methods={TASKS[0].name}", "tasks", "compare"):
                go(page, view)
                assert page.evaluate(CUT) == [], f"{view} at {width}"
        page.set_viewport_size({"width": 1400, "height": 900})
        go(page, "methods")
        scores, ranks = (page.locator("section.flush table").nth(place).locator("thead th") for place in (0, 1))
        assert "zero-shot" in scores.all_inner_texts()[9].splitlines()
        ranking = [METHODS[method].short for method in board.methods if method not in ("zero-shot", "geometry")]
        assert ranks.all_inner_texts() == ["Model", "Best–worst", "95 %", *ranking]


def test_names_in_results_are_shown_as_text(page: Page, html: Path) -> None:
    text = html.read_text(encoding="utf-8")
    assert HOSTILE not in text
    assert "<img src=x" not in text
    assert HOSTILE in names(page)
    for view in (*VIEWS, "tasks=words", "tasks=tags"):
        go(page, view)
        assert page.locator("#view script, #view img, #view b:not(.bar b), #view i:not(.bar i)").count() == 0
    page.evaluate(
        "location.hash = 'model=' + encodeURIComponent(DATA.models.find(m => m.label.includes('script')).key)"
    )
    page.wait_for_selector("details[data-task=tags]")
    page.click("details[data-task=tags] summary")
    page.wait_for_selector("details[data-task=tags] .chart svg")
    assert "</script>two" in page.inner_text("details[data-task=tags]")
    assert page.locator("#view script, #view img").count() == 0


def test_script_json_cannot_leave_its_element() -> None:
    text = script_json({"</script>": "<!-- & \u2028"})
    assert not set("<>&\u2028") & set(text)
    with pytest.raises(ValueError, match="JSON compliant"):
        script_json(float("nan"))


def test_the_page_is_usable_by_keyboard(page: Page) -> None:
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    for _ in range(3):
        page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    page.wait_for_function("location.hash === '#choose'")
    go(page, "board")
    page.focus("[data-sort=name]")
    page.keyboard.press("Enter")
    assert page.get_attribute("th:has([data-sort=name])", "aria-sort") == "ascending"
    assert page.evaluate("document.activeElement.dataset.sort") == "name"
    page.focus("input[name=average]:checked")
    page.keyboard.press("ArrowRight")
    assert page.evaluate("state.average") == "domain"
    assert page.evaluate("document.activeElement.value") == "domain"


@pytest.fixture(scope="session")
def axe(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Return the accessibility checker axe-core, from UWBENCH_AXE or from npm; it is not part of the project."""
    path = os.environ.get("UWBENCH_AXE")
    if path:
        return Path(path).read_text(encoding="utf-8")
    folder = tmp_path_factory.mktemp("axe")
    npm = shutil.which("npm")
    if npm is None:
        lacking("axe-core (npm, or UWBENCH_AXE)")
    process = subprocess.run(
        [str(npm), "pack", "axe-core@4", "--silent"],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    archives = list(folder.glob("*.tgz"))
    if process.returncode or not archives:
        lacking("axe-core (npm cannot be reached)")
    with tarfile.open(archives[0]) as archive:
        member = archive.extractfile("package/axe.min.js")
        assert member is not None
        return member.read().decode()


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_no_accessibility_fault_is_found(page: Page, axe: str, theme: str) -> None:
    page.evaluate("theme => setTheme(theme)", theme)
    page.evaluate(axe)
    for view in (*VIEWS, "board&average=mix&seen=unseen", "model"):
        argument = page.evaluate("encodeURIComponent(DATA.models[0].key)") if view == "model" else ""
        go(page, f"model={argument}" if argument else view)
        if argument:
            page.click("details[data-task=genres] summary")
            page.wait_for_selector("details[data-task=genres] .chart svg")
        report = page.evaluate("axe.run({resultTypes: ['violations']})")
        faults = [f"{view}: {fault['id']}: {fault['nodes'][0]['html'][:160]}" for fault in report["violations"]]
        assert faults == []


def test_a_page_without_results_says_so(browser: Browser, tmp_path: Path) -> None:
    (tmp_path / "none").mkdir()
    path = tmp_path / "empty.html"
    path.write_text(render_html(build_board(tmp_path / "none")), encoding="utf-8")
    page = browser.new_page()
    page.goto(path.as_uri())
    page.wait_for_selector("body[data-drawn]")
    assert "No results yet" in page.inner_text("#view")
    page.close()


def test_the_notes_of_results_are_listed_once_for_all_models(browser: Browser, tmp_path: Path) -> None:
    for model in ("good", HOSTILE):
        make_result(tmp_path / "r", model, TASKS[0], 0.5, notes=(f"12 clips are silent, first: {HOSTILE}",))
    path = tmp_path / "noted.html"
    path.write_text(render_html(build_board(tmp_path / "r")), encoding="utf-8")
    page = browser.new_page()
    page.goto(path.as_uri())
    page.wait_for_selector("body[data-drawn]")
    page.get_by_text("Notes on the data (1)").click()
    assert page.locator("#view li").all_inner_texts() == [f"{TASKS[0].name}: 12 clips are silent, first: {HOSTILE}"]
    page.close()


@pytest.mark.slow
def test_a_clip_whose_file_exists_can_be_played(board: Board, tmp_path: Path) -> None:
    (tmp_path / "clips").mkdir()
    for index in range(120):
        (tmp_path / "clips" / f"{index:04d}.wav").write_bytes(b"")
    text = render_html(board, audio={"genres": tmp_path})
    assert (tmp_path / "clips").as_uri() in text
    assert (tmp_path / "clips").as_uri() not in render_html(board)
