"""The text that Prometheus reads."""

import re

from alexnet.serve.metrics import Counter, Histogram, Metrics

LABEL = r'[a-z_]+="(?:[^"\\\n]|\\.)*"'
SAMPLE = re.compile(rf"[a-z_]+(\{{{LABEL}(,{LABEL})*\}})? (\+Inf|\d*\.?\d+(e-?\d+)?)")


def test_counters_have_a_line_for_each_combination():
    counter = Counter("made_total", "Made.", ["what", "how"])
    counter.add("a", 'with "quotes" and \\ and \n')
    counter.add("a", "plainly", amount=2)
    counter.add("a", "plainly")
    assert counter.lines() == [
        'made_total{what="a",how="plainly"} 3',
        'made_total{what="a",how="with \\"quotes\\" and \\\\ and \\n"} 1',
    ]


def test_buckets_of_a_histogram_contain_those_below():
    histogram = Histogram("took_seconds", "Took.", (0.1, 1, 10))
    for value in (0.05, 0.1, 0.5, 100):
        histogram.observe(value)
    assert histogram.lines() == [
        'took_seconds_bucket{le="0.1"} 2',
        'took_seconds_bucket{le="1"} 3',
        'took_seconds_bucket{le="10"} 3',
        'took_seconds_bucket{le="+Inf"} 4',
        "took_seconds_sum 100.65",
        "took_seconds_count 4",
    ]


def test_the_page_follows_the_format():
    metrics = Metrics()
    metrics.requests.add("GET", "/", "200")
    metrics.watch("unknown_bytes", "Not known here.", lambda: None)
    lines = metrics.text().splitlines()
    assert metrics.text().endswith("\n") and "unknown_bytes" not in metrics.text()
    described = set()
    for line in lines:
        if line.startswith("# TYPE "):
            _, _, name, kind = line.split()
            assert name not in described and kind in ("counter", "gauge", "histogram")
            described.add(name)
        elif not line.startswith("# HELP "):
            assert SAMPLE.fullmatch(line), line
            assert re.sub(r"_(bucket|sum|count)$", "", re.split(r"[{ ]", line)[0]) in described
