"""Test the ranking of models from result folders in the layout of mteb."""

import json
import math

import numpy as np
import pytest
from scipy import stats

from unialign.cli import main
from unialign.errors import ConfigError, DataError
from unialign.experiments import ScoreTable, rank_models, read_mteb
from unialign.experiments._mteb_queries import ndcg_per_query
from unialign.experiments._ranking import _borda
from unialign.experiments._student_t import quantile, two_sided_p


def write_task(folder, model, task, score, *, revision="abc123", split="test", meta=True, **more):
    path = folder / model.replace("/", "__") / revision
    path.mkdir(parents=True, exist_ok=True)
    scores = score if isinstance(score, dict) else {"default": score}
    content = {
        "dataset_revision": "27a168819829fe9bcd655c2df245fb19452e8e06",
        "evaluation_time": 1.5,
        "kg_co2_emissions": None,
        "mteb_version": "2.26.24",
        "scores": {
            split: [
                {"hf_subset": subset, "languages": ["eng-Latn"], "main_score": value, "ndcg_at_10": value}
                for subset, value in scores.items()
            ]
        },
        "task_name": task,
        **more,
    }
    (path / f"{task}.json").write_text(json.dumps(content))
    if meta:
        (path / "model_meta.json").write_text(json.dumps({"name": model, "revision": revision, "modalities": ["text"]}))
    return path


@pytest.fixture
def results(tmp_path):
    """Write results of five models on 12 tasks; the first two are nearly equal, and the last has far lower scores."""
    rng = np.random.default_rng(0)
    difficulty = rng.uniform(0.3, 0.7, 12)
    for model, level in {"a/best": 0.2, "a/second": 0.198, "b/third": 0.1, "b/fourth": 0.09, "c/last": -0.1}.items():
        for i, base in enumerate(difficulty):
            write_task(tmp_path / "results", model, f"Task{i}", float(base + level + 0.02 * rng.standard_normal()))
    return tmp_path / "results"


def table(scores_MT, queries=None):
    scores_MT = np.asarray(scores_MT, dtype=float)
    names = tuple(f"m{i}" for i in range(len(scores_MT)))
    return ScoreTable(names, tuple(f"t{i}" for i in range(scores_MT.shape[1])), scores_MT, queries or {})


def test_models_are_ranked_with_groups_that_cannot_be_separated(results):
    scores = read_mteb(results)
    assert scores.models == ("a/best", "a/second", "b/fourth", "b/third", "c/last")
    assert (len(scores.tasks), scores.scores_MT.shape, scores.has_queries) == (12, (5, 12), False)
    ranking = rank_models(scores)
    assert ranking.groups in (
        [["a/best", "a/second"], ["b/third", "b/fourth"], ["c/last"]],
        [["a/second", "a/best"], ["b/third", "b/fourth"], ["c/last"]],
    )
    first, second, *_, last = ranking.models
    assert (first.rank, second.rank, last.rank) == (1, 2, 5)
    assert (first.rank_low, first.rank_high, second.rank_low, last.rank_low, last.rank_high) == (1, 2, 1, 5, 5)
    assert "is not separable from" in ranking.answer
    assert "over 12 tasks" in ranking.answer
    for model in ranking.models:
        assert model.low < model.score < model.high
    json.dumps(ranking.to_dict())


def test_points_and_tests_of_the_mean_equal_the_paired_t_test(results):
    scores = read_mteb(results)
    ranking = rank_models(scores, resamples=20000)
    index = {name: i for i, name in enumerate(scores.models)}
    for pair in ranking.differences:
        a, b = scores.scores_MT[index[pair.better]], scores.scores_MT[index[pair.worse]]
        expected = stats.ttest_rel(a, b)
        assert pair.difference == pytest.approx((a - b).mean())
        low, high = expected.confidence_interval()
        # The percentile interval may be asymmetric, but has nearly the same width.
        assert pair.high - pair.low == pytest.approx(high - low, rel=0.12)
        if expected.pvalue > 2**-10:
            assert pair.p == pytest.approx(expected.pvalue, rel=0.15)
        else:
            assert pair.p <= 2**-10


