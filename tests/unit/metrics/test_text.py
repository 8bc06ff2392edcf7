"""What gpuhosts-metrics writes is read by others, and the other way round."""

from __future__ import annotations

from metrics_text import Metrics, labels_of, samples


def test_a_family_is_told_once_with_all_its_samples_and_an_empty_one_not_at_all() -> None:
    metrics = Metrics()
    metrics.gauge("a", "First.", 1, {"x": 'say "no"\\\n'})
    metrics.gauge("b", "Nothing.", None)
    metrics.gauge("a", "First.", 2**60 + 0.0)
    assert metrics.text() == (
        '# HELP a First.\n# TYPE a gauge\na{x="say \\"no\\"\\\\\\n"} 1\na 1.152921504606847e+18\n'.replace(
            "1.152921504606847e+18", f"{2.0**60:.17g}"
        )
    )


def test_samples_of_one_name_are_read_whatever_stands_beside_them() -> None:
    text = 'a_total{x="1"} 3\na{x="}\\n,\\"y\\"=",z="2"} 4\n# TYPE a gauge\na nonsense\na 5\n'
    assert list(samples(text, "a")) == [({"x": '}\n,"y"=', "z": "2"}, 4.0), ({}, 5.0)]
    assert labels_of("") == {}
