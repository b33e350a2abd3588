import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest
from sklearn import metrics as sk

from dnl_video.errors import InputError
from dnl_video.results import metrics as m
from dnl_video.results.clip_metrics import accuracy_by_num_clips, evenly_spaced_clips


def random_case(seed, n=200, num_classes=12, signal=1.0):
    """Scores without ties."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(num_classes, size=n)
    logits = rng.normal(size=(n, num_classes))
    logits[np.arange(n), labels] += signal
    e = np.exp(logits)
    return (e / e.sum(axis=1, keepdims=True)).astype(np.float32), labels


def top_k(scores, labels, k):
    return np.mean(m.rank_of_label(scores, labels) < min(k, np.shape(scores)[1]))


# ---------------------------------------------------------------- ranks and top-k


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("k", [1, 2, 5, 11])
def test_top_k_agrees_with_scikit_learn(seed, k):
    scores, labels = random_case(seed)
    expected = sk.top_k_accuracy_score(labels, scores, k=k, labels=range(12))
    assert top_k(scores, labels, k) == pytest.approx(expected, abs=1e-12)


@given(st.data())
@settings(max_examples=60, deadline=None)
def test_rank_is_the_last_place_among_equal_scores(data):
    """Compare with the label's index in an order that puts it after all equal scores."""
    num_classes = data.draw(st.integers(1, 6))
    row = st.lists(st.sampled_from([0.0, 0.25, 0.5]), min_size=num_classes, max_size=num_classes)
    scores = np.array(data.draw(st.lists(row, min_size=1, max_size=5)))
    labels = np.array([data.draw(st.integers(0, num_classes - 1)) for _ in scores])
    for rank, values, label in zip(m.rank_of_label(scores, labels), scores, labels, strict=True):
        order = sorted(range(num_classes), key=lambda c: (-values[c], c == label))
        assert rank == order.index(label)


def test_equal_scores_of_all_classes_count_as_wrong():
    scores, labels = np.full((8, 8), 0.125), np.arange(8)
    assert m.rank_of_label(scores, labels).tolist() == [7] * 8
    assert top_k(scores, labels, 1) == 0
    assert top_k(scores, labels, 5) == 0
    assert top_k(scores, labels, 8) == 1


def test_ties_and_nan_by_hand():
    scores = np.array([[0.4, 0.4, 0.2], [0.4, 0.4, 0.2], [0.5, 0.3, 0.2], [0.5, np.nan, 0.2], [np.nan] * 3])
    assert m.rank_of_label(scores, [0, 1, 0, 0, 2]).tolist() == [1, 1, 0, 3, 3]
    assert top_k(scores, [0, 1, 0, 0, 2], 1) == pytest.approx(1 / 5)
    assert top_k(scores, [0, 1, 0, 0, 2], 99) == pytest.approx(3 / 5)  # NaN stays wrong


def test_fewer_classes_than_k_and_single_videos():
    assert top_k([[0.3]], [0], 1) == 1  # one class
    assert top_k([[0.3, 0.7]], [0], 5) == 1
    assert top_k([[0.3, 0.7]], [0], 1) == 0
    assert top_k([[1, 2, 3]], [2], 1) == 1  # integer scores


def test_ranks_do_not_depend_on_the_chunk_size(monkeypatch):
    scores, labels = random_case(0, n=101)
    whole = m.rank_of_label(scores, labels)
    monkeypatch.setattr(m, "_CHUNK", 7)
    np.testing.assert_array_equal(m.rank_of_label(scores, labels), whole)


@pytest.mark.parametrize(
    ("scores", "labels", "message"),
    [
        ([[0.5, 0.5]], [2], "label 2 has no score; allowed: 0 to 1"),
        ([[0.5, 0.5]], [-1], "label -1 has no score; allowed: 0 to 1"),
        ([[0.5, 0.5]], [0, 1], r"scores of shape \(1, 2\) with labels of shape \(2,\); give \[n, K\]"),
        ([0.5, 0.5], [0, 1], r"scores of shape \(2,\) with labels"),
        (np.zeros((0, 0)), [], r"scores of shape \(0, 0\) with labels of shape \(0,\); give \[n, K\] with K >= 1"),
    ],
)
def test_scores_and_labels_that_do_not_fit_are_refused(scores, labels, message):
    with pytest.raises(InputError, match=message):
        m.rank_of_label(scores, labels)