@pytest.mark.parametrize("freedom", [1, 2, 3, 5, 11, 40, 1000])
def test_student_t_equals_scipy(freedom):
    for t in (0.0, 1e-6, 0.3, 1.0, 2.5, 7.0, 40.0):
        assert two_sided_p(t, freedom) == pytest.approx(2 * stats.t.sf(t, freedom), rel=1e-8)
        assert two_sided_p(-t, freedom) == two_sided_p(t, freedom)
    assert quantile(0.975, freedom) == pytest.approx(stats.t.ppf(0.975, freedom), rel=1e-9)
    assert two_sided_p(math.inf, freedom) == 0
    assert math.isnan(two_sided_p(math.nan, freedom))


@pytest.mark.slow
@pytest.mark.parametrize("tasks", [4, 8, 25])
def test_equal_models_are_separated_in_at_most_five_percent_of_cases(tasks):
    rng = np.random.default_rng(tasks)
    found = 0
    for trial in range(400):
        ranking = rank_models(table(0.5 + 0.1 * rng.standard_normal((4, tasks))), resamples=200, seed=trial)
        found += any(pair.is_separable for pair in ranking.differences)
    assert found <= 31  # The probability of more than 31 errors in 400 trials at 5 % is below 1 %.


def test_a_clear_difference_is_found_and_the_smallest_p_is_limited_by_the_number_of_tasks():
    scores = np.array([[0.6] * 4, [0.5] * 4])
    ranking = rank_models(table(scores))
    assert ranking.differences[0].p == 2.0**-3
    assert not ranking.differences[0].is_separable
    ranking = rank_models(table(np.repeat(scores, 3, axis=1)))
    assert ranking.differences[0].is_separable
    assert ranking.groups == [["m0"], ["m1"]]


def test_equal_scores_share_their_rank():
    scores = np.array([[0.5, 0.4, 0.6], [0.5, 0.4, 0.6], [0.1, 0.2, 0.3]])
    ranking = rank_models(table(scores))
    assert [model.rank for model in ranking.models] == [1, 1, 3]
    assert ranking.differences[0].p == 1


def test_borda_counts_beaten_models_per_task():
    points = _borda(np.array([[0.9, 0.1], [0.5, 0.1], [0.1, 0.8]]))
    np.testing.assert_allclose(points, [[1.0, 0.25], [0.5, 0.25], [0.0, 1.0]])
    # A model that is narrowly best on most tasks and fails on one task is first by ranks, but not by the mean score.
    scores = np.array([[0.51, 0.52, 0.53, 0.54, 0.0], [0.5, 0.5, 0.5, 0.5, 0.5]])
    assert rank_models(table(scores)).models[0].name == "m1"
    assert rank_models(table(scores), statistic="borda").models[0].name == "m0"


def reference_ndcg(retrieved, qrels):
    found = {}
    for query, relevant in qrels.items():
        documents = [(score, name) for name, score in retrieved.get(query, {}).items() if name != query]
        documents.sort(reverse=True)
        gain = sum(relevant.get(name, 0) / math.log2(i + 2) for i, (_, name) in enumerate(documents[:10]))
        best = sum(v / math.log2(i + 2) for i, v in enumerate(sorted(relevant.values(), reverse=True)[:10]))
        found[query] = gain / best
    return found


def write_predictions(results, model, task, retrieved, *, subset="default", split="test"):
    path = results.parent / "predictions" / model.replace("/", "__")
    path.mkdir(parents=True, exist_ok=True)
    meta = {"model_name": model, "revision": "abc123"}
    content = {"mteb_model_meta": meta, subset: {split: retrieved}}
    (path / f"{task}_predictions.json").write_text(json.dumps(content))


