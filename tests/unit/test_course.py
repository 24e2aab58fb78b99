"""What share of a training is over: by updates as they are counted, by time as it passes."""

from __future__ import annotations

import pytest

from splatinit.course import Course


def by_time(seconds: float, costs: list[float], fractions=(), *, guess: int = 7000):
    """Updates that cost so many seconds each: the steps that were planned after each, and the looks at fractions."""
    course, done, passed = Course(guess, seconds), 0, 0.0
    planned, shares, looks = [], [], []
    while not course.over(done, passed):
        passed += costs[min(done, len(costs) - 1)]
        done += 1
        course.advance(done, passed)
        planned.append(course.steps)
        shares.append(done / course.steps)
        looks += [(fraction, done) for fraction in fractions if course.reached(fraction, done)]
    return planned, shares, looks


def test_a_number_of_updates_is_what_it_says():
    course = Course(100)
    assert [course.over(done, 1e9) for done in (0, 99, 100)] == [False, False, True]
    assert course.advance(50, 1e9) is False and course.steps == 100
    looks = [done for done in range(1, 101) if any(course.reached(f, done) for f in (1.0, 0.25, 0.251, 0.001))]
    assert looks == [1, 25, 100]


def test_an_even_pace_gives_what_fits_and_schedules_follow_the_time():
    planned, shares, looks = by_time(12.5, [0.125], fractions=(0.1, 0.5, 1.0))
    assert len(planned) == 100 and planned[-1] == 100
    # The guess holds while it does no harm: for the first percent.
    assert planned[0] == 7000 and all(abs(steps - 100) <= 1 for steps in planned[1:])
    assert looks == [(0.1, 10), (0.5, 50), (1.0, 100)]


@pytest.mark.parametrize("costs", [[0.05] * 50 + [0.2], [0.2] * 20 + [0.02], [3.0] + [0.01]])
def test_a_pace_that_changes_moves_the_end_and_schedules_still_follow_the_time(costs):
    seconds = 10.0
    planned, shares, looks = by_time(seconds, costs, fractions=(0.25, 0.5, 0.75))
    passed = [sum(costs[min(k, len(costs) - 1)] for k in range(n + 1)) for n in range(len(planned))]
    assert passed[-2] < seconds <= passed[-1]
    assert [fraction for fraction, _ in looks] == [0.25, 0.5, 0.75]
    for fraction, done in looks:
        assert [0.0, *passed][done - 1] < fraction * seconds <= passed[done - 1] + 1e-9
    # A schedule that asks for a share of the updates gets that share of the time, to within what is found anew.
    for share, now in zip(shares, passed, strict=True):
        assert abs(share - min(1.0, now / seconds)) < 0.04  # 1 %, and what is lost where there are few updates


def test_one_update_is_made_even_without_time_and_a_resumed_one_goes_on():
    planned, shares, _ = by_time(0.0, [1.0])
    assert planned == [1] and shares == [1.0]
    course = Course(7000, 20.0, done=40, passed=10.0)
    assert course.steps == 80 and not course.over(40, 10.0) and course.over(40, 20.0)
    course.advance(41, 10.2)
    assert not course.reached(0.5, 41), "it was reached before the break"