# ---------------------------------------------------------------- classes


@pytest.mark.parametrize("seed", range(3))
def test_mean_class_accuracy_and_confusion_agree_with_scikit_learn(seed):
    scores, labels = random_case(seed, num_classes=7)
    labels[labels == 3] = 4  # a class without videos
    hits, predicted = m.rank_of_label(scores, labels) == 0, scores.argmax(axis=1)
    recall = sk.recall_score(labels, predicted, labels=np.unique(labels), average="macro", zero_division=0)
    assert m.mean_class_accuracy(hits, labels).value == pytest.approx(recall, abs=1e-12)
    np.testing.assert_array_equal(
        m.confusion_matrix(scores, labels), sk.confusion_matrix(labels, predicted, labels=range(7))
    )
    table = m.per_class(hits, labels, 7)
    assert table[3] == (0, 0, None, None, None)
    assert sum(row.videos for row in table) == 200
    assert sum(row.correct for row in table) == hits.sum()
    for c in (0, 4, 6):
        assert table[c].accuracy == pytest.approx(np.mean(predicted[labels == c] == c))
        assert (table[c].low, table[c].high) == m.wilson_interval(table[c].correct, table[c].videos)


def test_the_predicted_class_of_a_tie_is_never_the_label():
    scores = [[0.4, 0.4, 0.2], [0.4, 0.4, 0.2], [0.1, 0.45, 0.45], [np.nan, 0.5, 0.5], [-np.inf] * 3]
    assert m.predicted_class(scores, [0, 1, 0, 0, 0]).tolist() == [1, 0, 1, -1, 1]
    assert m.confusion_matrix(scores, [0, 1, 0, 0, 0]).tolist() == [[0, 3, 0], [1, 0, 0], [0, 0, 0]]
    assert m.predicted_class(np.zeros((0, 3)), []).tolist() == []
    assert m.predicted_class([[0.5]], [0]).tolist() == [0]  # of one class there is no tie


@given(st.data())
@settings(max_examples=60, deadline=None)
def test_figures_are_the_lowest_of_all_ways_to_break_ties(data):
    """Compare with scikit-learn and argmax on scores whose ties are broken at random, or against the label."""
    num_classes, n = data.draw(st.integers(2, 5)), data.draw(st.integers(1, 12))
    rng = np.random.default_rng(data.draw(st.integers(0, 999)))
    scores = rng.integers(3, size=(n, num_classes)) / 4
    labels = rng.integers(num_classes, size=n)
    worst = scores.copy()
    worst[np.arange(n), labels] -= 0.1
    np.testing.assert_array_equal(m.rank_of_label(scores, labels) == 0, worst.argmax(axis=1) == labels)
    np.testing.assert_array_equal(
        m.confusion_matrix(scores, labels), sk.confusion_matrix(labels, worst.argmax(axis=1), labels=range(num_classes))
    )
    np.testing.assert_array_equal(
        np.diag(m.confusion_matrix(scores, labels)),
        [row.correct for row in m.per_class(m.rank_of_label(scores, labels) == 0, labels, num_classes)],
    )
    for k in range(1, num_classes):
        ours = top_k(scores, labels, k)
        broken = worst + rng.random(worst.shape) / 100
        lucky = scores + rng.random(scores.shape) / 100
        assert ours == pytest.approx(top_k_by_sorting(broken, labels, k))
        assert ours <= top_k_by_sorting(lucky, labels, k)


def top_k_by_sorting(scores, labels, k):
    return np.mean([label in np.argsort(-row)[:k] for row, label in zip(scores, labels, strict=True)])