def search_results(seed, quality, *, queries=60, documents=40):
    rng = np.random.default_rng(seed)
    qrels = {f"q{q}": {f"d{(3 * q) % documents}": 2, f"d{(3 * q + 1) % documents}": 1} for q in range(queries)}
    noise = np.random.default_rng(99).standard_normal((queries, documents))
    retrieved = {
        query: {
            f"d{d}": float(quality * (f"d{d}" in qrels[query]) + noise[i, d] + 0.3 * rng.standard_normal())
            for d in range(documents)
        }
        for i, query in enumerate(qrels)
    }
    return retrieved, qrels


def test_queries_are_resampled_if_their_scores_are_known(tmp_path):
    results, qrels_folder = tmp_path / "results", tmp_path / "qrels"
    qrels_folder.mkdir()
    for task in ("One", "Two"):
        for seed, (model, quality) in enumerate({"a/x": 2.5, "a/y": 1.0, "b/z": 0.98}.items()):
            retrieved, qrels = search_results(seed, quality)
            scores = reference_ndcg(retrieved, qrels)
            assert ndcg_per_query(retrieved, qrels) == pytest.approx(scores)
            write_task(results, model, task, round(float(np.mean(list(scores.values()))), 5))
            write_predictions(results, model, task, retrieved)
        (qrels_folder / f"{task}.json").write_text(json.dumps({"default": {"test": qrels}}))
    folders = [results, tmp_path / "predictions"]
    scores = read_mteb(folders, qrels=qrels_folder)
    assert scores.has_queries
    assert scores.queries["One"].shape == (3, 60)
    np.testing.assert_allclose(scores.queries["One"].mean(1), scores.scores_MT[:, 0], atol=1e-5)
    ranking = rank_models(scores)
    assert ranking.unit == "queries"
    assert ranking.settings["queries"] == 120
    assert ranking.groups[0] == ["a/x"]
    assert len(ranking.groups) == 2
    x = scores.queries
    error = 0.5 * math.sqrt(sum(x[t][0].var(ddof=1) / 60 for t in x))
    assert ranking.models[0].high - ranking.models[0].low == pytest.approx(2 * 2.0 * error, rel=0.1)
    # The same queries in the format of BEIR give the same numbers.
    lines = [f"{q}\t{d}\t{v}" for q, documents in qrels.items() for d, v in documents.items()]
    for task in ("One", "Two"):
        (qrels_folder / f"{task}.json").unlink()
        (qrels_folder / f"{task}.tsv").write_text("\n".join(["query-id\tcorpus-id\tscore", *lines]))
    again = read_mteb(folders, qrels=qrels_folder)
    np.testing.assert_array_equal(again.queries["Two"], scores.queries["Two"])


def test_queries_that_do_not_give_the_stored_score_are_not_used(tmp_path):
    results, qrels_folder = tmp_path / "results", tmp_path / "qrels"
    qrels_folder.mkdir()
    retrieved, qrels = search_results(0, 2.0)
    for model in ("a/x", "a/y"):
        for task in ("One", "Two"):
            write_task(results, model, task, 0.123)
            write_predictions(results, model, task, retrieved)
    (qrels_folder / "One.json").write_text(json.dumps({"default": {"test": qrels}}))
    scores = read_mteb([results, tmp_path / "predictions"], qrels=qrels_folder)
    assert not scores.queries
    assert "the mean of their nDCG@10 is not the stored score" in " ".join(scores.notes)
    assert "Two: queries are not scored, since predictions or relevances are missing" in " ".join(scores.notes)
    assert rank_models(scores).unit == "tasks"


def test_subsets_splits_and_revisions_that_models_do_not_share(tmp_path):
    write_task(tmp_path, "a/x", "Multi", {"en": 0.8, "de": 0.2})
    write_task(tmp_path, "a/y", "Multi", {"en": 0.7})
    for model in ("a/x", "a/y"):
        write_task(tmp_path, model, "Dev", 0.5, split="dev")
    write_task(tmp_path, "a/x", "Extra", 0.1)
    write_task(tmp_path, "a/x", "Multi", 0.0, revision="older")
    found = read_mteb(tmp_path)
    assert found.models == ("a/x", "a/y")
    assert found.tasks == ("Dev", "Multi")
    np.testing.assert_allclose(found.scores_MT, [[0.5, 0.8], [0.5, 0.7]])
    notes = " ".join(found.notes)
    assert "a/x: revision older is not used" in notes
    assert "Multi: 1 subset left out" in notes
    assert "1 of 3 tasks are left out" in notes
    assert read_mteb(tmp_path, tasks=["Extra", "Multi"]).models == ("a/x",)


def test_the_revision_with_the_requested_tasks_is_chosen(tmp_path):
    for task in ("One", "Two"):
        write_task(tmp_path, "a/x", task, 0.5, revision="aaa")
    write_task(tmp_path, "a/x", "Three", 0.25, revision="bbb")
    found = read_mteb(tmp_path, tasks=["Three"])
    assert found.scores_MT.tolist() == [[0.25]]
    assert found.notes[0] == "a/x: revision aaa is not used, since bbb has more requested tasks"
    assert read_mteb(tmp_path).notes[0] == "a/x: revision bbb is not used, since aaa has more tasks"
    write_task(tmp_path, "a/x", "Four", 0.25, revision="bbb")
    assert read_mteb(tmp_path).notes[0].endswith("aaa has as many tasks and was found first")


@pytest.mark.parametrize("depth", ["results", "model", "revision"])
def test_the_folder_of_results_of_a_model_or_of_a_revision(tmp_path, depth):
    folder = write_task(tmp_path / "results", "org/model", "One", 0.5)
    write_task(tmp_path / "results", "org/model", "Two", 0.25)
    chosen = {"results": tmp_path / "results", "model": folder.parent, "revision": folder}[depth]
    found = read_mteb(chosen)
    assert found.models == ("org/model",)
    np.testing.assert_allclose(found.scores_MT, [[0.5, 0.25]])
    (folder / "model_meta.json").unlink()
    assert read_mteb(chosen).models == ("org/model",)


@pytest.mark.parametrize(("place", "folder"), [(".", "."), ("revision", "."), (".", "revision"), ("revision", "..")])
def test_relative_folders_keep_the_name_of_the_model(tmp_path, monkeypatch, place, folder):
    for task in ("One", "Two"):
        write_task(tmp_path, "org/model", task, 0.5, revision="revision", meta=False)
    monkeypatch.chdir(tmp_path / "org__model" / place)
    assert read_mteb(folder).models == ("org/model",)


def test_intervals_are_within_the_range_of_the_scores():
    for scores, limits in (
        ([[0.4, 0.562], [0.2, 0.1]], (0, 1)),
        ([[0.05, 0.9], [-0.2, 0.1]], (-1, 1)),
        ([[50, 60], [20, 90]], (0, math.inf)),
    ):
        for statistic in ("mean", "borda"):
            low, high = (0, 1) if statistic == "borda" else limits
            ranking = rank_models(table(scores), statistic=statistic)
            assert all(low <= model.low <= model.score <= model.high <= high for model in ranking.models)
            assert all(low - high <= pair.low <= pair.high <= high - low for pair in ranking.differences)
    first = rank_models(table([[0.05, 0.9], [-0.2, 0.1]])).models[0]
    assert first.low < 0
    with pytest.raises(DataError, match=r"finite, with absolute values of at most 1e\+100"):
        rank_models(table([[1.7e308] * 2, [1, 2]]))
    with pytest.raises(DataError, match=r"queries\['t0'\] must be finite"):
        table([[0.5], [0.5]], {"t0": np.array([[0.5, 0.5], [np.nan, 0.5]])})