@pytest.mark.parametrize("seed", range(3))
def test_top_k_mean_class_accuracy_and_confusion_agree_with_torchmetrics(seed):
    torch = pytest.importorskip("torch")
    from torchmetrics.functional.classification import multiclass_accuracy, multiclass_confusion_matrix

    scores, labels = random_case(seed)
    given = torch.from_numpy(scores), torch.from_numpy(labels)
    for k in (1, 5):
        expected = multiclass_accuracy(*given, num_classes=12, average="micro", top_k=k)
        assert top_k(scores, labels, k) == pytest.approx(float(expected), abs=1e-6)
    mean = m.mean_class_accuracy(m.rank_of_label(scores, labels) == 0, labels).value
    assert mean == pytest.approx(float(multiclass_accuracy(*given, num_classes=12, average="macro")), abs=1e-6)
    confusion = multiclass_confusion_matrix(*given, num_classes=12).numpy()
    np.testing.assert_array_equal(m.confusion_matrix(scores, labels), confusion)


@pytest.mark.parametrize(("correct", "n", "num_classes"), [(31, 40, 1), (20, 20, 4), (0, 20, 4)])
def test_mean_class_interval_of_one_class_and_of_equal_classes_is_wilsons(correct, n, num_classes):
    result = m.mean_class_accuracy(np.arange(n) < correct, np.arange(n) % num_classes)
    assert result == pytest.approx((correct / n, *m.wilson_interval(correct, n)))


def test_mean_class_accuracy_of_no_video():
    with pytest.raises(InputError, match="accuracy needs at least one video"):
        m.mean_class_accuracy([], [])


@pytest.mark.parametrize(
    ("truth", "sizes"),
    [([0.9] * 8, [20] * 8), ([0.99, 0.5] * 4, [20] * 8), ([0.7] * 50, [2] * 50), ([0.5, 0.8, 0.7], [30, 60, 100])],
)
def test_mean_class_interval_contains_the_truth_in_95_percent_of_samples(truth, sizes):
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(len(truth)), sizes)
    draws = rng.random((600, len(labels))) < np.array(truth)[labels]
    results = [m.mean_class_accuracy(hits, labels) for hits in draws]
    covered = np.mean([r.low <= np.mean(truth) <= r.high for r in results])
    assert 0.92 <= covered <= 0.98


# ---------------------------------------------------------------- intervals


@pytest.mark.parametrize(
    ("correct", "n", "low", "high"),
    [  # Newcombe, Statistics in Medicine 17:857, 1998, table I, method 3
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
        (20, 20, 0.8389, 1.0),
    ],
)
def test_wilson_interval_equals_published_values(correct, n, low, high):
    assert m.wilson_interval(correct, n) == pytest.approx((low, high), abs=5e-5)


@given(st.integers(1, 500), st.floats(0, 1), st.sampled_from([0.8, 0.95, 0.99]))
@settings(max_examples=50, deadline=None)
def test_wilson_interval_equals_scipy(n, share, confidence):
    correct = round(share * n)
    expected = binomtest(correct, n).proportion_ci(confidence, method="wilson")
    low, high = m.wilson_interval(correct, n, confidence)
    assert (low, high) == pytest.approx((expected.low, expected.high), abs=1e-9)
    assert 0 <= low <= correct / n <= high <= 1


def test_wilson_interval_without_data_and_with_bad_input():
    assert m.wilson_interval(0, 0) == (0, 1)
    with pytest.raises(InputError, match="3 of 2 is not a share; give 0 <= correct <= n"):
        m.wilson_interval(3, 2)
    with pytest.raises(InputError, match=r"confidence is 95; give a share between 0 and 1, such as 0.95"):
        m.wilson_interval(1, 2, 95)


def test_share_interval():
    assert m.share_interval([True, False, True, True]) == (0.75, *m.wilson_interval(3, 4))
    with pytest.raises(InputError, match="at least one video"):
        m.share_interval([])


def test_clustered_interval_is_between_that_of_videos_and_that_of_clips():
    rng = np.random.default_rng(0)
    same = np.repeat(rng.random(300) < 0.7, 10)
    group = np.repeat(np.arange(300), 10)
    low, high = m.wilson_interval(same[::10].sum(), 300)
    result = m.clustered_interval(same, group)
    assert result.value == same.mean()
    assert (result.low, result.high) == pytest.approx((low, high), abs=1e-3)
    free = rng.random(3000) < 0.7
    result = m.clustered_interval(free, group)
    assert result.high - result.low == pytest.approx(np.diff(m.wilson_interval(free.sum(), 3000))[0], rel=0.1)