def test_options_that_are_not_lists_and_results_without_scores_are_refused(tmp_path, results):
    for folders in (None, 3, [], [None]):
        with pytest.raises(ConfigError, match="folders must be a folder or a list of folders"):
            read_mteb(folders)
    for option in ("models", "tasks", "splits"):
        with pytest.raises(ConfigError, match=rf"{option} must be a list such as \['a/best'\], got the string"):
            read_mteb(results, **{option: "a/best"})
        with pytest.raises(ConfigError, match=f"{option} must be a list of strings"):
            read_mteb(results, **{option: [3]})
        with pytest.raises(ConfigError, match=f"{option} is empty"):
            read_mteb(results, **{option: []})
    with pytest.raises(ConfigError, match="qrels must be a folder"):
        read_mteb(results, qrels=3)
    assert read_mteb(path for path in [results]).models == read_mteb(results).models
    write_task(tmp_path / "empty", "a/x", "One", math.nan)
    with pytest.raises(DataError, match=r"no model has results with a finite main_score: .*One\.json"):
        read_mteb(tmp_path / "empty")


def test_variants_of_a_model_are_models(tmp_path):
    for model in ("org/model", "org/other"):
        write_task(tmp_path, model, "One", 0.5)
    variant = tmp_path / "org__model/abc123/experiments/dim_64"
    variant.mkdir(parents=True)
    (variant / "One.json").write_text((tmp_path / "org__model/abc123/One.json").read_text())
    assert read_mteb(tmp_path).models == ("org/model", "org/model [dim_64]", "org/other")


def test_wrong_input_is_refused_with_advice(tmp_path, results):
    with pytest.raises(DataError, match="is not a folder"):
        read_mteb(tmp_path / "none")
    with pytest.raises(ConfigError, match="did you mean 'a/best'"):
        read_mteb(results, models=["a/bets"])
    with pytest.raises(ConfigError, match="no results on the task 'Task99'"):
        read_mteb(results, tasks=["Task99"])
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="has no mteb results"):
        read_mteb(tmp_path / "empty")
    with pytest.raises(DataError, match="only task"):
        rank_models(read_mteb(results, tasks=["Task1"]))
    with pytest.raises(DataError, match="at least two models"):
        rank_models(read_mteb(results, models=["a/best"]))
    write_task(results, "d/apart", "Another", 0.5)
    with pytest.raises(DataError, match="no common task"):
        read_mteb(results)


@pytest.mark.parametrize(
    "text",
    ["{", "[]", '{"scores": {"test": [{"main_score": NaN}]}, "task_name": "T"}', "[" * 100_000],
    ids=["damaged", "list", "nan", "deep"],
)
def test_damaged_files(results, text):
    (results / "a__best/abc123/Broken.json").write_text(text)
    if "NaN" in text:
        assert "no finite main_score" in " ".join(read_mteb(results).notes)
    else:
        with pytest.raises(DataError, match=r"Broken\.json"):
            read_mteb(results)


def test_the_command_writes_a_results_folder(results, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    write_task(results, "x/<b>", "Task0", 0.1)
    for i in range(1, 12):
        write_task(results, "x/<b>", f"Task{i}", 0.1 + 0.001 * i)
    assert main(["rank", "results", "--resamples", "500", "--out", "ranking"]) == 0
    printed = capsys.readouterr().out
    assert "is not separable from" in printed
    assert sorted(path.name for path in (tmp_path / "ranking").iterdir()) == [
        "config.yaml", "log.txt", "report.html", "results.json",
    ]  # fmt: skip
    found = json.loads((tmp_path / "ranking/results.json").read_text())
    assert found["answer"] in printed
    assert found["answer"] == rank_models(read_mteb("results"), resamples=500).answer
    assert found["scores"]["Task3"]["x/<b>"] == pytest.approx(0.103)
    page = (tmp_path / "ranking/report.html").read_text()
    assert "x/&lt;b&gt;" in page
    assert "<b>x" not in page
    assert main(["rank", "--config", "ranking/config.yaml", "--out", "again", "--statistic", "borda"]) == 0
    assert json.loads((tmp_path / "again/results.json").read_text())["statistic"] == "borda"
    assert main(["rank", "--out", "again"]) == 2