def test_clustered_interval_at_the_edges():
    assert m.clustered_interval([True] * 4, [0, 0, 1, 1]) == (1.0, *m.wilson_interval(2, 2))
    assert m.clustered_interval([True, False], [5, 5]) == (0.5, *m.wilson_interval(0.5, 1))
    with pytest.raises(InputError, match="at least one video or clip"):
        m.clustered_interval([], [])


@pytest.mark.parametrize(
    ("hits", "sizes", "effective"),
    [
        # One right clip in nine videos of two, two in the tenth: V = 0.9 / 90 / 4, 0.55 * 0.45 / V = 99 > 20 clips.
        ([1, 0] * 9 + [1, 1], [2] * 10, 20),
        # A video of 10 clips is right, five of one clip are wrong: V = 13.33 / 30 / 6.25, 0.222 / V = 3.1 < 6 videos.
        ([1] * 10 + [0] * 5, [10, 1, 1, 1, 1, 1], 6),
        # 2, 1, 0 and 1 right of two clips: V = 2 / 12 / 4, 0.25 / V = 6.
        ([1, 1, 0, 1, 0, 0, 1, 0], [2] * 4, 6),
        # 2 and 1 right of two clips: V = 0.5 / 2 / 4, 0.1875 / V = 3.
        ([1, 1, 1, 0], [2, 2], 3),
        # One right clip in every video: V is 0, which proves nothing about other videos.
        ([1, 0] * 4, [2] * 4, 4),
    ],
)
def test_the_effective_number_lies_between_videos_and_clips(hits, sizes, effective):
    result = m.clustered_interval(hits, np.repeat(np.arange(len(sizes)), sizes))
    p = np.mean(hits)
    assert result == pytest.approx((p, *m.wilson_interval(p * effective, effective)))


def test_clustered_interval_contains_the_truth_in_95_percent_of_samples():
    rng = np.random.default_rng(1)
    group, covered = np.repeat(np.arange(100), 10), 0
    for _ in range(400):
        share = rng.beta(1.6, 0.4, size=100)  # mean 0.8; clips of one video mostly agree
        result = m.clustered_interval((rng.random((100, 10)) < share[:, None]).ravel(), group)
        covered += result.low <= 0.8 <= result.high
    assert 0.92 <= covered / 400 <= 0.98


# ---------------------------------------------------------------- calibration


@pytest.mark.parametrize("signal", [0.5, 3.0])
def test_calibration_error_agrees_with_torchmetrics(signal):
    torch = pytest.importorskip("torch")
    from torchmetrics.functional.classification import multiclass_calibration_error

    scores, labels = random_case(4, n=500, signal=signal)
    expected = multiclass_calibration_error(torch.from_numpy(scores), torch.from_numpy(labels), 12, n_bins=15)
    assert m.expected_calibration_error(scores, labels).ece == pytest.approx(float(expected), abs=1e-6)


def test_calibration_bins_by_hand():
    scores = [[0.5, 0.3, 0.2], [0.1, 0.4, 0.5], [0.9, 0.1, 0.0], [1.0, 0.0, 0.0], [np.nan] * 3]
    result = m.expected_calibration_error(scores, [0, 0, 0, 1, 0], bins=2)
    first, second = result.bins
    assert first == pytest.approx((0, 0.5, 2, 0.5, 0.5))  # a confidence of 0.5 belongs to the lower bin
    assert second == pytest.approx((0.5, 1, 2, 0.95, 0.5))
    assert result.ece == pytest.approx(0.5 * 0 + 0.5 * 0.45)
    assert (result.mean_confidence, result.videos) == (pytest.approx(2.9 / 4), 4)


def test_a_perfectly_calibrated_network():
    result = m.expected_calibration_error(np.repeat([[0.75, 0.25]], 4, axis=0), [0, 0, 0, 1])
    assert result.ece == pytest.approx(0)
    assert sum(b.accuracy is None for b in result.bins) == 14


@pytest.mark.parametrize(
    ("scores", "bins", "message"),
    [
        ([[3.0, -2.0]], 15, r"the highest scores span \[3, 3\]; calibration needs probabilities in \[0, 1\]"),
        ([[1.0002, 0.0]], 15, r"the highest scores span \[1.0002, 1.0002\]"),
        ([[-0.0001, -0.5]], 15, r"the highest scores span \[-0.0001, -0.0001\]"),
        ([[np.nan, np.nan]], 15, "calibration needs at least one video with scores"),
        ([[0.5, 0.5]], 0, "bins is 0; give at least 1"),
    ],
)
def test_scores_without_calibration_are_refused(scores, bins, message):
    with pytest.raises(InputError, match=message):
        m.expected_calibration_error(scores, [0], bins=bins)


def test_a_softmax_that_sums_to_a_little_more_than_1_is_in_the_last_bin():
    result = m.expected_calibration_error([[1.00009, 0.0], [0.0, 0.0]], [0, 0], bins=4)
    assert [b.videos for b in result.bins] == [1, 0, 0, 1]  # a confidence of 0 is in the first one
    assert result.ece == pytest.approx(0.00009 / 2, abs=1e-7)


# ---------------------------------------------------------------- clips


@pytest.mark.parametrize(
    ("num_clips", "k", "expected"),
    [
        (10, 1, [5]),
        (10, 2, [0, 9]),
        (10, 3, [0, 5, 9]),  # 4.5 goes up
        (10, 4, [0, 3, 6, 9]),
        (10, 5, [0, 2, 5, 7, 9]),  # 0, 2.25, 4.5, 6.75, 9
        (10, 10, list(range(10))),
        (4, 3, [0, 2, 3]),
        (1, 1, [0]),
        (2, 1, [1]),
    ],
)
def test_evenly_spaced_clips_by_hand(num_clips, k, expected):
    assert evenly_spaced_clips(num_clips, k).tolist() == expected


def test_clip_accuracies_equal_a_plain_loop():
    rng = np.random.default_rng(0)
    counts = [4, 0, 6, 4, 5]  # a video without clips is left out
    labels = rng.integers(3, size=5)
    clip_video = np.repeat(np.arange(5), counts)
    clip_scores = rng.random((len(clip_video), 3)).astype(np.float32)
    result = accuracy_by_num_clips(clip_scores, clip_video, labels)
    assert result.video.tolist() == [0, 2, 3, 4]
    assert result.k.tolist() == [1, 2, 3, 4]

    right = [clip_scores[i].argmax() == labels[v] for i, v in enumerate(clip_video)]
    assert np.mean(result.clip_rank == 0) == pytest.approx(np.mean(right))
    by_video = {v: clip_scores[clip_video == v] for v in result.video}
    centre = [by_video[v][len(by_video[v]) // 2].argmax() == labels[v] for v in result.video]
    assert np.mean(result.centre_rank == 0) == pytest.approx(np.mean(centre))
    for k, ranks in zip(result.k, result.rank_by_k, strict=True):
        hits = []
        for v, clips in by_video.items():
            mean = clips[[math.floor(j * (len(clips) - 1) / max(k - 1, 1) + 0.5) for j in range(k)]].mean(axis=0)
            hits.append((mean if k > 1 else clips[len(clips) // 2]).argmax() == labels[v])
        assert np.mean(ranks == 0) == pytest.approx(np.mean(hits))


def test_many_clips_are_tried_at_32_numbers():
    result = accuracy_by_num_clips(np.eye(2)[np.zeros(1000, int)], np.zeros(1000, int), [0])
    assert len(result.k) == 32
    assert (result.k[0], result.k[-1]) == (1, 1000)
    assert (result.rank_by_k == 0).all()


def test_clips_that_are_missing_or_unsorted_are_refused():
    with pytest.raises(InputError, match="clip accuracy needs at least one clip"):
        accuracy_by_num_clips(np.zeros((0, 2)), [], [0])
    for clip_video in ([1, 0], [0, 1, 0], [1, 0, 1], [0, 0, 1, 1, 0, 1]):
        with pytest.raises(InputError, match="clip_video must be ascending"):
            accuracy_by_num_clips(np.zeros((len(clip_video), 2)), clip_video, [0, 0])
